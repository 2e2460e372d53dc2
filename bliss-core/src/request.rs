//! What a caller says about a request: attributes by id, and numbers and categories of its own.
//!
//! A caller [registers](Names) the names it will use once, when it starts, and gets small ids; per request it fills
//! in values by id. Which dimensions use which attribute, and which models use which input, is bound by
//! [`crate::scorer`] when features or models are first seen.

use crate::attribute::Value;
use crate::http::HttpRequest;
use crate::schema::MAX_NAME_BYTES;

/// The most attributes that a caller may register.
pub const MAX_ATTRIBUTES: usize = 64;
/// The most numbers and categories together that a caller may register.
pub const MAX_INPUTS: usize = 64;
/// What the names of a request's own inputs begin with in a model: `request.header_count`.
pub const INPUT_PREFIX: &str = "request.";

/// Id of a registered attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributeId(u8);

/// Id of a registered number or category.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputId(u8);

impl AttributeId {
    /// As a small number, for callers in other languages.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl InputId {
    /// As a small number, for callers in other languages.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Why a name is not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty, too long, or no UTF-8.
    #[error("a name has 1 to {MAX_NAME_BYTES} bytes of UTF-8")]
    Name,
    /// There are as many as there may be.
    #[error("no room for another name: at most {limit} can be registered")]
    TooMany {
        /// How many there may be.
        limit: usize,
    },
    /// It is registered as a number and asked for as a category, or the other way round.
    #[error("this input is registered with the other type; numbers and categories are not the same")]
    Type,
}

/// Names registered by one caller.
#[derive(Debug, Default)]
pub struct Names {
    attributes: Vec<String>,
    inputs: Vec<(String, bool)>,
    /// Whether requests are handed over whole.
    has_http: bool,
}

/// What [`Names::http`] registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpId {
    attributes: [AttributeId; HTTP_ATTRIBUTES.len()],
}

/// The attributes that a request that is handed over whole sets.
pub const HTTP_ATTRIBUTES: [&str; 9] =
    ["ip", "user_agent", "browser", "crawler", "host", "path", "method", "scheme", "referrer"];

impl Names {
    /// The id of attribute `name`; the same for the same name.
    ///
    /// # Errors
    /// Where the name is wrong or [`MAX_ATTRIBUTES`] are registered.
    pub fn attribute(&mut self, name: &str) -> Result<AttributeId, NameError> {
        check(name)?;
        let known = self.attributes.iter().position(|n| n == name);
        if known.is_none() {
            if self.attributes.len() >= MAX_ATTRIBUTES {
                return Err(NameError::TooMany { limit: MAX_ATTRIBUTES });
            }
            self.attributes.push(name.into());
        }
        let index = known.unwrap_or(self.attributes.len() - 1);
        u8::try_from(index).map(AttributeId).map_err(|_| NameError::TooMany { limit: MAX_ATTRIBUTES })
    }

    /// Registers [`HTTP_ATTRIBUTES`], and that models may take what a whole request says by itself
    /// ([`crate::http::RequestValue`], as `request.NAME`): for callers that use [`Request::set_http`].
    ///
    /// A number, category or attribute registered under the name of such a value takes its place.
    ///
    /// # Errors
    /// There is no room for those attributes among [`MAX_ATTRIBUTES`].
    pub fn http(&mut self) -> Result<HttpId, NameError> {
        let missing = HTTP_ATTRIBUTES.iter().filter(|name| self.attribute_index(name).is_none()).count();
        if self.attributes.len() + missing > MAX_ATTRIBUTES {
            return Err(NameError::TooMany { limit: MAX_ATTRIBUTES });
        }
        let mut attributes = [AttributeId(0); HTTP_ATTRIBUTES.len()];
        for (id, name) in attributes.iter_mut().zip(HTTP_ATTRIBUTES) {
            *id = self.attribute(name)?;
        }
        self.has_http = true;
        Ok(HttpId { attributes })
    }

    /// Whether requests are handed over whole.
    pub(crate) fn has_http(&self) -> bool {
        self.has_http
    }

