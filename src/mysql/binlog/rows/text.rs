//! Values as text, as `mysqlbinlog -v` shows them, cut where they are too long to be read.
//!
//! What differs from mysqlbinlog: numbers have the sign of their column, a TIMESTAMP is a time in UTC
//! and no number, ENUM and SET are words where the binlog has them, DOUBLE and FLOAT have as many digits
//! as tell the value from its neighbours, and bytes that are no text are hexadecimal.

use std::fmt::Write as _;

use super::json::{self, Sink};
use super::value::{Text, Value};

/// A value's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The text, a literal as SQL has it where there is one.
    pub text: String,
    /// How many bytes the whole value has, if the text shows only its beginning.
    pub cut_of: Option<usize>,
    /// Of a whole JSON value, its text without quotes around it.
    pub json: Option<String>,
}

impl Value<'_> {
    /// The value as a literal. A value of more than `limit` bytes is cut; `column` is the name that
    /// changes to a JSON value are applied to.
    #[must_use]
    pub fn show(&self, column: &str, limit: usize) -> Shown {
        let whole = |text: String| shown(text, None);
        match self {
            Self::Null => whole("NULL".to_owned()),
            Self::Signed(number) => whole(number.to_string()),
            Self::Unsigned(number) => whole(number.to_string()),
            Self::Decimal(text) => whole(text.clone()),
            Self::Float(number) => whole(float(format!("{number:?}"))),
            Self::Double(number) => whole(float(format!("{number:?}"))),
            Self::Year(year) => whole(format!("{year:04}")),
            Self::Moment(text) => whole(format!("'{text}'")),
            Self::Bits(bytes, count) => whole(bits(bytes, *count)),
            Self::Enum(_, Some(label)) => whole(quoted(label)),
            Self::Enum(index, None) => whole(index.to_string()),
            Self::Set(_, _, Some(words)) => whole(quoted(words)),
            Self::Set(set, count, None) => whole(bits(
                &set.to_be_bytes()[8 - count.div_ceil(8).min(8)..],
                *count,
            )),
            Self::Text(text) => text.show(limit),
            Self::Json(bytes) => {
                let mut sink = Sink::new(json_limit(bytes, limit));
                let ended = json::write(bytes, &mut sink);
                let plain = ended.is_ok().then(|| sink.text.clone());
                Shown {
                    json: plain,
                    ..json_shown(sink, ended, bytes, |text| quoted(&text))
                }
            }
            Self::JsonChange(bytes) => {
                let mut sink = Sink::new(json_limit(bytes, limit));
                let ended = json::write_change(bytes, column, &mut sink);
                json_shown(sink, ended, bytes, |text| text)
            }
            Self::Geometry(bytes) => hexadecimal("", bytes, limit),
            Self::Vector(bytes) => vector(bytes, limit),
        }
    }
}

const fn shown(text: String, cut_of: Option<usize>) -> Shown {
    Shown {
        text,
        cut_of,
        json: None,
    }
}

/// Text is never so much longer than what it is stored as, unless its parts lie one in the other.
fn json_limit(bytes: &[u8], limit: usize) -> usize {
    limit.min(bytes.len().saturating_mul(16).saturating_add(1024))
}

fn json_shown(
    sink: Sink,
    ended: Result<(), json::Stop>,
    bytes: &[u8],
    around: impl Fn(String) -> String,
) -> Shown {
    match ended {
        Ok(()) => shown(around(sink.text), None),
        Err(json::Stop::Full) => shown(around(sink.text), Some(bytes.len())),
        // Still better to see than an error that hides the row.
        Err(json::Stop::Broken) => shown(
            format!("{} /* no valid JSON */", hexadecimal("", bytes, 64).text),
            None,
        ),
    }
}

impl Text<'_> {
    fn show(&self, limit: usize) -> Shown {
        let is_cut = self.bytes.len() > limit;
        let mut end = self.bytes.len().min(limit);
        // Not inside a character, whatever the character set has at the most.
        for _ in 0..4 {
            if let Some(text) = self.charset.text(&self.bytes[..end]) {
                return shown(quoted(&text), is_cut.then_some(self.bytes.len()));
            }
            if !is_cut || end == 0 {
                break;
            }
            end -= 1;
        }
        hexadecimal(self.charset.introducer(), self.bytes, limit)
    }

    /// The text, if the bytes are some: for programs.
    #[must_use]
    pub fn text(&self) -> Option<std::borrow::Cow<'_, str>> {
        self.charset.text(self.bytes)
    }

    /// Whether the column holds bytes and no text.
    #[must_use]
    pub fn is_binary(&self) -> bool {
        self.charset == super::charset::Charset::Binary
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8] {
        self.bytes
    }
}

/// In single quotes; quotes, backslashes and control characters as mysqlbinlog writes them.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match escaped(c) {
            Some(escape) => out.push_str(&escape),
            None => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// How a character stands in a literal, if not as itself.
pub(super) fn escaped(c: char) -> Option<std::borrow::Cow<'static, str>> {
    Some(match c {
        '\'' => "\\'".into(),
        '\\' => "\\\\".into(),
        '\t' => "\\t".into(),
        '\n' => "\\n".into(),
        '\r' => "\\r".into(),
        '\0'..='\x1f' => format!("\\x{:02x}", u32::from(c)).into(),
        _ => return None,
    })
}

/// `b'0101'`, the last `count` bits of some bytes.
fn bits(bytes: &[u8], count: usize) -> String {
    let all: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let start = all.len().saturating_sub(count);
    format!("b'{}'", &all[start..])
}

/// `x'0f'`.
fn hexadecimal(introducer: &str, bytes: &[u8], limit: usize) -> Shown {
    let part = &bytes[..bytes.len().min(limit)];
    let mut text = match introducer {
        "" => String::new(),
        name => format!("_{name} "),
    };
    text.push_str("x'");
    for byte in part {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\'');
    let cut_of = (part.len() < bytes.len()).then_some(bytes.len());
    shown(text, cut_of)
}

/// `TO_VECTOR('[1,2.5]')`.
fn vector(bytes: &[u8], limit: usize) -> Shown {
    let (numbers, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return hexadecimal("", bytes, limit);
    }
    let part = &numbers[..numbers.len().min(limit.div_ceil(4))];
    let texts: Vec<String> = part
        .iter()
        .map(|four| f32::from_le_bytes(*four).to_string())
        .collect();
    let cut_of = (part.len() < numbers.len()).then_some(bytes.len());
    shown(format!("TO_VECTOR('[{}]')", texts.join(",")), cut_of)
}

/// `1.0` as `1`, as the server prints it.
fn float(text: String) -> String {
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}
