//! Clocks, the boot id, random numbers.

use std::sync::OnceLock;

fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY:
    // - `time` is writable and of the type that `clock_gettime` fills in.
    unsafe { libc::clock_gettime(id, &mut time) };
    let (seconds, nanos) =
        (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos)
}

/// Nanoseconds of a clock that is the same in all processes since boot; precise to some milliseconds, without a
/// system call.
pub fn monotonic_ns() -> u64 {
    clock(libc::CLOCK_MONOTONIC_COARSE)
}

/// Nanoseconds since the Unix epoch.
pub fn unix_ns() -> u64 {
    clock(libc::CLOCK_REALTIME)
}

/// The boot id of the running system as two words, if `/proc` has it. Only the first call reads it.
pub fn boot_id() -> Option<[u64; 2]> {
    static BOOT_ID: OnceLock<Option<[u64; 2]>> = OnceLock::new();
    *BOOT_ID.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let high = u64::from_str_radix(digits.get(..16)?, 16).ok()?;
        let low = u64::from_str_radix(digits.get(16..32)?, 16).ok()?;
        Some([high, low])
    })
}

/// A unique number.
pub fn random() -> u64 {
    let mut bytes = [0_u8; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => unix_ns().rotate_left(32) ^ u64::from(std::process::id()) ^ (&raw const bytes).addr() as u64,
    }
}
