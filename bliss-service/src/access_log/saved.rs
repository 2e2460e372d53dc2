//! What a checkpoint of an access log needs in several places.

/// No time is later, so that nothing that is added to one overflows.
pub(crate) const MOST_MS: u64 = 1 << 56;

/// For `#[serde(with)]`: an engine and its version.
pub(crate) mod browser {
    use bliss_core::http::Engine;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::{Serialize, Serializer};

    type Browser = Option<(Engine, u32)>;

    const ENGINES: [Engine; Engine::COUNT] = [Engine::Chromium, Engine::Firefox, Engine::Safari];

    pub(crate) fn serialize<S: Serializer>(browser: &Browser, serializer: S) -> Result<S::Ok, S::Error> {
        let at = |engine| ENGINES.iter().position(|known| *known == engine).unwrap_or(0) as u8;
        browser.map(|(engine, version)| (at(engine), version)).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Browser, D::Error> {
        let Some((at, version)) = Option::<(u8, u32)>::deserialize(deserializer)? else { return Ok(None) };
        let engine = ENGINES.get(usize::from(at)).ok_or_else(|| D::Error::custom("an unknown engine"))?;
        Ok(Some((*engine, version)))
    }
}
