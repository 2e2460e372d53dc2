//! Texts of bounded length that are written without allocation.

use core::fmt::{self, Write};

use crate::pointer::{MAX_TEXT_BYTES, OutText};

/// The text of an error.
pub(crate) struct Message {
    bytes: [u8; MAX_TEXT_BYTES],
    len: usize,
}

impl Message {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; MAX_TEXT_BYTES], len: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Replaces the text.
    pub(crate) fn set(&mut self, text: impl fmt::Display) {
        self.clear();
        // It fails only where the text is cut, which is intended.
        let _ = write!(self, "{text}");
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Copies the text and a NUL to `buffer`, cut where it does not fit, and returns its whole length without the NUL.
    pub(crate) fn copy_to(&self, buffer: OutText<'_>) -> usize {
        let text = self.as_bytes();
        let buffer = buffer.into_bytes();
        if let Some(room) = buffer.len().checked_sub(1) {
            let with_nul = fitting(text, room).iter().chain(&[0]);
            buffer.iter_mut().zip(with_nul).for_each(|(to, from)| _ = to.write(*from));
        }
        text.len()
    }
}

impl Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let fits = fitting(text.as_bytes(), room.len());
        room.iter_mut().zip(fits).for_each(|(to, from)| *to = *from);
        self.len += fits.len();
        if fits.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// The first `limit` bytes of UTF-8, less what would be half a character.
fn fitting(text: &[u8], limit: usize) -> &[u8] {
    if text.len() <= limit {
        return text;
    }
    let is_boundary = |at: usize| text.get(at).is_none_or(|byte| byte & 0xc0 != 0x80);
    let end = (0..=limit).rev().find(|&at| is_boundary(at)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::undocumented_unsafe_blocks)] // What is passed stands right beside each call.
mod tests {
    use super::*;

    fn copied(message: &Message, room: usize) -> (usize, Vec<u8>) {
        let mut buffer = vec![b'#'; room + 1];
        let whole = message.copy_to(unsafe { OutText::new(buffer.as_mut_ptr().cast(), room) });
        assert_eq!(buffer[room], b'#', "written beyond the buffer");
        (whole, buffer)
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut message = Message::new();
        message.set("ü".repeat(400));
        assert_eq!(message.as_bytes().len(), MAX_TEXT_BYTES);
        message.set(format_args!("x{}", "ü".repeat(400)));
        assert_eq!(message.as_bytes().len(), MAX_TEXT_BYTES - 1);
        assert!(core::str::from_utf8(message.as_bytes()).is_ok());
    }

    #[test]
    fn copies_end_in_nul_and_stay_in_the_buffer() {
        let mut message = Message::new();
        message.set("aü!");
        assert_eq!(copied(&message, 5), (4, b"a\xc3\xbc!\0#".to_vec()));
        assert_eq!(copied(&message, 4), (4, b"a\xc3\xbc\0#".to_vec()));
        assert_eq!(copied(&message, 3).1[..2], *b"a\0");
        assert_eq!(copied(&message, 1), (4, b"\0#".to_vec()));
        assert_eq!(copied(&message, 0), (4, b"#".to_vec()));
        assert_eq!(message.copy_to(unsafe { OutText::new(core::ptr::null_mut(), 9) }), 4);
    }
}
