//! Redis over a Unix socket: one `MGET` of 12 keys per request.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::memcached::hex;
use super::server::Server;
use super::{Lookup, Vector, row_bytes};
use crate::workload::{DIMENSIONS, WIDTH, Workload, values};

/// Rows per `MSET`.
const BATCH: usize = 256;
/// Bytes of `$18\r\nd:0123456789abcdef\r\n`.
const KEY_BYTES: usize = 25;

/// A server of its own and a connection to it.
pub struct Redis {
    stream: UnixStream,
    command: Vec<u8>,
    answer: Vec<u8>,
    vector: Vector,
    bytes: u64,
    _server: Server,
}

impl Redis {
    /// Starts the server in `directory` and stores all rows; `None` where it is not installed.
    ///
    /// # Errors
    /// Where it cannot be started or does not take the rows.
    pub fn start(directory: &Path, workload: &Workload) -> anyhow::Result<Option<Self>> {
        let socket = directory.join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        command.arg("--dir").arg(directory);
        let Some((server, stream)) = Server::start(command, &socket)? else { return Ok(None) };
        let (command, answer) = (Vec::new(), vec![0; 64 << 10]);
        let mut peer = Self { stream, command, answer, vector: Vector::new(), bytes: 0, _server: server };
        for dimension in 0..DIMENSIONS {
            let keys: Vec<u64> = workload.dimension(dimension).collect();
            for batch in keys.chunks(BATCH) {
                peer.store(dimension, batch)?;
            }
        }
        peer.bytes = peer.used_memory()?;
        Ok(Some(peer))
    }

    fn store(&mut self, dimension: usize, keys: &[u64]) -> anyhow::Result<()> {
        let mut command = format!("*{}\r\n$4\r\nMSET\r\n", 1 + 2 * keys.len()).into_bytes();
        for key in keys {
            push_key(&mut command, dimension, *key);
            write!(command, "${}\r\n", 4 * WIDTH)?;
            command.extend_from_slice(&row_bytes(&values(*key, 0)));
            command.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&command)?;
        let len = self.stream.read(&mut self.answer)?;
        anyhow::ensure!(&self.answer[..len] == b"+OK\r\n", "Redis refused to store rows");
        Ok(())
    }

    fn used_memory(&mut self) -> anyhow::Result<u64> {
        self.stream.write_all(b"*2\r\n$4\r\nINFO\r\n$6\r\nmemory\r\n")?;
        let len = self.stream.read(&mut self.answer)?;
        let text = String::from_utf8_lossy(&self.answer[..len]);
        let number = text.lines().find_map(|line| line.strip_prefix("used_memory:"));
        number.and_then(|n| n.trim().parse().ok()).context("no used_memory")
    }

    #[inline]
    fn get(&mut self, keys: &[u64; DIMENSIONS]) -> anyhow::Result<()> {
        self.command.clear();
        self.command.extend_from_slice(b"*13\r\n$4\r\nMGET\r\n");
        for (dimension, key) in keys.iter().enumerate() {
            push_key(&mut self.command, dimension, *key);
        }
        self.stream.write_all(&self.command)?;
        let mut len = 0;
        while !self.parse(len)? {
            let more = self.stream.read(&mut self.answer[len..])?;
            anyhow::ensure!(more > 0, "Redis closed the connection");
            len += more;
        }
        Ok(())
    }

    /// Reads `len` bytes of answer; false where it is not there to its end.
    #[inline]
    fn parse(&mut self, len: usize) -> anyhow::Result<bool> {
        let answer = &self.answer[..len];
        self.vector.present = 0;
        let mut at = b"*12\r\n".len();
        if len < at {
            return Ok(false);
        }
        anyhow::ensure!(answer.starts_with(b"*12\r\n"), "not an answer of Redis");
        for dimension in 0..DIMENSIONS {
            let Some(rest) = answer.get(at..).filter(|rest| rest.len() >= 5) else { return Ok(false) };
            if rest.starts_with(b"$-1\r\n") {
                self.vector.set(dimension, None);
                at += 5;
                continue;
            }
            anyhow::ensure!(rest.starts_with(b"$64\r\n"), "not a row");
            let Some(row) = rest.get(5..5 + 4 * WIDTH + 2) else { return Ok(false) };
            self.vector.set_bytes(dimension, row.get(..4 * WIDTH));
            at += 5 + 4 * WIDTH + 2;
        }
        Ok(true)
    }
}

#[inline]
fn push_key(command: &mut Vec<u8>, dimension: usize, key: u64) {
    let mut text: [u8; KEY_BYTES] = *b"$18\r\n0:0000000000000000\r\n";
    text[5] = hex(dimension as u64);
    (0..16).for_each(|i| text[7 + i] = hex(key >> (60 - 4 * i)));
    command.extend_from_slice(&text);
}

impl Lookup for Redis {
    fn look_up(&mut self, keys: &[u64; DIMENSIONS]) -> bool {
        self.get(keys).is_ok()
    }

    fn values(&self) -> &[f32] {
        &self.vector.values
    }

    fn present(&self) -> u16 {
        self.vector.present
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}
