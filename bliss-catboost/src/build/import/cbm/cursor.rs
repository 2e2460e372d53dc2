//! The bytes of a file, read one part after the other.

use crate::build::import::error::ImportError;

/// A cursor over the bytes that are left.
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, len: u64, what: &'static str) -> Result<&'a [u8], ImportError> {
        let truncated = ImportError::Truncated { what, expected: len, found: self.0.len() as u64 };
        let (head, tail) =
            usize::try_from(len).ok().and_then(|n| self.0.split_at_checked(n)).ok_or(truncated)?;
        self.0 = tail;
        Ok(head)
    }

    /// A size as CatBoost writes it: 32 bits, or all ones and then 64 bits.
    pub(super) fn size(&mut self, what: &'static str) -> Result<u64, ImportError> {
        let short = self.take(4, what)?.first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b));
        if short != u32::MAX {
            return Ok(u64::from(short));
        }
        Ok(self.take(8, what)?.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b)))
    }
}

/// Copies bytes to an address that is a multiple of 8: the verifier looks at addresses.
pub(super) fn aligned(bytes: &[u8]) -> rkyv::util::AlignedVec<16> {
    let mut copy = rkyv::util::AlignedVec::with_capacity(bytes.len());
    copy.extend_from_slice(bytes);
    copy
}

/// A number that must not be negative.
pub(super) fn count(value: i32, what: &'static str) -> Result<usize, ImportError> {
    usize::try_from(value)
        .map_err(|_| ImportError::corrupt(what, format!("expected 0 or more, found {value}")))
}
