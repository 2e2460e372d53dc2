//! A pin on one generation.

use std::any::{TypeId, type_name};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

use rkyv::api::high::HighValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::{Archive, Archived, Portable};

use super::{PinCell, Reader};
use bliss_os::fork::{self};

use crate::protocol;

/// Bytes of one generation, which do not change as long as the guard lives.
///
/// Belongs to the thread of its [`Reader`]. Holding one for long costs the writer one more file.
pub struct Guard<'a> {
    /// The address of the [`PinCell`]; bit 0 says whether the guard is the first on its generation.
    pin: NonNull<PinCell>,
    reader: PhantomData<&'a Reader>,
}

const SWITCHED: usize = 1;

impl<'a> Guard<'a> {
    #[inline(always)]
    pub(super) fn new(pin: &'a PinCell, switched: bool) -> Guard<'a> {
        const { assert!(align_of::<PinCell>() > SWITCHED) };
        let pin = NonNull::from(pin).map_addr(|address| address | usize::from(switched));
        Guard { pin, reader: PhantomData }
    }

    #[inline(always)]
    fn pin(&self) -> &'a PinCell {
        let pin = self.pin.as_ptr().map_addr(|address| address & !SWITCHED);
        // SAFETY:
        // - the pin is part of the reader, which is borrowed for 'a and does not move (it is on the heap).
        unsafe { &*pin }
    }

    /// The generation: 1 for the first publication, one more for each that followed.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.pin().generation.get()
    }

    /// What was published. Aligned to 64 bytes at least.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY:
        // - `start` and `len` lie inside a mapping that is not unmapped while a guard looks into it (`Copies`), and
        //   inside what the file system has reserved (checked in `Copies`; the writer never truncates).
        // - the pin is not used for another generation while a guard uses it (its count is not zero).
        // - nobody writes there while the generation is pinned: the protocol, and M7 for other processes.
        unsafe { std::slice::from_raw_parts(self.pin().start.get().as_ptr(), self.pin().len.get()) }
    }

    /// Whether this is the handle's first guard on this generation since a guard on another.
    #[inline]
    pub fn is_switched(&self) -> bool {
        self.pin.addr().get() & SWITCHED != 0
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
        if self.pin().valid.get() != Some(TypeId::of::<T>()) {
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
        let of = (Some(TypeId::of::<T>()), self.generation());
        let Some(inner) = self.pin().inner.get() else { return Ok(()) };
        // SAFETY:
        // - the pin is part of it.
        let valid = unsafe { &inner.as_ref().valid };
        if !valid.iter().any(|entry| entry.get() == of) {
            rkyv::access::<Archived<T>, Failure>(self.bytes()).map_err(|_| crate::Error::Invalid {
                type_name: type_name::<T>(),
                generation: self.generation(),
                bytes: self.len() as u64,
            })?;
            // The entry of the same type, or of the oldest generation.
            let age = |entry: &&Cell<(Option<TypeId>, u64)>| match entry.get() {
                (None, _) => 0,
                (same, _) if same == of.0 => 1,
                (_, generation) => generation.saturating_add(2),
            };
            if let Some(entry) = valid.iter().min_by_key(age) {
                entry.set(of);
            }
        }
        self.pin().valid.set(of.0);
        Ok(())
    }
}

impl Guard<'_> {
    #[cold]
    fn release_counted(&self) {
        if let Some(inner) = self.pin().inner.get() {
            // SAFETY:
            // - the pin is part of it.
            unsafe { inner.as_ref() }.release_counted(self.generation());
        }
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
        let pin = self.pin();
        let token = pin.token.get();
        if fork::peek() != token && fork::token() != token {
            // The pin is the parent's.
            return;
        }
        let refs = pin.refs.get().wrapping_sub(1);
        pin.refs.set(refs);
        if refs == 0 {
            match pin.cell.get() {
                // SAFETY:
                // - the cell is in a mapping that is not replaced while a guard is alive.
                Some(cell) => protocol::release(unsafe { cell.as_ref() }),
                None => self.release_counted(),
            }
        }
    }
}

impl std::fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("generation", &self.generation())
            .field("bytes", &self.len())
            .finish_non_exhaustive()
    }
}