    /// The id of the number that models call `request.NAME`; `name` is without the prefix, or with it.
    ///
    /// # Errors
    /// Where the name is wrong, is a category, or [`MAX_INPUTS`] are registered.
    pub fn number(&mut self, name: &str) -> Result<InputId, NameError> {
        self.input(name, false)
    }

    /// The id of the category that models call `request.NAME`; `name` is without the prefix, or with it.
    ///
    /// # Errors
    /// Where the name is wrong, is a number, or [`MAX_INPUTS`] are registered.
    pub fn category(&mut self, name: &str) -> Result<InputId, NameError> {
        self.input(name, true)
    }

    fn input(&mut self, name: &str, is_category: bool) -> Result<InputId, NameError> {
        let name = name.strip_prefix(INPUT_PREFIX).unwrap_or(name);
        check(name)?;
        let known = self.inputs.iter().position(|(n, _)| n == name);
        match known.and_then(|i| self.inputs.get(i)) {
            Some((_, category)) if *category != is_category => return Err(NameError::Type),
            Some(_) => {}
            None if self.inputs.len() >= MAX_INPUTS => return Err(NameError::TooMany { limit: MAX_INPUTS }),
            None => self.inputs.push((name.into(), is_category)),
        }
        let index = known.unwrap_or(self.inputs.len() - 1);
        u8::try_from(index).map(InputId).map_err(|_| NameError::TooMany { limit: MAX_INPUTS })
    }

    /// The index of a registered attribute.
    pub(crate) fn attribute_index(&self, name: &str) -> Option<usize> {
        self.attributes.iter().position(|n| n == name)
    }

    /// The registered attributes, by index.
    pub(crate) fn attributes(&self) -> &[String] {
        &self.attributes
    }

    /// The index of a registered input, given without its prefix, and whether it is a category.
    pub(crate) fn input_index(&self, name: &str) -> Option<(usize, bool)> {
        let index = self.inputs.iter().position(|(n, _)| n == name)?;
        Some((index, self.inputs.get(index)?.1))
    }

    /// A registered input by its index, without its prefix, and whether it is a category.
    pub(crate) fn input_at(&self, index: usize) -> Option<(&str, bool)> {
        self.inputs.get(index).map(|(name, is_category)| (name.as_str(), *is_category))
    }

    /// Which of the registered inputs are categories, as a mask by index.
    pub(crate) fn categories(&self) -> u64 {
        self.inputs.iter().rev().fold(0, |mask, (_, category)| mask << 1 | u64::from(*category))
    }

    /// Number of registered names: it grows with each new one.
    pub fn registered(&self) -> usize {
        self.attributes.len() + self.inputs.len() + usize::from(self.has_http)
    }

    /// Number of registered inputs.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs.len()
    }
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES { Err(NameError::Name) } else { Ok(()) }
}

/// The values of one request. Reuse one: [`Self::clear`] costs nothing.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    attributes: [Value<'a>; MAX_ATTRIBUTES],
    attributes_set: u64,
    inputs: [f32; MAX_INPUTS],
    inputs_set: u64,
    http: Option<HttpRequest<'a>>,
}

const _: () = assert!(MAX_ATTRIBUTES <= 64 && MAX_INPUTS <= 64, "the masks have 64 bits");

