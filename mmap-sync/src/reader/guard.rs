//! A pin on one generation.

use std::any::{TypeId, type_name};
use std::ops::Deref;
use std::ptr::NonNull;

use rkyv::api::high::HighValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::{Archive, Archived, Portable};

use super::Reader;
use crate::fork;
use crate::primitive::Ordering;
use crate::protocol;

/// The cell number of guards that use the shared counters.
pub(super) const COUNTED: u8 = u8::MAX;

/// Bytes of one generation, which do not change as long as the guard lives.
///
/// Belongs to the thread of its [`Reader`]. Holding one for long costs the writer one more file.
pub struct Guard<'a> {
    reader: &'a Reader,
    start: NonNull<u8>,
    len: usize,
    generation: u64,
    /// The process that pinned it.
    token: u64,
    cell: u8,
    switched: bool,
}

impl<'a> Guard<'a> {
    #[inline(always)]
    pub(super) fn new(
        reader: &'a Reader,
        start: NonNull<u8>,
        len: usize,
        generation: u64,
        cell: u8,
        switched: bool,
    ) -> Guard<'a> {
        Guard { reader, start, len, generation, token: reader.token.get(), cell, switched }
    }

    /// The generation: 1 for the first publication, one more for each that followed.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What was published. Aligned to 64 bytes at least.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY:
        // - `start` and `len` lie inside a mapping that is not unmapped while a guard looks into it (`Copies`), and
        //   inside what the file system has reserved (checked in `Copies`; the writer never truncates).
        // - nobody writes there while the generation is pinned: the protocol, and M7 for other processes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Whether this is the handle's first guard on this generation since a guard on another.
    #[inline]
    pub fn is_switched(&self) -> bool {
        self.switched
    }

    /// The published value. Its bytes are validated the first time that this handle sees this generation as this
    /// type.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) if the bytes are not an archive of `T`; without allocation.
    #[inline]
    pub fn access<T>(&self) -> Result<&Archived<T>, crate::Error>
    where
        T: Archive + 'static,
        T::Archived: Portable + for<'b> CheckBytes<HighValidator<'b, Failure>>,
    {
        let of = (Some(TypeId::of::<T>()), self.generation);
        if !self.reader.valid.iter().any(|valid| valid.get() == of) {
            self.validate::<T>()?;
        }
        // SAFETY:
        // - these very bytes were validated as `T`'s archive: by this handle, in this generation; they did not change
        //   since, because a generation is in one file and is not written again.
        // - the start is page-aligned as it was then.
        Ok(unsafe { rkyv::access_unchecked::<Archived<T>>(self.bytes()) })
    }

    #[cold]
    fn validate<T>(&self) -> Result<(), crate::Error>
    where
        T: Archive + 'static,
        T::Archived: Portable + for<'b> CheckBytes<HighValidator<'b, Failure>>,
    {
        rkyv::access::<Archived<T>, Failure>(self.bytes()).map_err(|_| crate::Error::Invalid {
            type_name: type_name::<T>(),
            generation: self.generation,
            bytes: self.len as u64,
        })?;
        let of = TypeId::of::<T>();
        let valid = &self.reader.valid;
        // The entry of the same type, or of the oldest generation.
        let entry = valid.iter().find(|entry| entry.get().0 == Some(of)).or_else(|| {
            valid.iter().min_by_key(|entry| match entry.get() {
                (None, _) => 0,
                (Some(_), generation) => generation.saturating_add(1),
            })
        });
        if let Some(entry) = entry {
            entry.set((Some(of), self.generation));
        }
        Ok(())
    }
}

impl Deref for Guard<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        let reader = self.reader;
        if reader.token_cell.load(Ordering::Relaxed) != self.token
            && fork::token(reader.token_cell) != self.token
        {
            // The pin is the parent's.
            return;
        }
        if self.cell == COUNTED {
            return reader.release_counted(self.generation);
        }
        let number = usize::from(self.cell);
        if let Some(pin) = reader.pins.get(number)
            && let Some(hot) = reader.hot.get()
        {
            let refs = pin.refs.get().wrapping_sub(1);
            pin.refs.set(refs);
            // SAFETY:
            // - `hot` points into mappings that are not replaced while a guard is alive.
            let slot = unsafe { hot.slot.as_ref() };
            if refs == 0
                && let Some(cell) = slot.cells.get(number)
            {
                protocol::release(cell);
            }
        }
    }
}

impl std::fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("generation", &self.generation)
            .field("bytes", &self.len)
            .finish_non_exhaustive()
    }
}
