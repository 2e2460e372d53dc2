//! A body that is decoded while it arrives.

use std::io::{self, BufRead, Read};

use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Chunks that may wait for the decoder.
const CHUNKS: usize = 4;

/// A chunk, or the end of the body.
pub(super) enum Part<B> {
    Chunk(B),
    End,
}

/// The body, to be read in a thread that may block.
pub(super) struct Arriving<B> {
    parts: Receiver<Part<B>>,
    chunk: Option<B>,
    at: usize,
    ended: bool,
}

/// Where parts go, and what reads them. Parts that end without [`Part::End`] are a broken body.
pub(super) fn body<B: AsRef<[u8]>>() -> (Sender<Part<B>>, Arriving<B>) {
    let (sender, parts) = channel(CHUNKS);
    (sender, Arriving { parts, chunk: None, at: 0, ended: false })
}

impl<B: AsRef<[u8]>> Arriving<B> {
    fn left(&self) -> &[u8] {
        self.chunk.as_ref().and_then(|chunk| chunk.as_ref().get(self.at..)).unwrap_or_default()
    }
}

impl<B: AsRef<[u8]>> BufRead for Arriving<B> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.left().is_empty() && !self.ended {
            self.chunk = None;
            self.at = 0;
            match self.parts.blocking_recv() {
                Some(Part::Chunk(chunk)) => self.chunk = Some(chunk),
                Some(Part::End) => self.ended = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer broke off")),
            }
        }
        Ok(self.left())
    }

    fn consume(&mut self, read: usize) {
        self.at += read;
    }
}

impl<B: AsRef<[u8]>> Read for Arriving<B> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(out)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_whole_or_an_error() {
        for ends in [true, false] {
            let (sender, mut body) = body::<&'static [u8]>();
            let parts: [&'static [u8]; 3] = [b"one", b"", b"two"];
            for part in parts {
                sender.try_send(Part::Chunk(part)).ok().unwrap();
            }
            if ends {
                sender.try_send(Part::End).ok().unwrap();
            }
            drop(sender);
            let mut text = String::new();
            assert_eq!(body.read_to_string(&mut text).is_ok(), ends);
            assert!(!ends || text == "onetwo");
        }
    }
}
