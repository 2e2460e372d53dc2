//! Writes a MaxMind DB file: the least of <https://maxmind.github.io/MaxMind-DB/> that a reader needs, with a number for each
//! network.

/// A record of the search tree.
#[derive(Clone, Copy, PartialEq)]
enum Record {
    Empty,
    Node(usize),
    Value(u32),
}

/// Networks on their way into a file; IPv4 lies below `::/96`.
#[derive(Debug)]
pub struct Writer {
    nodes: Vec<[Record; 2]>,
    values: u32,
}

impl core::fmt::Debug for Record {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => f.write_str("-"),
            Self::Node(node) => write!(f, "node {node}"),
            Self::Value(value) => write!(f, "value {value}"),
        }
    }
}

impl Writer {
    /// No networks, and values below `values`.
    pub fn new(values: u32) -> Self {
        Self { nodes: vec![[Record::Empty; 2]], values }
    }

    /// Adds a network, after all shorter ones: the first `bits` bits of an IPv6 address.
    ///
    /// # Panics
    /// Where a longer network is there already.
    pub fn insert(&mut self, address: u128, bits: u8, value: u32) {
        let mut node = 0;
        for depth in 0..bits {
            let side = usize::from(address >> (127 - depth) & 1 == 1);
            if depth + 1 == bits {
                assert!(!matches!(self.nodes[node][side], Record::Node(_)), "shorter networks come first");
                self.nodes[node][side] = Record::Value(value);
                return;
            }
            node = match self.nodes[node][side] {
                Record::Node(next) => next,
                held => {
                    self.nodes.push([held; 2]);
                    let next = self.nodes.len() - 1;
                    self.nodes[node][side] = Record::Node(next);
                    next
                }
            };
        }
    }

    /// The bytes of the file.
    ///
    /// # Panics
    /// Where there are more than 2^32 nodes and bytes of values.
    pub fn finish(self) -> Vec<u8> {
        let count = u32::try_from(self.nodes.len()).expect("nodes fit 32 bits");
        let mut bytes = Vec::with_capacity(self.nodes.len() * 8);
        for record in self.nodes.iter().flatten() {
            let number = match record {
                Record::Empty => count,
                Record::Node(node) => *node as u32,
                // A value takes five bytes, and 16 of zeros are before the first.
                Record::Value(value) => count + 16 + value * 5,
            };
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend([0; 16]);
        for value in 0..self.values {
            unsigned(&mut bytes, Unsigned::U32, value.into());
        }
        bytes.extend(b"\xab\xcd\xefMaxMind.com");
        metadata(&mut bytes, count);
        bytes
    }
}

/// Sizes of numbers that a file knows.
enum Unsigned {
    U16,
    U32,
    U64,
}

fn unsigned(bytes: &mut Vec<u8>, kind: Unsigned, number: u64) {
    match kind {
        Unsigned::U16 => {
            bytes.push(5 << 5 | 2);
            bytes.extend((number as u16).to_be_bytes());
        }
        Unsigned::U32 => {
            bytes.push(6 << 5 | 4);
            bytes.extend((number as u32).to_be_bytes());
        }
        Unsigned::U64 => {
            // Types from 8 on are extended: a second byte holds the type less 7.
            bytes.extend([8, 9 - 7]);
            bytes.extend(number.to_be_bytes());
        }
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(2 << 5 | text.len() as u8);
    bytes.extend(text.as_bytes());
}

fn metadata(bytes: &mut Vec<u8>, nodes: u32) {
    const EMPTY_MAP: u8 = 7 << 5;
    const EMPTY_ARRAY: [u8; 2] = [0, 11 - 7];
    bytes.push(EMPTY_MAP | 9);
    let numbers = [
        ("node_count", Unsigned::U32, u64::from(nodes)),
        ("record_size", Unsigned::U16, 32),
        ("ip_version", Unsigned::U16, 6),
        ("binary_format_major_version", Unsigned::U16, 2),
        ("binary_format_minor_version", Unsigned::U16, 0),
        ("build_epoch", Unsigned::U64, 1_700_000_000),
    ];
    for (name, kind, number) in numbers {
        text(bytes, name);
        unsigned(bytes, kind, number);
    }
    text(bytes, "database_type");
    text(bytes, "numbers");
    text(bytes, "languages");
    bytes.extend(EMPTY_ARRAY);
    text(bytes, "description");
    bytes.push(EMPTY_MAP);
}
