//! Whether the daemon still lives, at the cost of one load for each request.

use mmap_sync::Reader;

/// Of a daemon that never gave a sign of life since the system was started. Far from where sums would overflow.
const NEVER: i64 = 1 << 40;

/// What is known of the daemon's last sign of life, in the time of the caller.
///
/// The heartbeat of a publication is in nanoseconds of the monotonic clock, and requests come with the caller's own time
/// in seconds, often a cached one. So the clock is asked only where the heartbeat has changed, which is about once a
/// second, and the caller's time tells how long ago that was.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    /// The heartbeat that was seen last.
    seen: u64,
    /// When it was, in seconds since the Unix epoch by the caller's time.
    at: i64,
    /// The caller's time when the clock last confirmed that it is too old; `None` if not since it was seen.
    confirmed: Option<i64>,
}

impl Default for Heartbeat {
    fn default() -> Self {
        // In every caller's future, so that the first request looks.
        Self { seen: 0, at: i64::MAX, confirmed: None }
    }
}

impl Heartbeat {
    /// Whether the last sign of life is at most `max_age` seconds old, 0 for any age, when it is `now`.
    ///
    /// # Errors
    /// How old it is, in seconds, where that is more; `None` if there was none since the system was started.
    #[inline]
    pub(crate) fn check(&mut self, reader: &Reader, now: u32, max_age: u32) -> Result<(), Option<u64>> {
        if max_age == 0 {
            return Ok(());
        }
        let now = i64::from(now);
        let heartbeat = reader.heartbeat();
        // A time that goes back says nothing about how long ago it was.
        if heartbeat != self.seen || now < self.at {
            self.ask_the_clock(reader, heartbeat, now);
        }
        // Not negative: `at` is not later than `now`.
        if now - self.at <= i64::from(max_age) {
            return Ok(());
        }
        self.confirm(reader, now, max_age)
    }

    /// Asks the clock before a heartbeat is said to be too old, at most once a second of the caller's time: that time may
    /// have been put forward, which says as little as one that goes back. Also looks whether the files were replaced: a daemon
    /// that was started anew may have published to others. The next pin finds them.
    #[cold]
    fn confirm(&mut self, reader: &Reader, now: i64, max_age: u32) -> Result<(), Option<u64>> {
        if self.confirmed != Some(now) {
            // The next pin reports errors.
            let _ = reader.maintain();
            self.ask_the_clock(reader, reader.heartbeat(), now);
            self.confirmed = Some(now);
        }
        let age = now - self.at;
        if age <= i64::from(max_age) {
            return Ok(());
        }
        Err(u64::try_from(age).ok().filter(|_| self.at >= 0))
    }

    #[cold]
    fn ask_the_clock(&mut self, reader: &Reader, heartbeat: u64, now: i64) {
        let age = reader.writer_age().and_then(|age| i64::try_from(age.as_secs()).ok());
        self.seen = heartbeat;
        self.at = now - age.unwrap_or(NEVER).min(NEVER);
        self.confirmed = None;
    }
}
