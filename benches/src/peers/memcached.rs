//! memcached over a Unix socket: one `get` of 12 keys per request.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::server::Server;
use super::{Lookup, Vector, row_bytes};
use crate::workload::{DIMENSIONS, WIDTH, Workload, values};

/// Rows that are stored before an answer is waited for.
const BATCH: usize = 1024;

/// A server of its own and a connection to it.
pub struct Memcached {
    stream: UnixStream,
    command: Vec<u8>,
    answer: Vec<u8>,
    vector: Vector,
    bytes: u64,
    _server: Server,
}

impl Memcached {
    /// Starts the server in `directory` and stores all rows; `None` where it is not installed.
    ///
    /// # Errors
    /// Where it cannot be started or does not take the rows.
    pub fn start(directory: &Path, workload: &Workload) -> anyhow::Result<Option<Self>> {
        let socket = directory.join("memcached.sock");
        // About 190 bytes per row with what memcached adds, and room.
        let megabytes = 64 + workload.keys() * 256 / (1 << 20);
        let mut command = Command::new("memcached");
        command.args(["-u", "root", "-t", "1", "-I", "1m", "-m", &megabytes.to_string(), "-s"]).arg(&socket);
        let Some((server, stream)) = Server::start(command, &socket)? else { return Ok(None) };
        let mut peer = Self {
            stream,
            command: Vec::new(),
            answer: vec![0; 64 << 10],
            vector: Vector::new(),
            bytes: 0,
            _server: server,
        };
        for dimension in 0..DIMENSIONS {
            let keys: Vec<u64> = workload.dimension(dimension).collect();
            for batch in keys.chunks(BATCH) {
                peer.store(dimension, batch)?;
            }
        }
        peer.bytes = peer.stat("bytes")?;
        anyhow::ensure!(peer.stat("evictions")? == 0, "memcached dropped rows for want of memory");
        Ok(Some(peer))
    }

    fn store(&mut self, dimension: usize, keys: &[u64]) -> anyhow::Result<()> {
        let mut commands = Vec::with_capacity(keys.len() * 112);
        for key in keys {
            write!(commands, "set {dimension:x}:{key:016x} 0 0 {} noreply\r\n", 4 * WIDTH)?;
            commands.extend_from_slice(&row_bytes(&values(*key, 0)));
            commands.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&commands)?;
        Ok(())
    }

    fn stat(&mut self, name: &str) -> anyhow::Result<u64> {
        self.stream.write_all(b"stats\r\n")?;
        let len = self.read_until(b"END\r\n")?;
        let text = String::from_utf8_lossy(&self.answer[..len]);
        let line =
            text.lines().find_map(|line| line.strip_prefix("STAT ")?.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.trim().parse().ok()).with_context(|| format!("no statistic {name}"))
    }

    /// Reads an answer that ends so; returns its length.
    #[inline]
    fn read_until(&mut self, end: &[u8]) -> anyhow::Result<usize> {
        let mut len = 0;
        loop {
            let more = self.stream.read(&mut self.answer[len..])?;
            anyhow::ensure!(more > 0, "memcached closed the connection");
            len += more;
            if self.answer[..len].ends_with(end) {
                return Ok(len);
            }
        }
    }

    #[inline]
    fn get(&mut self, keys: &[u64; DIMENSIONS]) -> anyhow::Result<()> {
        self.command.clear();
        self.command.extend_from_slice(b"get");
        for (dimension, key) in keys.iter().enumerate() {
            let mut text = *b" 0:0000000000000000";
            text[1] = hex(dimension as u64);
            (0..16).for_each(|i| text[3 + i] = hex(key >> (60 - 4 * i)));
            self.command.extend_from_slice(&text);
        }
        self.command.extend_from_slice(b"\r\n");
        self.stream.write_all(&self.command)?;
        let len = self.read_until(b"END\r\n")?;
        self.vector.present = 0;
        self.vector.values.fill(0.0);
        let mut rest = &self.answer[..len];
        while let Some(value) = rest.strip_prefix(b"VALUE ") {
            let dimension =
                usize::from(value.first().and_then(|c| (*c as char).to_digit(16)).context("key")? as u8);
            let start = value.iter().position(|c| *c == b'\n').context("line")? + 1;
            self.vector.set_bytes(dimension, Some(value.get(start..start + 4 * WIDTH).context("value")?));
            rest = value.get(start + 4 * WIDTH + 2..).context("end of value")?;
        }
        anyhow::ensure!(rest == b"END\r\n", "not an answer of memcached");
        Ok(())
    }
}

#[inline]
pub(super) fn hex(digit: u64) -> u8 {
    b"0123456789abcdef"[(digit & 15) as usize]
}

impl Lookup for Memcached {
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
