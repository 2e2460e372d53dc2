//! Writes a MaxMind DB file: what of <https://maxmind.github.io/MaxMind-DB/> tests need.

use std::collections::HashMap;

/// A field, or a record.
#[derive(Clone, Debug)]
pub(crate) enum Field {
    /// A text of up to 284 bytes.
    Text(&'static str),
    /// A number.
    U32(u32),
    /// A short number.
    U16(u16),
    /// A long number.
    U64(u64),
    /// A boolean.
    Bool(bool),
    /// A number with a fraction.
    Double(f64),
    /// A list of fields.
    Array(Vec<Field>),
    /// Up to 28 fields with names.
    Map(Vec<(&'static str, Field)>),
}

/// A record of the search tree.
#[derive(Clone, Copy)]
enum Record {
    Empty,
    Node(usize),
    Data(usize),
}

/// Networks on their way into a file.
pub(crate) struct File {
    nodes: Vec<[Record; 2]>,
    data: Vec<u8>,
    /// Where texts of records are.
    known: HashMap<Vec<u8>, usize>,
    is_v6: bool,
    aliases: Vec<(u128, u8)>,
}

impl File {
    /// No networks; of IPv6, with IPv4 in `::/96`, or of IPv4 alone.
    pub(crate) fn new(is_v6: bool) -> Self {
        Self {
            nodes: vec![[Record::Empty; 2]],
            data: Vec::new(),
            known: HashMap::new(),
            is_v6,
            aliases: Vec::new(),
        }
    }

    /// Adds a network, `bits` bits of `address`, which begins on the left; longer ones after shorter ones.
    pub(crate) fn insert(&mut self, address: u128, bits: u8, record: &Field) {
        let mut bytes = Vec::new();
        encode(&mut bytes, record);
        let end = self.data.len();
        let at = *self.known.entry(bytes.clone()).or_insert(end);
        if at == end {
            self.data.extend(bytes);
        }
        self.set(address, bits, Record::Data(at));
    }

    /// Adds IPv4, `bits` bits of `address`.
    pub(crate) fn insert_v4(&mut self, address: [u8; 4], bits: u8, record: &Field) {
        let number = u128::from(u32::from_be_bytes(address));
        if self.is_v6 {
            self.insert(number, bits + 96, record)
        } else {
            self.insert(number << 96, bits, record)
        }
    }

    /// Shows IPv4 a second time, below a network, once all networks are in.
    pub(crate) fn alias(&mut self, address: u128, bits: u8) {
        self.aliases.push((address, bits));
    }

    fn set(&mut self, address: u128, bits: u8, record: Record) {
        let mut node = 0;
        for depth in 0..bits {
            let side = usize::from(address >> (127 - depth) & 1 == 1);
            if depth + 1 == bits {
                self.nodes[node][side] = record;
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

    /// The bytes of the file, with records of 24, 28 or 32 bits.
    pub(crate) fn bytes(mut self, record_bits: u8) -> Vec<u8> {
        let mut root = Some(0);
        for _ in 0..96 {
            root = root.and_then(|node: usize| match self.nodes[node][0] {
                Record::Node(next) => Some(next),
                _ => None,
            });
        }
        for (address, bits) in self.aliases.clone() {
            if let Some(root) = root {
                self.set(address, bits, Record::Node(root));
            }
        }
        let count = self.nodes.len();
        let number = |record: Record| match record {
            Record::Empty => count as u32,
            Record::Node(node) => node as u32,
            // 16 bytes of zeros are before the data.
            Record::Data(at) => (count + 16 + at) as u32,
        };
        let mut bytes = Vec::new();
        for [zero, one] in self.nodes.iter().map(|node| node.map(number)) {
            match record_bits {
                24 => [zero, one].iter().for_each(|record| bytes.extend(&record.to_be_bytes()[1..])),
                28 => {
                    bytes.extend(&zero.to_be_bytes()[1..]);
                    bytes.push((zero >> 24 << 4 | one >> 24) as u8);
                    bytes.extend(&one.to_be_bytes()[1..]);
                }
                _ => [zero, one].iter().for_each(|record| bytes.extend(record.to_be_bytes())),
            }
        }
        bytes.extend([0; 16]);
        bytes.extend(&self.data);
        bytes.extend(b"\xab\xcd\xefMaxMind.com");
        let metadata = Field::Map(vec![
            ("node_count", Field::U32(count as u32)),
            ("record_size", Field::U16(record_bits.into())),
            ("ip_version", Field::U16(if self.is_v6 { 6 } else { 4 })),
            ("binary_format_major_version", Field::U16(2)),
            ("binary_format_minor_version", Field::U16(0)),
            ("build_epoch", Field::U64(1_700_000_000)),
            ("database_type", Field::Text("test")),
            ("languages", Field::Array(vec![])),
            ("description", Field::Map(vec![])),
        ]);
        encode(&mut bytes, &metadata);
        bytes
    }
}

fn encode(bytes: &mut Vec<u8>, field: &Field) {
    match field {
        Field::Text(text) => {
            // From 29 on the length is in a second byte.
            bytes.push(2 << 5 | text.len().min(29) as u8);
            bytes.extend(text.len().checked_sub(29).map(|more| more as u8));
            bytes.extend(text.as_bytes());
        }
        Field::U32(number) => {
            bytes.push(6 << 5 | 4);
            bytes.extend(number.to_be_bytes());
        }
        Field::U16(number) => {
            bytes.push(5 << 5 | 2);
            bytes.extend(number.to_be_bytes());
        }
        Field::U64(number) => {
            bytes.extend([8, 9 - 7]);
            bytes.extend(number.to_be_bytes());
        }
        Field::Double(number) => {
            bytes.push(3 << 5 | 8);
            bytes.extend(number.to_be_bytes());
        }
        // Types from 8 on are extended: a second byte holds the type less 7.
        Field::Bool(is) => bytes.extend([u8::from(*is), 14 - 7]),
        Field::Array(fields) => {
            bytes.extend([fields.len() as u8, 11 - 7]);
            fields.iter().for_each(|field| encode(bytes, field));
        }
        Field::Map(fields) => {
            bytes.push(7 << 5 | fields.len() as u8);
            for (name, field) in fields {
                encode(bytes, &Field::Text(name));
                encode(bytes, field);
            }
        }
    }
}

/// A file with networks of both families and fields of several types.
pub(crate) fn example(record_bits: u8) -> Vec<u8> {
    let country = |code, eu, asn, name| {
        Field::Map(vec![
            (
                "country",
                Field::Map(vec![("iso_code", Field::Text(code)), ("is_in_european_union", Field::Bool(eu))]),
            ),
            ("autonomous_system_number", Field::U32(asn)),
            ("autonomous_system_organization", Field::Text(name)),
            ("location", Field::Map(vec![("latitude", Field::Double(52.5))])),
            ("subdivisions", Field::Array(vec![Field::Map(vec![("iso_code", Field::Text("BE"))])])),
        ])
    };
    let mut file = File::new(true);
    let (de, us) =
        (country("DE", true, 64496, "Example Hosting GmbH"), country("US", false, 64497, "Home Telecom"));
    file.insert_v4([192, 0, 2, 0], 24, &de);
    file.insert_v4([198, 51, 100, 0], 24, &us);
    file.insert_v4([203, 0, 113, 0], 25, &Field::Map(vec![]));
    file.insert(0x2001_0db8 << 96, 32, &us);
    file.insert(0x2001_0db8_0001 << 80, 48, &de);
    file.alias(0xffff << 32, 96);
    file.alias(0x2002 << 112, 16);
    file.bytes(record_bits)
}
