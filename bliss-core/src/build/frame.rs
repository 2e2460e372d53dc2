//! Laying out a frame: its sections, and its header.

use rkyv::util::AlignedVec;

use crate::publication::frame::{ALIGN, FrameError, HEADER_BYTES, Kind, MAGIC, Section, VERSION};

/// Writes the header of a frame whose metadata lies at `metadata`.
///
/// # Errors
/// Where `bytes` is shorter than a header.
pub(in crate::build) fn write_header(
    bytes: &mut [u8],
    kind: Kind,
    metadata: Section,
) -> Result<(), FrameError> {
    let found = bytes.len() as u64;
    let header = bytes
        .first_chunk_mut::<HEADER_BYTES>()
        .ok_or(FrameError::CutOff { expected: HEADER_BYTES as u64, found })?;
    let kind_and_version = u64::from(kind as u32) << 32 | u64::from(VERSION);
    let words = [u64::from_le_bytes(MAGIC), kind_and_version, metadata.offset, metadata.len];
    header.fill(0);
    for (to, word) in header.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *to = word.to_le_bytes();
    }
    Ok(())
}

/// Lays parts out one behind the other, each on the grid, behind a header.
#[derive(Debug)]
pub(in crate::build) struct Packer {
    end: u64,
}

impl Packer {
    /// Nothing but the header yet.
    #[allow(clippy::new_without_default)]
    pub(in crate::build) fn new() -> Self {
        Self { end: HEADER_BYTES as u64 }
    }

    /// Behind a frame of this length.
    pub(in crate::build) fn behind(bytes: u64) -> Self {
        Self { end: bytes }
    }

    /// Adds a part of `len` bytes and returns where it lies.
    pub(in crate::build) fn append(&mut self, len: usize) -> Section {
        let section = Section { offset: self.end.next_multiple_of(ALIGN as u64), len: len as u64 };
        self.end = section.offset + section.len;
        section
    }

    /// The frame's bytes with these parts where they lie, and without its header.
    ///
    /// # Errors
    /// Where a part lies outside.
    pub(in crate::build) fn fill<'a>(
        &self,
        parts: impl Iterator<Item = (&'a Section, &'a [u8])>,
    ) -> Result<AlignedVec<64>, FrameError> {
        let mut bytes = AlignedVec::new();
        bytes.resize(usize::try_from(self.end).unwrap_or(usize::MAX), 0);
        for (index, (section, part)) in parts.enumerate() {
            let at = usize::try_from(section.offset).map_err(|_| FrameError::Section { index })?;
            let dest = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..part.len()));
            dest.ok_or(FrameError::Section { index })?.copy_from_slice(part);
        }
        Ok(bytes)
    }

    /// Length of the frame so far.
    pub(in crate::build) fn bytes(&self) -> u64 {
        self.end
    }
}
