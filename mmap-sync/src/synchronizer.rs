//! The interface of the published crate of the same idea: one type that writes or reads.

use std::ffi::OsStr;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use rkyv::api::high::HighValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::{Archive, Archived, Portable, Serialize};

pub use crate::error::Error as SynchronizerError;
pub use crate::layout::InstanceVersion;
use crate::options::Options;
use crate::reader::{Guard, Reader};
use crate::writer::{Serializer, Writer};

/// Writes and reads values under one path prefix.
///
/// Nothing is opened before the first call that needs it: the first write makes this the writer, the first read a
/// reader.
///
/// ```
/// use std::time::Duration;
/// use mmap_sync::synchronizer::Synchronizer;
///
/// #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
/// struct Features { version: u32, rates: Vec<f32> }
///
/// # fn main() -> Result<(), mmap_sync::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let prefix = dir.path().join("features");
/// let mut writer = Synchronizer::new(&prefix);
/// writer.write(&Features { version: 7, rates: vec![0.5] }, Duration::from_secs(1))?;
///
/// let mut reader = Synchronizer::new(&prefix);
/// let features = reader.read::<Features>()?;
/// assert!(features.is_switched());
/// assert_eq!(features.version, 7);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Synchronizer {
    options: Options,
    writer: Option<Writer>,
    reader: Option<Reader>,
}

impl Synchronizer {
    /// For the files `path_prefix_state` and so on.
    pub fn new(path_prefix: impl AsRef<OsStr>) -> Self {
        Self::with_options(Options::new(Path::new(path_prefix.as_ref())))
    }

    /// With other options than the defaults.
    pub fn with_options(options: Options) -> Self {
        Synchronizer { options, writer: None, reader: None }
    }

    /// Publishes a value: `(bytes written, whether the standby copy was still pinned after the grace period)`.
    ///
    /// # Errors
    ///
    /// As [`Options::open_writer`] and [`Writer::write`].
    pub fn write<T>(
        &mut self,
        entity: &T,
        grace_duration: Duration,
    ) -> Result<(usize, bool), SynchronizerError>
    where
        T: for<'a> Serialize<Serializer<'a>>,
    {
        let published = self.writer()?.write_within(entity, grace_duration)?;
        Ok((usize::try_from(published.bytes).unwrap_or(usize::MAX), published.reset))
    }

    /// Publishes the archive of a `T`, made elsewhere. Refused if it is not one.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), and [`SynchronizerError::Invalid`].
    pub fn write_raw<T>(
        &mut self,
        data: &[u8],
        grace_duration: Duration,
    ) -> Result<(usize, bool), SynchronizerError>
    where
        T: Archive,
        T::Archived: Portable + for<'b> CheckBytes<HighValidator<'b, Failure>>,
    {
        let mut standby = self.writer()?.standby_within(data.len() as u64, grace_duration)?;
        standby.bytes_mut().copy_from_slice(data);
        // In the copy the bytes are aligned, which `data` need not be.
        if rkyv::access::<Archived<T>, Failure>(standby.bytes()).is_err() {
            return Err(SynchronizerError::Invalid {
                type_name: std::any::type_name::<T>(),
                generation: standby.next_generation(),
                bytes: data.len() as u64,
            });
        }
        let published = standby.publish()?;
        Ok((data.len(), published.reset))
    }

    /// The value that was published last. It stays as it is until the result is dropped.
    ///
    /// # Errors
    ///
    /// [`SynchronizerError::NotPublished`] before the first publication, [`SynchronizerError::Invalid`] if it is not a
    /// `T`; otherwise as [`Reader::pin`].
    pub fn read<T>(&mut self) -> Result<ReadResult<'_, T>, SynchronizerError>
    where
        T: Archive + 'static,
        T::Archived: Portable + for<'b> CheckBytes<HighValidator<'b, Failure>>,
    {
        let guard = self.reader()?.pin()?;
        let entity = std::ptr::from_ref(guard.access::<T>()?);
        Ok(ReadResult { entity, guard })
    }

    /// Which copy is current, its size, and the low bits of its checksum; changes with every publication.
    ///
    /// # Errors
    ///
    /// As [`Options::open_reader`]; [`SynchronizerError::NotPublished`] before the first publication.
    pub fn version(&mut self) -> Result<InstanceVersion, SynchronizerError> {
        self.reader()?.version().ok_or(SynchronizerError::NotPublished)
    }

    fn writer(&mut self) -> Result<&mut Writer, SynchronizerError> {
        match &mut self.writer {
            Some(writer) => Ok(writer),
            none => Ok(none.insert(self.options.open_writer()?)),
        }
    }

    fn reader(&mut self) -> Result<&Reader, SynchronizerError> {
        match &mut self.reader {
            Some(reader) => Ok(reader),
            none => Ok(none.insert(self.options.open_reader()?)),
        }
    }
}

/// A value that was read, and the pin that keeps it.
pub struct ReadResult<'a, T: Archive> {
    entity: *const Archived<T>,
    guard: Guard<'a>,
}

impl<T: Archive> ReadResult<'_, T> {
    /// Whether this is the first read of this version.
    pub fn is_switched(&self) -> bool {
        self.guard.is_switched()
    }

    /// The generation of the value.
    pub fn generation(&self) -> u64 {
        self.guard.generation()
    }
}

impl<T: Archive> Deref for ReadResult<'_, T> {
    type Target = Archived<T>;

    fn deref(&self) -> &Archived<T> {
        // SAFETY:
        // - the pointer came from `Guard::access` of this guard, which lives as long as `self`; the bytes do not move
        //   with it, since they are in a mapping.
        unsafe { &*self.entity }
    }
}
