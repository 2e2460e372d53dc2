//! Values serialised straight into the standby copy.

use std::any::type_name;

use rkyv::Serialize;
use rkyv::api::high::HighSerializer;
use rkyv::api::serialize_using;
use rkyv::rancor::{self, Source, Strategy};
use rkyv::ser::allocator::ArenaHandle;
use rkyv::ser::sharing::Share;
use rkyv::ser::{self, Positional};
use rkyv::util::with_arena;

use super::{Published, Standby, Writer};
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
    written: usize,
    error: &'a mut Option<Error>,
}

/// A [`Standby`], whatever its lifetime.
trait Grow {
    fn room(&mut self) -> &mut [u8];
    fn grow(&mut self, bytes: u64) -> Result<(), Error>;
}

impl Grow for Standby<'_> {
    fn room(&mut self) -> &mut [u8] {
        self.bytes_mut()
    }

    fn grow(&mut self, bytes: u64) -> Result<(), Error> {
        let now = self.len();
        let generous = bytes.max(now.saturating_add(now.clamp(FIRST, MAX_STEP)));
        self.resize(generous).or_else(|_| self.resize(bytes))
    }
}

impl Sink<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = self.written.saturating_add(bytes.len());
        if end > self.target.room().len() {
            self.target.grow(end as u64)?;
        }
        if let Some(room) = self.target.room().get_mut(self.written..end) {
            room.copy_from_slice(bytes);
            self.written = end;
        }
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
    pub fn write<T>(&mut self, value: &T) -> Result<Published, Error>
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
    pub fn write_within<T>(&mut self, value: &T, grace: std::time::Duration) -> Result<Published, Error>
    where
        T: for<'a> Serialize<Serializer<'a>>,
    {
        let likely = self.current_copy().map_or(FIRST, |copy| copy.bytes.max(1));
        let mut standby = self.standby_within(1, grace)?;
        // If there is no room for as much as last time, perhaps less is needed now.
        let _ = standby.resize(likely);
        let mut failed = None;
        let written = with_arena(|arena| {
            let sink = Sink { target: &mut standby, written: 0, error: &mut failed };
            let mut serializer = ser::Serializer::new(sink, arena.acquire(), Share::new());
            let strategy: &mut Serializer<'_> = Strategy::wrap(&mut serializer);
            serialize_using(value, strategy)?;
            Ok::<_, rancor::Error>(serializer.into_writer().written)
        });
        match written {
            Ok(written) => {
                standby.resize(written as u64)?;
                standby.publish()
            }
            Err(reason) => Err(failed.unwrap_or_else(|| Error::Serialize {
                type_name: type_name::<T>(),
                reason: reason.to_string(),
            })),
        }
    }
}