impl Default for Request<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Request<'a> {
    /// A request of which nothing is known.
    pub fn new() -> Self {
        Self {
            attributes: [Value::U64(0); MAX_ATTRIBUTES],
            attributes_set: 0,
            inputs: [0.0; MAX_INPUTS],
            inputs_set: 0,
            http: None,
        }
    }

    /// Forgets all values.
    #[inline]
    pub fn clear(&mut self) {
        self.attributes_set = 0;
        self.inputs_set = 0;
        self.http = None;
    }

    /// Sets the value of an attribute; without one, dimensions keyed by it answer `absent`.
    #[inline]
    pub fn set_attribute(&mut self, id: AttributeId, value: Value<'a>) {
        if let Some(slot) = self.attributes.get_mut(id.index()) {
            *slot = value;
            self.attributes_set |= 1 << id.0;
        }
    }

    /// Hands a whole request over: sets the attributes that `id` stands for, those that are not told to absent, and the values
    /// that models take of the request itself.
    #[inline]
    pub fn set_http(&mut self, id: &HttpId, http: HttpRequest<'a>) {
        let text = |told: Option<&'a [u8]>| told.map(Value::Text);
        let values = [
            http.ip,
            text(http.user_agent),
            text(http.user_agent),
            text(http.user_agent),
            text(http.host),
            text(http.target),
            text(http.method),
            text(http.scheme),
            text(http.referrer),
        ];
        for (id, value) in id.attributes.into_iter().zip(values) {
            match value {
                Some(value) => self.set_attribute(id, value),
                None => self.attributes_set &= !(1 << id.0),
            }
        }
        self.http = Some(http);
    }

    /// The whole request, if it was handed over.
    #[inline]
    pub fn http(&self) -> Option<&HttpRequest<'a>> {
        self.http.as_ref()
    }

    /// Sets the value of a number; without one, models see NaN.
    #[inline]
    pub fn set_number(&mut self, id: InputId, value: f32) {
        if let Some(slot) = self.inputs.get_mut(id.index()) {
            *slot = value;
            self.inputs_set |= 1 << id.0;
        }
    }

    /// Sets the value of a category; without one, models see the empty string.
    #[inline]
    pub fn set_category(&mut self, id: InputId, value: &[u8]) {
        self.set_number(id, f32::from_bits(bliss_catboost::category_hash(value)));
    }

    /// The attribute at `index`, if it was set.
    #[inline]
    pub(crate) fn attribute(&self, index: usize) -> Option<Value<'a>> {
        let set = self.attributes_set.checked_shr(u32::try_from(index).ok()?)? & 1 == 1;
        if set { self.attributes.get(index).copied() } else { None }
    }

    /// Copies the inputs to `out`, those not set as `absent` gives them.
    #[inline]
    pub(crate) fn copy_inputs(&self, out: &mut [f32], absent: impl Fn(usize) -> f32) {
        for (i, (to, from)) in out.iter_mut().zip(&self.inputs).enumerate() {
            *to = if self.inputs_set >> i & 1 == 1 { *from } else { absent(i) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_and_bounded() {
        let mut names = Names::default();
        let ip = names.attribute("ip").unwrap();
        assert_ne!(names.attribute("host").unwrap(), ip);
        assert_eq!(names.attribute("ip").unwrap(), ip);
        assert_eq!(names.attribute(""), Err(NameError::Name));
        assert_eq!(names.number("a").unwrap(), names.number("request.a").unwrap());
        assert_eq!(names.category("a"), Err(NameError::Type));
        for i in 2..MAX_ATTRIBUTES {
            names.attribute(&format!("x{i}")).unwrap();
        }
        assert_eq!(names.attribute("one more"), Err(NameError::TooMany { limit: MAX_ATTRIBUTES }));
        assert_eq!(names.attribute("x63").unwrap().index(), 63);
        let c = names.category("c").unwrap();
        assert_eq!(names.categories(), 1 << c.index());
    }

    #[test]
    fn values_are_forgotten_when_cleared() {
        let mut names = Names::default();
        let (id, n) = (names.attribute("host").unwrap(), names.number("n").unwrap());
        let mut request = Request::new();
        assert_eq!(request.attribute(id.index()), None);
        request.set_attribute(id, "example.org".into());
        request.set_number(n, 3.0);
        assert_eq!(request.attribute(id.index()), Some("example.org".into()));
        let mut out = [0.0; 2];
        request.copy_inputs(&mut out, |_| -1.0);
        assert_eq!(out, [3.0, -1.0]);
        request.clear();
        assert_eq!(request.attribute(id.index()), None);
        request.copy_inputs(&mut out, |_| -1.0);
        assert_eq!(out, [-1.0, -1.0]);
    }
}
