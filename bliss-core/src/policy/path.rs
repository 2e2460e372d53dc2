//! Paths as policies compare them: as nginx's `$uri` has them.

/// The longest path that is compared, in bytes; of a longer one no condition holds.
pub const MAX_PATH_BYTES: usize = 4096;

/// Percent escapes decoded once, slashes merged, dot segments resolved, and what follows `#` left out, as nginx does it with
/// `merge_slashes on`: an escaped slash or dot is a slash or dot, an escaped `%`, `?` or `#` stands for itself.
///
/// `raw` is a path as [`crate::http::path`] gives it. One that needs no change is returned as it is; another one is written to
/// `buffer`, and is not known where that is too short. Not known either, since nginx answers 400: a path that does not begin with
/// a slash or leads above the root, a wrong escape, and a NUL or another control character, escaped or not. (A control
/// character other than NUL that is escaped nginx lets through; here it is known as little.)
pub fn normalize<'a>(raw: &'a [u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    if raw.first() != Some(&b'/') {
        return None;
    }
    if is_plain(raw) { (raw.len() <= buffer.len()).then_some(raw) } else { rewrite(raw, buffer) }
}

/// Whether there is nothing to change. Two passes without a branch, which a compiler makes vectors of.
#[inline]
fn is_plain(raw: &[u8]) -> bool {
    let is_odd = |byte: u8| (byte == b'%') | (byte == b'#') | (byte < b' ') | (byte == 0x7f);
    let has_odd = raw.iter().fold(false, |odd, byte| odd | is_odd(*byte));
    // After a slash only what may belong to a dot segment, or is another slash.
    let pairs = raw.iter().zip(raw.get(1..).unwrap_or_default());
    let has_dots = pairs
        .fold(false, |odd, (before, byte)| odd | ((*before == b'/') & ((*byte == b'/') | (*byte == b'.'))));
    !has_odd & !has_dots
}

#[cold]
fn rewrite<'a>(raw: &[u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut written = 0;
    let mut rest = raw;
    loop {
        let byte = match *rest {
            [] | [b'#', ..] => break,
            [b'%', high, low, ref after @ ..] => {
                rest = after;
                hex(high)? << 4 | hex(low)?
            }
            [b'%', ..] => return None,
            [byte, ref after @ ..] => {
                rest = after;
                byte
            }
        };
        if byte < b' ' || byte == 0x7f {
            return None;
        }
        if byte == b'/' {
            written = end_segment(buffer.get(..written)?)?;
            if written > 0 && buffer.get(written - 1) == Some(&b'/') {
                continue;
            }
        }
        *buffer.get_mut(written)? = byte;
        written += 1;
    }
    // `/a/..` is `/`, as `/a/../` is.
    let len = end_segment(buffer.get(..written)?)?;
    buffer.get(..len)
}

