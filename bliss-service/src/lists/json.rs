//! Ranges as operators of crawlers and clouds publish them, in JSON.
//!
//! `{"prefixes": [{"ipv4Prefix": "192.0.2.0/24"}, {"ipv6Prefix": "2001:db8::/32"}]}`, as Google, Bing, OpenAI and Apple have it;
//! `ip_prefix` and `ipv6_prefix`, the latter in `ipv6_prefixes`, as Amazon has it; or arrays of texts: the document itself, or the
//! members that the operator names, as GitHub's `hooks`.

use std::borrow::Cow;
use std::fmt;
use std::io::BufRead;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::HostBits;
use super::layer::LayerBuilder;
use super::text::push;
use crate::refusal::{Reason, Refusal};

/// Members that hold networks where the operator names none.
const MEMBERS: [&str; 2] = ["prefixes", "ipv6_prefixes"];
/// What an entry calls its network.
const NETWORKS: [&str; 4] = ["ipv4Prefix", "ipv6Prefix", "ip_prefix", "ipv6_prefix"];

/// Reads a document; `members` are those of it that hold networks, the usual ones if empty.
pub(super) fn read(
    input: impl BufRead,
    row: u32,
    members: &[String],
    host_bits: HostBits,
    builder: &mut LayerBuilder<'_>,
) -> Result<(), Refusal> {
    let mut sink = Sink { row, members, host_bits, builder, refusal: None, entries: 0, found: Vec::new() };
    let mut json = serde_json::Deserializer::from_reader(input);
    let read = Document(&mut sink).deserialize(&mut json).and_then(|()| json.end());
    if let Some(refusal) = sink.refusal {
        return Err(refusal);
    }
    read.map_err(|error| match error.io_error_kind() {
        Some(_) => crate::decode::unreadable(&std::io::Error::from(error)),
        None => Refusal::new(Reason::Undecodable, format!("not JSON with ranges: {error}")),
    })?;
    let missing = members.iter().find(|member| !sink.found.contains(member));
    match missing {
        Some(member) => Err(Refusal::new(Reason::Undecodable, format!("there is no member {member:?}"))),
        None => Ok(()),
    }
}

/// Where networks go.
struct Sink<'s, 'b, 'r> {
    row: u32,
    members: &'s [String],
    host_bits: HostBits,
    builder: &'b mut LayerBuilder<'r>,
    /// Why it ended.
    refusal: Option<Refusal>,
    entries: u64,
    /// Members that were there.
    found: Vec<&'s String>,
}

impl Sink<'_, '_, '_> {
    fn push<E: de::Error>(&mut self, text: &str) -> Result<(), E> {
        self.entries += 1;
        push(text.as_bytes(), self.row, self.host_bits, self.builder).map_err(|refusal| {
            let message = format!("entry {}: {}", self.entries, refusal.message);
            self.refusal = Some(Refusal { message, ..refusal });
            E::custom("refused")
        })
    }
}

struct Document<'a, 's, 'b, 'r>(&'a mut Sink<'s, 'b, 'r>);
struct Entries<'a, 's, 'b, 'r>(&'a mut Sink<'s, 'b, 'r>);
struct Entry<'a, 's, 'b, 'r>(&'a mut Sink<'s, 'b, 'r>);

impl<'de> DeserializeSeed<'de> for Document<'_, '_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `prefixes`, or an array of networks")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, entries: A) -> Result<(), A::Error> {
        Entries(self.0).visit_seq(entries)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let members = self.0.members;
        let mut any = false;
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            let named = members.iter().find(|member| *member == &name);
            if named.is_some() || members.is_empty() && MEMBERS.contains(&&*name) {
                any = true;
                self.0.found.extend(named);
                map.next_value_seed(Entries(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if !any && members.is_empty() {
            let message =
                "expected a member `prefixes`; where networks are elsewhere, name the members of the list";
            return Err(de::Error::custom(message));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Entries<'_, '_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_, '_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of networks")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while entries.next_element_seed(Entry(self.0))?.is_some() {}
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Entry<'_, '_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entry<'_, '_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a network, or an object with `ipv4Prefix` or `ipv6Prefix`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.0.push(text)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut any = false;
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            if NETWORKS.contains(&&*name) {
                any = true;
                self.0.push(&map.next_value::<Cow<'_, str>>()?)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        // A format that changed must not pass as a list that shrank.
        if any { Ok(()) } else { Err(de::Error::custom("an entry without `ipv4Prefix` and `ipv6Prefix`")) }
    }
}
