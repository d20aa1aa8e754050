//! Character sets by the numbers of their collations (`information_schema.COLLATIONS`), and bytes as
//! text.

use std::borrow::Cow;

/// How a column's bytes are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charset {
    /// It is not: BINARY, BLOB.
    Binary,
    /// UTF-8, of three or of four bytes, or ASCII.
    Utf8,
    /// Windows' cp1252, which MySQL calls latin1.
    Latin1,
    /// Two bytes a character (or twice two).
    Utf16,
    /// UTF-16 with the low byte first.
    Utf16Le,
    /// Four bytes a character.
    Utf32,
    /// Another one, by its name; only what is ASCII in it is read.
    Other(&'static str),
    /// The binlog does not tell.
    Unknown,
}

impl Charset {
    /// The character set of a collation.
    pub(super) fn of(collation: u64) -> Self {
        match collation {
            63 => Self::Binary,
            11 | 65 | 33 | 76 | 83 | 192..=223 | 45 | 46 | 224..=247 | 255..=323 => Self::Utf8,
            5 | 8 | 15 | 31 | 47..=49 | 94 => Self::Latin1,
            35 | 90 | 128..=159 | 54 | 55 | 101..=124 => Self::Utf16,
            56 | 62 => Self::Utf16Le,
            60 | 61 | 160..=183 => Self::Utf32,
            1 | 84 => Self::Other("big5"),
            2 | 9 | 21 | 27 | 77 => Self::Other("latin2"),
            3 | 69 => Self::Other("dec8"),
            4 | 80 => Self::Other("cp850"),
            6 | 72 => Self::Other("hp8"),
            7 | 74 => Self::Other("koi8r"),
            10 | 82 => Self::Other("swe7"),
            12 | 91 => Self::Other("ujis"),
            13 | 88 => Self::Other("sjis"),
            14 | 23 | 50..=52 => Self::Other("cp1251"),
            16 | 71 => Self::Other("hebrew"),
            18 | 89 => Self::Other("tis620"),
            19 | 85 => Self::Other("euckr"),
            20 | 41 | 42 | 79 => Self::Other("latin7"),
            22 | 75 => Self::Other("koi8u"),
            24 | 86 => Self::Other("gb2312"),
            25 | 70 => Self::Other("greek"),
            26 | 34 | 44 | 66 | 99 => Self::Other("cp1250"),
            28 | 87 => Self::Other("gbk"),
            29 | 58 | 59 => Self::Other("cp1257"),
            30 | 78 => Self::Other("latin5"),
            32 | 64 => Self::Other("armscii8"),
            36 | 68 => Self::Other("cp866"),
            37 | 73 => Self::Other("keybcs2"),
            38 | 43 => Self::Other("macce"),
            39 | 53 => Self::Other("macroman"),
            40 | 81 => Self::Other("cp852"),
            57 | 67 => Self::Other("cp1256"),
            92 | 93 => Self::Other("geostd8"),
            95 | 96 => Self::Other("cp932"),
            97 | 98 => Self::Other("eucjpms"),
            248..=250 => Self::Other("gb18030"),
            _ => Self::Unknown,
        }
    }

    /// The word before a literal of bytes that are not shown as text.
    pub(super) const fn introducer(self) -> &'static str {
        match self {
            Self::Other(name) => name,
            _ => "",
        }
    }

    /// The bytes as text; `None` if they are not, or if it is not known how.
    pub(super) fn text(self, bytes: &[u8]) -> Option<Cow<'_, str>> {
        match self {
            Self::Utf8 | Self::Unknown => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Self::Binary => {
                let is_plain = bytes.iter().all(|b| (0x20..0x7f).contains(b));
                is_plain.then(|| String::from_utf8_lossy(bytes))
            }
            // SWE7 has letters where ASCII has brackets, and so on; the others have all of ASCII.
            Self::Other("swe7") => None,
            Self::Other(_) => bytes.is_ascii().then(|| String::from_utf8_lossy(bytes)),
            Self::Latin1 => Some(bytes.iter().copied().map(latin1).collect::<String>().into()),
            Self::Utf16 => utf16(bytes, u16::from_be_bytes),
            Self::Utf16Le => utf16(bytes, u16::from_le_bytes),
            Self::Utf32 => {
                let mut text = String::with_capacity(bytes.len() / 4);
                for four in bytes.chunks(4) {
                    let four: [u8; 4] = four.try_into().ok()?;
                    text.push(char::from_u32(u32::from_be_bytes(four))?);
                }
                Some(text.into())
            }
        }
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<Cow<'static, str>> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let units = pairs.iter().map(|pair| unit(*pair));
    let text: Result<String, _> = char::decode_utf16(units).collect();
    text.ok().map(Cow::Owned)
}

/// A character of cp1252, with the five that it leaves out as MySQL has them.
fn latin1(byte: u8) -> char {
    const HIGH: [char; 32] = [
        '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}',
        '\u{2021}', '\u{2c6}', '\u{2030}', '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}',
        '\u{8f}', '\u{90}', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}', '\u{2022}', '\u{2013}',
        '\u{2014}', '\u{2dc}', '\u{2122}', '\u{161}', '\u{203a}', '\u{153}', '\u{9d}', '\u{17e}',
        '\u{178}',
    ];
    match byte {
        0x80..=0x9f => HIGH[usize::from(byte - 0x80)],
        other => char::from(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_in_their_character_set() {
        let read =
            |collation, bytes: &[u8]| Charset::of(collation).text(bytes).map(Cow::into_owned);
        assert_eq!(read(255, "ż".as_bytes()).as_deref(), Some("ż"));
        assert_eq!(read(8, &[0x80, 0xe9]).as_deref(), Some("€é"));
        assert_eq!(read(35, &[0x01, 0x7c]).as_deref(), Some("ż"));
        assert_eq!(read(56, &[0x7c, 0x01]).as_deref(), Some("ż"));
        assert_eq!(read(60, &[0, 0, 0x01, 0x7c]).as_deref(), Some("ż"));
        assert_eq!(read(28, b"abc").as_deref(), Some("abc"));
        assert_eq!(read(28, &[0xc4, 0xe3]), None);
        assert_eq!(read(63, &[0, 1]), None);
        assert_eq!(read(35, &[1]), None);
        assert_eq!(Charset::of(28).introducer(), "gbk");
    }
}
