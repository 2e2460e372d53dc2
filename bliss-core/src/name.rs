//! Names copied out of a publication, in memory of a fixed size.

use crate::schema::MAX_NAME_BYTES;

/// A name of up to [`MAX_NAME_BYTES`] bytes.
#[derive(Clone, Copy)]
pub(crate) struct Name {
    bytes: [u8; MAX_NAME_BYTES],
    len: u8,
}

const _: () = assert!(MAX_NAME_BYTES <= 255);

impl Name {
    /// The name, or `None` if it is too long.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; MAX_NAME_BYTES];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, len: u8::try_from(text.len()).ok()? })
    }

    /// As much of `text` as fits.
    pub(crate) fn truncated(text: &str) -> Self {
        let end = (0..=text.len().min(MAX_NAME_BYTES)).rev().find(|&i| text.is_char_boundary(i));
        let fitting = text.get(..end.unwrap_or(0)).and_then(Self::new);
        fitting.unwrap_or(Self { bytes: [0; MAX_NAME_BYTES], len: 0 })
    }

    pub(crate) fn as_str(&self) -> &str {
        // Copied whole from a `str`, so it always is one.
        self.bytes.get(..usize::from(self.len)).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or_default()
    }
}

impl core::fmt::Debug for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.as_str().fmt(f)
    }
}
