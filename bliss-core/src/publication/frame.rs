//! How a publication is laid out: a header, rkyv metadata, and sections of raw bytes.
//!
//! ```text
//! offset 0     8  magic, the letters BLISSFRM
//! offset 8     4  layout version, u32 LE
//! offset 12    4  kind: 1 features, 2 models, 3 policies
//! offset 16    8  offset of the metadata, u64 LE, a multiple of 64
//! offset 24    8  length of the metadata in bytes, u64 LE
//! offset 32   32  zero
//! then            sections, each at an offset that is a multiple of 64 and given in the metadata
//! ```
//!
//! All numbers are little-endian. The metadata is an rkyv archive (0.8, little-endian, 64-bit pointers) of a type
//! that names the sections; checking it costs time in proportion to names and sections, never to rows.

use rkyv::api::high::HighValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;

/// Length of the header.
pub const HEADER_BYTES: usize = 64;
/// Sections and metadata begin at multiples of this.
pub const ALIGN: usize = 64;

pub(crate) const MAGIC: [u8; 8] = *b"BLISSFRM";
pub(crate) const VERSION: u32 = 5;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Feature tables and their schema.
    Features = 1,
    /// Models and their routes.
    Models = 2,
    /// Policies, the routes that use them, and exceptions.
    Policies = 3,
}

/// Why bytes are refused as a frame, or as what it should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than its header or than the header says.
    #[error("publication is cut off: {expected} bytes expected, {found} found")]
    CutOff {
        /// Bytes expected.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// Does not begin with the magic letters.
    #[error("not a BLISS publication: it does not begin with the letters BLISSFRM")]
    Magic,
    /// A layout this library does not know.
    #[error(
        "publication of layout version {found}, this library reads version {VERSION}; upgrade the older of daemon and library"
    )]
    Version {
        /// Version found.
        found: u32,
    },
    /// A frame of another kind, for instance models where features were expected.
    #[error("publication of kind {found}, expected {expected} (1 features, 2 models, 3 policies)")]
    Kind {
        /// Kind expected.
        expected: u32,
        /// Kind found.
        found: u32,
    },
    /// The metadata does not check out.
    #[error("publication's metadata is damaged")]
    Metadata,
    /// A section that the metadata names is not where it should be.
    #[error("section {index} of the publication is damaged or out of bounds")]
    Section {
        /// Its number.
        index: usize,
    },
    /// More than this library has room for.
    #[error("publication has too many {what}: {found}, at most {limit}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
}

/// A checked part of a frame.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Section {
    /// Offset in the frame, in bytes; a multiple of [`ALIGN`].
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

impl ArchivedSection {
    /// The section's bytes within `frame`.
    ///
    /// # Errors
    /// Where it begins off the grid or ends beyond the frame; `index` names it in the error.
    pub fn of<'a>(&self, frame: &'a [u8], index: usize) -> Result<&'a [u8], FrameError> {
        let section = Section { offset: self.offset.to_native(), len: self.len.to_native() };
        section.of(frame, index)
    }
}

impl Section {
    /// The section's bytes within `frame`.
    ///
    /// # Errors
    /// Where it begins off the grid or ends beyond the frame; `index` names it in the error.
    pub fn of<'a>(&self, frame: &'a [u8], index: usize) -> Result<&'a [u8], FrameError> {
        let error = FrameError::Section { index };
        let offset = usize::try_from(self.offset).map_err(|_| error)?;
        let len = usize::try_from(self.len).map_err(|_| error)?;
        if !offset.is_multiple_of(ALIGN) {
            return Err(error);
        }
        frame.get(offset..).and_then(|rest| rest.get(..len)).ok_or(error)
    }
}

/// The checked metadata of a frame: an archived `T`.
///
/// # Errors
/// Where header or metadata are damaged, cut off, of another kind or of another version.
pub fn open<T>(bytes: &[u8], kind: Kind) -> Result<&T::Archived, FrameError>
where
    T: rkyv::Archive,
    T::Archived: rkyv::Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Failure>>,
{
    let section = metadata(bytes, kind)?;
    let metadata = section.of(bytes, 0).map_err(|_| FrameError::CutOff {
        expected: section.offset.saturating_add(section.len),
        found: bytes.len() as u64,
    })?;
    rkyv::access::<T::Archived, rancor::Failure>(metadata).map_err(|_| FrameError::Metadata)
}

/// Checks the header and returns where it says the metadata is.
pub(crate) fn metadata(bytes: &[u8], kind: Kind) -> Result<Section, FrameError> {
    let found = bytes.len() as u64;
    let header = bytes
        .first_chunk::<HEADER_BYTES>()
        .ok_or(FrameError::CutOff { expected: HEADER_BYTES as u64, found })?;
    let (words, _) = header.as_chunks::<8>();
    let word = |i: usize| words.get(i).map_or(0, |w| u64::from_le_bytes(*w));
    if word(0) != u64::from_le_bytes(MAGIC) {
        return Err(FrameError::Magic);
    }
    let [version, found_kind] = [word(1) as u32, (word(1) >> 32) as u32];
    if version != VERSION {
        return Err(FrameError::Version { found: version });
    }
    if found_kind != kind as u32 {
        return Err(FrameError::Kind { expected: kind as u32, found: found_kind });
    }
    Ok(Section { offset: word(2), len: word(3) })
}
