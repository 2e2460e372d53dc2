//! Texts copied out of a publication, in memory of a fixed size.

use crate::schema::MAX_NAME_BYTES;

/// A name of up to [`MAX_NAME_BYTES`] bytes.
pub(crate) type Name = Text<MAX_NAME_BYTES>;

/// A text of up to `N` bytes.
#[derive(Clone, Copy)]
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    len: u16,
}

const _: () = assert!(MAX_NAME_BYTES <= u16::MAX as usize);

impl<const N: usize> Text<N> {
    /// No text.
    pub(crate) const EMPTY: Self = Self { bytes: [0; N], len: 0 };

    /// The text, or `None` if it is too long.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let mut made = Self::EMPTY;
        made.set(text).then_some(made)
    }

    /// As much of `text` as fits.
    pub(crate) fn truncated(text: &str) -> Self {
        let end = (0..=text.len().min(N)).rev().find(|&i| text.is_char_boundary(i));
        text.get(..end.unwrap_or(0)).and_then(Self::new).unwrap_or(Self::EMPTY)
    }

    /// Puts `text` in its place; says whether it fits, and is empty if not.
    pub(crate) fn set(&mut self, text: &str) -> bool {
        self.len = 0;
        let (Some(bytes), Ok(len)) = (self.bytes.get_mut(..text.len()), u16::try_from(text.len())) else {
            return false;
        };
        bytes.copy_from_slice(text.as_bytes());
        self.len = len;
        true
    }

    pub(crate) fn as_str(&self) -> &str {
        let text = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        // SAFETY:
        // - `set` alone writes bytes and length, and copies a `str` whole
        unsafe { core::str::from_utf8_unchecked(text) }
    }
}

impl<const N: usize> core::fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.as_str().fmt(f)
    }
}
