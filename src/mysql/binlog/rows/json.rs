//! JSON as MySQL stores it (`sql-common/json_binary.h`), and changes to it (`sql-common/json_diff.h`),
//! as the text that the server prints.

use std::fmt::Write as _;

use super::column::kind;
use super::text::escaped;
use super::value::low_first;
use super::{decimal, time};
use crate::mysql::wire::packet::Fields;

/// The server nests no deeper.
const DEPTH_MAX: usize = 100;

/// Why writing ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The text is as long as it may be.
    Full,
    /// The bytes make no sense.
    Broken,
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(_: E) -> Self {
        Self::Broken
    }
}

/// Text that takes no more than it may.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) text: String,
    limit: usize,
}

impl Sink {
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            text: String::new(),
            limit,
        }
    }

    fn push(&mut self, more: &str) -> Result<(), Stop> {
        let room = self.limit.saturating_sub(self.text.len());
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        let end = (0..=room).rev().find(|end| more.is_char_boundary(*end));
        self.text.push_str(&more[..end.unwrap_or(0)]);
        Err(Stop::Full)
    }
}

/// Writes a stored value.
pub(super) fn write(bytes: &[u8], sink: &mut Sink) -> Result<(), Stop> {
    match bytes.split_first() {
        // What an interrupted conversion leaves; the server takes it for null.
        None => sink.push("null"),
        Some((kind, rest)) => value(*kind, rest, sink, 0),
    }
}

/// Writes changes to a value: `JSON_REPLACE(@1, '$.a', 1)`, one function around the other.
pub(super) fn write_change(bytes: &[u8], column: &str, sink: &mut Sink) -> Result<(), Stop> {
    let mut fields = Fields::new(bytes);
    let mut changes = Vec::new();
    while !fields.is_empty() {
        let operation = fields.uint::<1>()?;
        let path = std::str::from_utf8(fields.lenenc_bytes()?)?;
        let (function, value) = match operation {
            0 => ("JSON_REPLACE", Some(fields.lenenc_bytes()?)),
            1 if path.ends_with(']') => ("JSON_ARRAY_INSERT", Some(fields.lenenc_bytes()?)),
            1 => ("JSON_INSERT", Some(fields.lenenc_bytes()?)),
            2 => ("JSON_REMOVE", None),
            _ => return Err(Stop::Broken),
        };
        changes.push((function, path, value));
    }
    // The first change is the innermost call; neighbours of one function share it.
    let runs: Vec<_> = changes.chunk_by(|one, other| one.0 == other.0).collect();
    for run in runs.iter().rev() {
        sink.push(run[0].0)?;
        sink.push("(")?;
    }
    sink.push(column)?;
    for run in runs {
        for (_, path, bytes) in run {
            sink.push(", ")?;
            literal(path, sink)?;
            if let Some(bytes) = bytes {
                sink.push(", ")?;
                argument(bytes, sink)?;
            }
        }
        sink.push(")")?;
    }
    Ok(())
}

/// A new value inside a call: numbers and strings as SQL has them, the rest cast from its text.
fn argument(bytes: &[u8], sink: &mut Sink) -> Result<(), Stop> {
    let mut inner = Sink::new(sink.limit);
    let ended = write(bytes, &mut inner);
    match (bytes.first(), bytes.get(1)) {
        (Some(5..=0x0b), _) | (Some(0x0f), Some(&kind::NEWDECIMAL)) => sink.push(&inner.text)?,
        (Some(0x0c), _) => {
            let plain: Option<String> = serde_json::from_str(&inner.text).ok();
            match plain {
                Some(text) => literal(&text, sink)?,
                None => sink.push(&inner.text)?,
            }
        }
        _ => {
            sink.push("CAST(")?;
            literal(&inner.text, sink)?;
            sink.push(" AS JSON)")?;
        }
    }
    ended
}

fn literal(text: &str, sink: &mut Sink) -> Result<(), Stop> {
    sink.push("'")?;
    for c in text.chars() {
        match escaped(c) {
            Some(escape) => sink.push(&escape)?,
            None => sink.push(c.encode_utf8(&mut [0; 4]))?,
        }
    }
    sink.push("'")
}

fn value(kind: u8, bytes: &[u8], sink: &mut Sink, depth: usize) -> Result<(), Stop> {
    if depth > DEPTH_MAX {
        return Err(Stop::Broken);
    }
    let mut fields = Fields::new(bytes);
    match kind {
        0..=3 => container(kind, bytes, sink, depth),
        4 => literal_word(fields.uint::<1>()?, sink),
        5 => sink.push(&signed(fields.bytes(2)?).to_string()),
        6 => sink.push(&fields.uint::<2>()?.to_string()),
        7 => sink.push(&signed(fields.bytes(4)?).to_string()),
        8 => sink.push(&fields.uint::<4>()?.to_string()),
        9 => sink.push(&signed(fields.bytes(8)?).to_string()),
        10 => sink.push(&fields.uint::<8>()?.to_string()),
        11 => sink.push(&format!("{:?}", f64::from_bits(fields.uint::<8>()?))),
        12 => {
            let length = variable_length(&mut fields)?;
            string(std::str::from_utf8(fields.bytes(length)?)?, sink)
        }
        15 => {
            let kind = fields.bytes(1)?[0];
            let length = variable_length(&mut fields)?;
            opaque(kind, fields.bytes(length)?, sink)
        }
        _ => Err(Stop::Broken),
    }
}

