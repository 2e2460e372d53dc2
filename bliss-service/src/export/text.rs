//! Text cells of training rows: bytes that clients sent, as text that every reader takes as it is.
//!
//! A client writes what it likes into its user agent and path. Readers of CSV want UTF-8, some end at a NUL, and some
//! guess: a column of numbers loses its leading zeros, `NA` becomes a missing value, `=1+1` a formula. So a byte may
//! stand as `\xHH`, with two upper-case hexadecimal digits, and these always do:
//!
//! - bytes that are no UTF-8;
//! - control characters, and the line and paragraph separators U+2028 and U+2029;
//! - the backslash itself, so that nothing else can look like an escape;
//! - the first character of a text that a reader could take for a number, a formula, a truth value or none.
//!
//! Whoever undoes every `\xHH` has the bytes back ([`unescape`]).

use std::fmt::Write as _;

/// Words that readers take for numbers, truth values or a missing value, whatever their case.
const GUESSED_WORDS: [&str; 10] =
    ["na", "n/a", "nan", "null", "none", "nil", "true", "false", "inf", "infinity"];
/// First characters of numbers, dates and formulas, and of the other names of a missing value (`#N/A`, `<NA>`).
const GUESSED_STARTS: &[u8] = b" +-.=@#<0123456789";

/// Appends `value` to `cell` as text.
pub fn escape(value: &[u8], cell: &mut String) {
    let value = match value.split_first() {
        Some((first, rest)) if is_guessed(value) => {
            push_byte(*first, cell);
            rest
        }
        _ => value,
    };
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || matches!(character, '\\' | '\u{2028}' | '\u{2029}') {
                character.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_byte(byte, cell));
            } else {
                cell.push(character);
            }
        }
        chunk.invalid().iter().for_each(|byte| push_byte(*byte, cell));
    }
}

/// The bytes that [`escape`] was given. What is no `\xHH` stays as it is.
pub fn unescape(cell: &str) -> Vec<u8> {
    let mut value = Vec::with_capacity(cell.len());
    let mut rest = cell.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match rest {
            [b'\\', b'x', high, low, after @ ..] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (*first, after_one(rest)),
            },
            _ => (*first, after),
        };
        value.push(byte);
        rest = after;
    }
    value
}

fn after_one(bytes: &[u8]) -> &[u8] {
    bytes.get(1..).unwrap_or_default()
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Whether a reader that guesses types could take `value` for something else than text. Its first byte is ASCII then.
fn is_guessed(value: &[u8]) -> bool {
    let word = value.trim_ascii_end();
    value.first().is_some_and(|first| GUESSED_STARTS.contains(first))
        || GUESSED_WORDS.iter().any(|guessed| word.eq_ignore_ascii_case(guessed.as_bytes()))
}

fn push_byte(byte: u8, cell: &mut String) {
    // Writing to a string does not fail.
    let _ = write!(cell, "\\x{byte:02X}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(value: &[u8]) -> String {
        let mut cell = String::new();
        escape(value, &mut cell);
        cell
    }

    #[test]
    fn what_is_escaped_and_what_is_not() {
        let cases: [(&[u8], &str); 25] = [
            (b"", ""),
            (b"Mozilla/5.0 (X11; \"quoted\", comma)", "Mozilla/5.0 (X11; \"quoted\", comma)"),
            ("/käse/☕".as_bytes(), "/käse/☕"),
            (b"F\xfatbol/1.0", "F\\xFAtbol/1.0"),
            (b"/caf\xe9", "/caf\\xE9"),
            (b"\xf0\x9f", "\\xF0\\x9F"),
            (b"\xed\xa0\x80 a surrogate", "\\xED\\xA0\\x80 a surrogate"),
            (b"a\0b\tc\rd\ne\x7f", "a\\x00b\\x09c\\x0Dd\\x0Ae\\x7F"),
            ("a\u{85}\u{2028}b".as_bytes(), "a\\xC2\\x85\\xE2\\x80\\xA8b"),
            (br"a\b", r"a\x5Cb"),
            (br"\x41", r"\x5Cx41"),
            (b"007", "\\x3007"),
            (b"1e5", "\\x31e5"),
            (b"-1", "\\x2D1"),
            (b".5", "\\x2E5"),
            (b" 5", "\\x205"),
            (b"=1+1", "\\x3D1+1"),
            (b"@SUM(A1)", "\\x40SUM(A1)"),
            (b"#N/A", "\\x23N/A"),
            (b"<NA>", "\\x3CNA>"),
            (b"NA", "\\x4EA"),
            (b"nUll ", "\\x6EUll "),
            (b"True", "\\x54rue"),
            (b"Infinity", "\\x49nfinity"),
            (b"NASA", "NASA"),
        ];
        for (value, expected) in cases {
            assert_eq!(escaped(value), expected);
            assert_eq!(unescape(expected), value);
        }
    }

    #[test]
    fn what_is_no_escape_stays() {
        for cell in [r"\", r"\x", r"\x4", r"\xGG", r"\xfa", r"\n", r"\\"] {
            assert_eq!(unescape(cell), cell.as_bytes());
        }
        assert_eq!(unescape(r"\\x41\x42x"), br"\ABx");
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let cell = escaped(&value);
            prop_assert_eq!(unescape(&cell), value);
            prop_assert!(!cell.chars().any(char::is_control));
        }

        #[test]
        fn bytes_that_look_like_escapes_come_back(value in r"([\\xX0-9A-Fa-f]|\\x[0-9A-F]{2}|NA|null|☕){0,12}") {
            prop_assert_eq!(unescape(&escaped(value.as_bytes())), value.as_bytes());
        }
    }
}
