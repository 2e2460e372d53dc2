//! The body of an answer, handed to a thread that decodes it while it arrives: none of it is kept.

use std::io::{self, BufRead, Read};

use hyper::body::Bytes;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Chunks that may wait for the decoder.
const WAITING: usize = 4;

/// Takes chunks. Dropped without [`Self::end`], the body has broken off.
pub(super) struct Chunks(Sender<Option<Bytes>>);

/// Gives them as one input, in another thread.
pub(super) struct Body {
    chunks: Receiver<Option<Bytes>>,
    current: Bytes,
    at_end: bool,
}

pub(super) fn channel() -> (Chunks, Body) {
    let (sender, chunks) = mpsc::channel(WAITING);
    (Chunks(sender), Body { chunks, current: Bytes::new(), at_end: false })
}

impl Chunks {
    /// False if nobody reads any more.
    pub(super) async fn send(&self, chunk: Bytes) -> bool {
        self.0.send(Some(chunk)).await.is_ok()
    }

    pub(super) async fn end(self) {
        // Nobody may read any more.
        let _ = self.0.send(None).await;
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() && !self.at_end {
            match self.chunks.blocking_recv() {
                Some(Some(chunk)) => self.current = chunk,
                Some(None) => self.at_end = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer broke off")),
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, read: usize) {
        let _ = self.current.split_to(read.min(self.current.len()));
    }
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let read = available.len().min(out.len());
        if let (Some(out), Some(available)) = (out.get_mut(..read), available.get(..read)) {
            out.copy_from_slice(available);
        }
        self.consume(read);
        Ok(read)
    }
}