fn literal_word(number: u64, sink: &mut Sink) -> Result<(), Stop> {
    sink.push(match number {
        0 => "null",
        1 => "true",
        2 => "false",
        _ => return Err(Stop::Broken),
    })
}

/// An object or an array, with offsets of two bytes or of four.
fn container(kind: u8, bytes: &[u8], sink: &mut Sink, depth: usize) -> Result<(), Stop> {
    let (is_object, is_large) = (kind < 2, kind % 2 == 1);
    let width = if is_large { 4 } else { 2 };
    let number = |fields: &mut Fields<'_>| -> Result<usize, Stop> {
        Ok(usize::try_from(low_first(fields.bytes(width)?))?)
    };
    let mut fields = Fields::new(bytes);
    let count = number(&mut fields)?;
    let size = number(&mut fields)?;
    let all = bytes.get(..size).ok_or(Stop::Broken)?;
    let head = 2 * width;
    let keys_size = if is_object {
        count.checked_mul(width + 2)
    } else {
        Some(0)
    };
    let keys_size = keys_size.ok_or(Stop::Broken)?;
    let entry = 1 + width;
    let mut keys = Fields::new(all.get(head..head + keys_size).ok_or(Stop::Broken)?);
    let mut entries = Fields::new(all.get(head + keys_size..).ok_or(Stop::Broken)?);
    sink.push(if is_object { "{" } else { "[" })?;
    for at in 0..count {
        if at > 0 {
            sink.push(", ")?;
        }
        if is_object {
            let start = number(&mut keys)?;
            let length = usize::try_from(keys.uint::<2>()?)?;
            let end = start.checked_add(length).ok_or(Stop::Broken)?;
            let key = all.get(start..end).ok_or(Stop::Broken)?;
            string(std::str::from_utf8(key)?, sink)?;
            sink.push(": ")?;
        }
        let place = entries.bytes(entry)?;
        let inner = place[0];
        // What fits stands in the entry itself.
        let is_inlined = matches!(inner, 4..=6) || is_large && matches!(inner, 7 | 8);
        if is_inlined {
            value(inner, &place[1..], sink, depth + 1)?;
        } else {
            let start = usize::try_from(low_first(&place[1..]))?;
            let rest = all.get(start..).ok_or(Stop::Broken)?;
            value(inner, rest, sink, depth + 1)?;
        }
    }
    sink.push(if is_object { "}" } else { "]" })
}

/// A type that JSON does not know: DECIMAL and times as they are, others in base 64.
fn opaque(kind: u8, bytes: &[u8], sink: &mut Sink) -> Result<(), Stop> {
    match kind {
        kind::NEWDECIMAL => {
            let (meta, digits) = bytes.split_at_checked(2).ok_or(Stop::Broken)?;
            let meta = u16::from(meta[0]) << 8 | u16::from(meta[1]);
            sink.push(&decimal::text(meta, digits).ok_or(Stop::Broken)?)
        }
        kind::DATE | kind::TIME | kind::DATETIME | kind::TIMESTAMP if bytes.len() == 8 => {
            let number = low_first(bytes) as i64;
            sink.push(&format!("\"{}\"", time::packed(kind, number)))
        }
        kind => {
            sink.push(&format!("\"base64:type{kind}:"))?;
            base64(bytes, sink)?;
            sink.push("\"")
        }
    }
}

fn base64(bytes: &[u8], sink: &mut Sink) -> Result<(), Stop> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in bytes.chunks(3) {
        let mut bits = 0_u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(three.get(at).copied().unwrap_or(0));
        }
        let mut four = ['='; 4];
        for (at, letter) in four.iter_mut().enumerate().take(three.len() + 1) {
            *letter = char::from(LETTERS[(bits >> (18 - 6 * at) & 63) as usize]);
        }
        sink.push(&four.iter().collect::<String>())?;
    }
    Ok(())
}

/// A string in double quotes.
fn string(text: &str, sink: &mut Sink) -> Result<(), Stop> {
    sink.push("\"")?;
    let mut plain = 0;
    for (at, c) in text.char_indices() {
        let escaped = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\x08' => "\\b",
            '\t' => "\\t",
            '\n' => "\\n",
            '\x0c' => "\\f",
            '\r' => "\\r",
            '\0'..='\x1f' => "",
            _ => continue,
        };
        sink.push(&text[plain..at])?;
        match escaped {
            "" => {
                let mut code = String::new();
                let _ = write!(code, "\\u{:04x}", u32::from(c));
                sink.push(&code)?;
            }
            escaped => sink.push(escaped)?,
        }
        plain = at + c.len_utf8();
    }
    sink.push(&text[plain..])?;
    sink.push("\"")
}

/// A length in bytes of seven bits, the lowest first.
fn variable_length(fields: &mut Fields<'_>) -> Result<usize, Stop> {
    let mut length = 0_u64;
    for at in 0..5 {
        let byte = fields.uint::<1>()?;
        length |= (byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(usize::try_from(length)?);
        }
    }
    Err(Stop::Broken)
}

/// A number with a sign, low byte first.
fn signed(bytes: &[u8]) -> i64 {
    let unused = 64 - 8 * bytes.len() as u32;
    (low_first(bytes) << unused) as i64 >> unused
}
