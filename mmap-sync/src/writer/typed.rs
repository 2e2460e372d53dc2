//! Values serialised straight into the standby copy.

use std::any::type_name;
use std::ptr::NonNull;

use rkyv::Serialize;
use rkyv::api::high::HighSerializer;
use rkyv::api::serialize_using;
use rkyv::rancor::{self, Source, Strategy};
use rkyv::ser::allocator::ArenaHandle;
use rkyv::ser::sharing::Share;
use rkyv::ser::{self, Positional};
use rkyv::util::with_arena;

use super::{Publication, Standby, Writer};
use crate::checksum::{BLOCK, Blocks};
use crate::error::Error;

/// What a value serialises itself with: rkyv's high-level serialiser over the standby copy.
pub type Serializer<'a> = HighSerializer<Sink<'a>, ArenaHandle<'a>, rancor::Error>;

/// Room for a value of unknown size, to begin with.
const FIRST: u64 = 64 << 10;

/// Room is doubled, but not by more than this.
const MAX_STEP: u64 = 256 << 20;

/// Appends to a [`Standby`], which grows as needed.
pub struct Sink<'a> {
    target: &'a mut (dyn Grow + 'a),
    /// The bytes of the target, until it grows.
    room: Option<&'a mut [u8]>,
    written: usize,
    /// Whole blocks are summed while they are copied; values are written in order.
    blocks: &'a mut Blocks,
    summed: usize,
    threads: usize,
    error: &'a mut Option<Error>,
}

/// A [`Standby`], whatever its lifetime.
trait Grow {
    fn grow(&mut self, bytes: u64) -> Result<NonNull<[u8]>, Error>;
}

impl Grow for Standby<'_> {
    fn grow(&mut self, bytes: u64) -> Result<NonNull<[u8]>, Error> {
        let now = self.len();
        if bytes > now {
            let generous = bytes.max(now.saturating_add(now.clamp(FIRST, MAX_STEP)));
            self.resize(generous).or_else(|_| self.resize(bytes))?;
        }
        Ok(NonNull::from(self.bytes_mut()))
    }
}

impl<'a> Sink<'a> {
    fn new(
        target: &'a mut (dyn Grow + 'a),
        blocks: &'a mut Blocks,
        error: &'a mut Option<Error>,
        threads: usize,
    ) -> Sink<'a> {
        Sink { target, room: None, written: 0, blocks, summed: 0, threads, error }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = self.written.saturating_add(bytes.len());
        if self.room.as_ref().is_none_or(|room| end > room.len()) {
            self.room = None;
            let mut room = self.target.grow(end as u64)?;
            // SAFETY:
            // - the bytes belong to the standby copy that `target` borrows for 'a.
            // - they stay where they are, and nobody else touches them, until `grow` is called again; the reference was
            //   dropped before that.
            self.room = Some(unsafe { room.as_mut() });
        }
        let Some(room) = &mut self.room else { return Ok(()) };
        let Some(target) = room.get_mut(self.written..end) else { return Ok(()) };
        // The block that was begun is filled up; whole blocks are summed while they are copied.
        let begun = self.written % BLOCK;
        let first = if begun == 0 { 0 } else { (BLOCK - begun).min(bytes.len()) };
        let whole = (bytes.len() - first) / BLOCK * BLOCK;
        let (first_bytes, rest_bytes) = bytes.split_at(first);
        let (whole_bytes, last_bytes) = rest_bytes.split_at(whole);
        let (first_target, rest_target) = target.split_at_mut(first);
        let (_, last_target) = rest_target.split_at_mut(whole);
        first_target.copy_from_slice(first_bytes);
        last_target.copy_from_slice(last_bytes);
        if begun > 0
            && begun + first == BLOCK
            && let Some(block) = room.get(self.summed..self.summed + BLOCK)
        {
            self.blocks.push(block);
            self.summed += BLOCK;
        }
        if whole > 0 {
            let target = room.get_mut(self.summed..self.summed + whole).unwrap_or_default();
            self.blocks.push_copy(target, whole_bytes, self.threads);
            self.summed += whole;
        }
        self.written = end;
        Ok(())
    }
}

impl Positional for Sink<'_> {
    fn pos(&self) -> usize {
        self.written
    }
}

impl ser::Writer<rancor::Error> for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), rancor::Error> {
        self.append(bytes).map_err(|error| {
            let message = rancor::Error::new(error.clone());
            *self.error = Some(error);
            message
        })
    }
}

impl Writer {
    /// Publishes a value, serialised straight into the standby copy. Read it with
    /// [`Guard::access`](crate::Guard::access).
    ///
    /// # Errors
    ///
    /// As [`standby`](Self::standby), and [`Error::Serialize`] if the value cannot be serialised.
    pub fn write<T>(&mut self, value: &T) -> Result<Publication, Error>
    where
        T: for<'a> Serialize<Serializer<'a>>,
    {
        let grace = self.options.grace;
        self.write_within(value, grace)
    }

    /// Like [`write`](Self::write), with another grace period.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_within<T>(&mut self, value: &T, grace: std::time::Duration) -> Result<Publication, Error>
    where
        T: for<'a> Serialize<Serializer<'a>>,
    {
        let threads = self.threads;
        let likely = self.current_copy().map_or(FIRST, |copy| copy.bytes.max(1));
        let mut standby = self.standby_within(1, grace)?;
        // If there is no room for as much as last time, perhaps less is needed now.
        let _ = standby.resize(likely);
        let mut failed = None;
        let mut blocks = standby.lend_blocks();
        let written = with_arena(|arena| {
            let sink = Sink::new(&mut standby, &mut blocks, &mut failed, threads);
            let mut serializer = ser::Serializer::new(sink, arena.acquire(), Share::new());
            let strategy: &mut Serializer<'_> = Strategy::wrap(&mut serializer);
            serialize_using(value, strategy)?;
            let sink = serializer.into_writer();
            Ok::<_, rancor::Error>((sink.written, sink.summed))
        });
        match written {
            Ok((written, summed)) => {
                standby.resize(written as u64)?;
                if let Some(last) = standby.bytes().get(summed..written).filter(|last| !last.is_empty()) {
                    blocks.push(last);
                }
                standby.return_blocks(blocks);
                standby.publish()
            }
            Err(reason) => Err(failed.unwrap_or_else(|| Error::Serialize {
                type_name: type_name::<T>(),
                reason: reason.to_string(),
            })),
        }
    }
}
