//! Collections of limited length: a damaged length is an error before memory is taken for it.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// For `#[serde(deserialize_with)]`: at most `MOST` elements.
pub(crate) fn vec<'de, D, T, const MOST: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(Few::<T, MOST>(PhantomData))
}

/// For `#[serde(serialize_with)]`: a map as a list of pairs.
pub(crate) fn pairs<S, K, V>(map: &HashMap<K, V>, serializer: S) -> Result<S::Ok, S::Error>
where
    S: Serializer,
    K: Serialize,
    V: Serialize,
{
    serializer.collect_seq(map)
}

/// For `#[serde(deserialize_with)]`: a map of at most `MOST` pairs. Of two with one key the last stays.
pub(crate) fn map<'de, D, K, V, const MOST: usize>(deserializer: D) -> Result<HashMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Eq + Hash,
    V: Deserialize<'de>,
{
    Ok(vec::<D, (K, V), MOST>(deserializer)?.into_iter().collect())
}

struct Few<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Few<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MOST} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let len = elements.size_hint().unwrap_or(0);
        if len > MOST {
            return Err(A::Error::invalid_length(len, &self));
        }
        // As long as what comes: what is read back takes no more memory than what was written.
        let mut all = Vec::with_capacity(len.min(1024));
        while let Some(element) = elements.next_element()? {
            if all.len() >= MOST {
                return Err(A::Error::invalid_length(all.len() + 1, &self));
            }
            all.push(element);
        }
        Ok(all)
    }
}