/// How much of what is written remains once its last segment is over: a dot segment takes itself or its parent away, and leaves the
/// slash before it. `None` where that leads above the root.
fn end_segment(written: &[u8]) -> Option<usize> {
    let slash = |of: &[u8]| of.iter().rposition(|byte| *byte == b'/');
    let Some(last) = slash(written) else { return Some(written.len()) };
    match written.get(last + 1..) {
        Some(b".") => Some(last + 1),
        Some(b"..") => slash(written.get(..last)?).map(|parent| parent + 1),
        _ => Some(written.len()),
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(raw: &[u8]) -> Option<Vec<u8>> {
        normalize(raw, &mut [0; MAX_PATH_BYTES]).map(<[u8]>::to_vec)
    }

    #[test]
    fn paths_are_compared_as_nginx_has_them() {
        for (raw, expected) in [
            ("/", Some("/")),
            ("/a/b.c", Some("/a/b.c")),
            ("/.well-known/acme-challenge/x", Some("/.well-known/acme-challenge/x")),
            ("/.well-known/acme-challenge/../../login", Some("/login")),
            ("/.well-known/acme-challenge/%2e%2e/%2E%2E/login", Some("/login")),
            ("/.well-known/acme-challenge/..%2f..%2Flogin", Some("/login")),
            (
                "/.well-known/acme-challenge/%252e%252e/login",
                Some("/.well-known/acme-challenge/%2e%2e/login"),
            ),
            ("/%2Frobots.txt", Some("/robots.txt")),
            ("//robots.txt", Some("/robots.txt")),
            ("///a////b//", Some("/a/b/")),
            ("/./a/./b/.", Some("/a/b/")),
            ("/a/b/..", Some("/a/")),
            ("/a/b/../", Some("/a/")),
            ("/a/..", Some("/")),
            ("/a//../b", Some("/b")),
            ("/...", Some("/...")),
            ("/a/.../b", Some("/a/.../b")),
            ("/..a/.b", Some("/..a/.b")),
            ("/a/..b", Some("/a/..b")),
            ("/robots.txt#x", Some("/robots.txt")),
            ("/a/..#/../b", Some("/")),
            ("/%23%3F%25", Some("/#?%")),
            ("/%c3%a4", Some("/\u{e4}")),
            ("/a b", Some("/a b")),
            ("/a%20b", Some("/a b")),
            ("/..", None),
            ("/../a", None),
            ("/a/../../b", None),
            ("/%2e%2e/", None),
            ("/%00", None),
            ("/a\0", None),
            ("/a\nb", None),
            ("/%0a", None),
            ("/%7f", None),
            ("/%", None),
            ("/%2", None),
            ("/%zz", None),
            ("/%2g", None),
            ("", None),
            ("*", None),
            ("a/b", None),
        ] {
            let found = normal(raw.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{raw}");
        }
    }

    #[test]
    fn what_does_not_fit_is_not_known() {
        for (len, is_known) in [(MAX_PATH_BYTES, true), (MAX_PATH_BYTES + 1, false)] {
            for dots in ["", "/%41"] {
                let raw = format!("{:/<1$}", "/", 1) + &"a".repeat(len - 1 - dots.len().min(2)) + dots;
                assert_eq!(normal(raw.as_bytes()).is_some(), is_known, "{len} {dots:?}");
            }
        }
    }

    /// By segments, with a list instead of a buffer.
    fn naive(raw: &[u8]) -> Option<Vec<u8>> {
        let mut decoded = Vec::new();
        let mut bytes = raw.iter().copied();
        while let Some(byte) = bytes.next() {
            match byte {
                b'#' => break,
                b'%' => {
                    let digits = [bytes.next()?, bytes.next()?];
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return None;
                    }
                    decoded.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                }
                other => decoded.push(other),
            }
        }
        if raw.first() != Some(&b'/') || decoded.iter().any(u8::is_ascii_control) {
            return None;
        }
        let mut kept: Vec<&[u8]> = Vec::new();
        let segments: Vec<&[u8]> = decoded[1..].split(|byte| *byte == b'/').collect();
        for segment in &segments {
            match *segment {
                b"" | b"." => {}
                b".." => {
                    kept.pop()?;
                }
                other => kept.push(other),
            }
        }
        let is_directory = matches!(*segments.last().unwrap(), b"" | b"." | b"..") && !kept.is_empty();
        let mut path = [b"/".as_slice(), &kept.join(&b'/')].concat();
        path.extend(is_directory.then_some(b'/'));
        Some(path)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn paths_are_as_a_naive_reading_of_segments_has_them(
            parts in proptest::collection::vec(
                prop::sample::select(vec!["/", "/", ".", "..", "a", "%2e", "%2F", "%", "%25", "#", "%00", "b.c", "%c3", " "]),
                0..12,
            ),
        ) {
            let raw = format!("/{}", parts.concat());
            prop_assert_eq!(normal(raw.as_bytes()), naive(raw.as_bytes()), "{}", raw);
        }
    }
}
