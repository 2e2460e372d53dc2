//! Decompression of gzip.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// The content of all members of a gzip stream, one after the other, as RFC 1952 and `gzip -d` have it. Zeros after a member
/// are padding. Anything else there is an error, so that nothing is lost in silence.
///
/// The decoders of HTTP clients stop, depending on how the answer was cut into chunks, after the first member.
pub(crate) struct Gzip<R> {
    at: At<R>,
    /// Members that were read to their end.
    members: u64,
}

enum At<R> {
    Between(R),
    Member(GzDecoder<R>),
    End,
}

impl<R: BufRead> Gzip<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { at: At::Between(input), members: 0 }
    }

    fn skip_padding(&self, input: &mut R) -> io::Result<bool> {
        loop {
            let available = input.fill_buf()?;
            if available.is_empty() {
                return Ok(false);
            }
            // Before the first member there is none.
            let zeros = available.iter().take_while(|byte| **byte == 0 && self.members > 0).count();
            let is_all = zeros == available.len();
            input.consume(zeros);
            if !is_all {
                return Ok(true);
            }
        }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.at, At::End) {
                At::End => return Ok(0),
                At::Between(mut input) => {
                    if self.skip_padding(&mut input)? {
                        self.at = At::Member(GzDecoder::new(input));
                    } else if self.members == 0 {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "gzip: it is empty"));
                    }
                }
                At::Member(mut member) => match member.read(out) {
                    Ok(0) => {
                        self.members += 1;
                        self.at = At::Between(member.into_inner());
                    }
                    Ok(read) => {
                        self.at = At::Member(member);
                        return Ok(read);
                    }
                    Err(error) => {
                        let message = format!("gzip: member {} is broken: {error}", self.members + 1);
                        return Err(io::Error::new(error.kind(), message));
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::{BufReader, Write as _};

    fn member(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * at / 7) as u8).collect()
    }

    /// Read in chunks of `chunk` bytes.
    fn unpacked(bytes: &[u8], chunk: usize) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Gzip::new(BufReader::with_capacity(chunk, bytes)).read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_member_counts_whatever_the_chunks_and_padding() {
        for sizes in [&[0][..], &[5], &[5, 7], &[0, 300, 0], &[1000, 1, 5000], &[3, 3, 3, 3]] {
            for padding in [0, 1, 7, 512] {
                let mut packed = Vec::new();
                let mut expected = Vec::new();
                for size in sizes {
                    packed.extend(member(&content(*size)));
                    expected.extend(content(*size));
                }
                packed.extend(vec![0; padding]);
                for chunk in (1..40).chain([64, 127, 1 << 20]) {
                    let found = unpacked(&packed, chunk);
                    assert_eq!(found.unwrap(), expected, "{sizes:?}, {padding} zeros, chunks of {chunk}");
                }
            }
        }
    }

    #[test]
    fn what_is_broken_anywhere_is_an_error_whatever_the_chunks() {
        let (first, second) = (member(&content(300)), member(&content(200)));
        let whole = [first.clone(), second.clone()].concat();
        let expected = [content(300), content(200)].concat();
        for chunk in [1, 2, 3, 7, 20, first.len() - 1, first.len(), first.len() + 1, 1 << 20] {
            for end in 0..whole.len() {
                // Cut off between members, it is a whole stream.
                let is_whole = end == first.len();
                assert_eq!(
                    unpacked(&whole[..end], chunk).is_ok(),
                    is_whole,
                    "cut at {end}, chunks of {chunk}"
                );
            }
            // The first ten bytes of a member hold a time and a system, which nothing checks.
            for at in (10..first.len()).chain(first.len() + 10..whole.len()) {
                let mut broken = whole.clone();
                broken[at] ^= 0x10;
                // Some bits mean nothing.
                let found = unpacked(&broken, chunk).ok();
                assert!(found.is_none_or(|found| found == expected), "byte {at}, chunks of {chunk}");
            }
            for after in [&b"x"[..], b"\0\0x", b"\x1f", b"\0\x1f\x8b", b"{}\n"] {
                let error = unpacked(&[&whole[..], after].concat(), chunk).unwrap_err();
                assert!(error.to_string().contains("member 3"), "{error}");
            }
        }
    }
}
