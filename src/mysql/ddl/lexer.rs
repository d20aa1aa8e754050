//! A statement cut up strictly, each piece with its place in the text.
//!
//! What is lenient where a statement is only looked at (`tokens`) must not be so where its text
//! is changed and run: what a server might read in another way is refused here. Texts are bytes
//! in the character set of their session. One that is ASCII can be read in any; other bytes are
//! taken everywhere in UTF-8, inside literals and comments in a set of one byte a character, and not at
//! all in the other sets, where a quote or a backslash may be the second half of a character.
//!
//! Source: MySQL manual, "Lexical Structure", "Comments" and "Server SQL Modes".

use std::ops::Range;

use crate::mysql::version::ServerVersion;

const ANSI_QUOTES: u64 = 0x4;
const NO_BACKSLASH_ESCAPES: u64 = 0x10_0000;
/// The number of `utf8mb4_general_ci`.
const UTF8MB4: u16 = 45;

/// What the meaning of a text leans on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// Whether double quotes enclose names (`ANSI_QUOTES`).
    pub ansi_quotes: bool,
    /// Whether a backslash is an ordinary character (`NO_BACKSLASH_ESCAPES`).
    pub no_backslash_escapes: bool,
    /// The number of `character_set_client`, as a QUERY event gives it (a collation's number).
    pub character_set_client: u16,
    /// The server that is to run it: whether `/*!80016 ... */` is code.
    pub version: ServerVersion,
}

impl Dialect {
    /// That of a logged statement, by the numbers of its QUERY event.
    #[must_use]
    pub const fn of_session(
        sql_mode: u64,
        character_set_client: u16,
        version: ServerVersion,
    ) -> Self {
        Self {
            ansi_quotes: sql_mode & ANSI_QUOTES != 0,
            no_backslash_escapes: sql_mode & NO_BACKSLASH_ESCAPES != 0,
            character_set_client,
            version,
        }
    }

    /// That of what a snapshot's scripts hold: utf8mb4, and no mode that changes how texts are read.
    #[must_use]
    pub const fn of_scripts(version: ServerVersion) -> Self {
        Self::of_session(0, UTF8MB4, version)
    }

    fn version_number(&self) -> u32 {
        let (major, minor, patch) = self.version.triple();
        u32::from(major) * 10_000 + u32::from(minor) * 100 + u32::from(patch)
    }

    pub(super) fn charset(&self) -> Charset {
        match self.character_set_client {
            33 | 76 | 83 | 192..=223 | 45 | 46 | 224..=247 | 255..=323 => Charset::Utf8,
            // In swe7 signs of ASCII are letters.
            10 | 82 => Charset::NotAscii,
            2..=9 | 11 | 14..=16 | 18 | 20..=23 | 25..=27 | 29..=32 | 34 | 36..=44 => {
                Charset::OneByte
            }
            47..=53 | 57..=59 | 63..=75 | 77..=81 | 89 | 92..=94 | 99 => Charset::OneByte,
            _ => Charset::Other,
        }
    }
}

/// What the bytes of a text are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charset {
    Utf8,
    /// One byte a character, the lower half being ASCII.
    OneByte,
    /// ASCII, and characters of several bytes; also those that are not known.
    Other,
    /// Not even ASCII means ASCII.
    NotAscii,
}

/// Why a statement is not understood. Its text is the caller's to add.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}, at byte {at}")]
pub struct Misunderstood {
    /// What is wrong or unknown.
    pub reason: String,
    /// Where in the statement, in bytes from its beginning.
    pub at: usize,
}

impl Misunderstood {
    pub(super) fn new(reason: impl Into<String>, at: usize) -> Self {
        Self {
            reason: reason.into(),
            at,
        }
    }
}

/// What a piece of a statement is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Letters and digits without quotes: a keyword, a name or a number.
    Word(String),
    /// In backticks, or in double quotes where these enclose names.
    Quoted(String),
    /// A text in quotes.
    Literal,
    /// One character of anything else.
    Sign(u8),
}

/// A piece of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) kind: Kind,
    pub(super) span: Range<usize>,
}

impl Piece {
    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(&self.kind, Kind::Word(found) if found.eq_ignore_ascii_case(word))
    }

    pub(super) fn is_sign(&self, sign: u8) -> bool {
        self.kind == Kind::Sign(sign)
    }
}

/// Cuts a statement up piece by piece.
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    dialect: &'a Dialect,
    at: usize,
    /// Inside `/*! ... */`.
    in_code: bool,
}

impl<'a> Lexer<'a> {
    /// # Errors
    ///
    /// [`Misunderstood`] if the text has bytes that cannot be read safely in its character set.
    pub(super) fn new(text: &'a [u8], dialect: &'a Dialect) -> Result<Self, Misunderstood> {
        let charset = dialect.charset();
        let foreign = text.iter().position(|byte| !byte.is_ascii());
        let number = dialect.character_set_client;
        if charset == Charset::NotAscii {
            let reason = format!("its character set (number {number}) is not read here");
            return Err(Misunderstood::new(reason, 0));
        }
        if let Some(at) = foreign.filter(|_| charset == Charset::Other) {
            let reason = format!(
                "it has characters other than ASCII in a character set (number {number}) in which they may hold a quote"
            );
            return Err(Misunderstood::new(reason, at));
        }
        Ok(Self {
            text,
            dialect,
            at: 0,
            in_code: false,
        })
    }

    /// All pieces.
    pub(super) fn pieces(mut self) -> Result<Vec<Piece>, Misunderstood> {
        let mut pieces = Vec::new();
        while let Some(piece) = self.next()? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next piece.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, Misunderstood> {
        self.pass_space()?;
        let from = self.at;
        let Some(&byte) = self.text.get(from) else {
            if self.in_code {
                return Err(Misunderstood::new("a comment does not end", from));
            }
            return Ok(None);
        };
        let kind = match byte {
            b'`' => Kind::Quoted(self.quoted_name()?),
            b'"' if self.dialect.ansi_quotes => Kind::Quoted(self.quoted_name()?),
            b'\'' | b'"' => {
                self.pass_literal(byte)?;
                Kind::Literal
            }
            byte if is_word(byte) => {
                let length = self.rest().iter().take_while(|byte| is_word(**byte));
                self.at += length.count();
                Kind::Word(self.name(&self.text[from..self.at], from)?)
            }
            byte if byte.is_ascii_control() => {
                return Err(Misunderstood::new("a control character", from));
            }
            byte => {
                self.at += 1;
                Kind::Sign(byte)
            }
        };
        let span = from..self.at;
        Ok(Some(Piece { kind, span }))
    }

    /// Passes spaces and comments, and the marks of comments that are code.
    fn pass_space(&mut self) -> Result<(), Misunderstood> {
        loop {
            let rest = self.rest();
            if rest.first().is_some_and(|byte| is_space(*byte)) {
                self.at += 1;
            } else if rest.starts_with(b"#") || is_line_comment(rest) {
                let line = rest.iter().position(|byte| *byte == b'\n');
                self.at += line.unwrap_or(rest.len());
            } else if rest.starts_with(b"/*!") {
                self.begin_code()?;
            } else if rest.starts_with(b"/*") {
                let end = memchr::memmem::find(&rest[2..], b"*/");
                let Some(end) = end else {
                    return Err(Misunderstood::new("a comment does not end", self.at));
                };
                self.at += end + 4;
            } else if self.in_code && rest.starts_with(b"*/") {
                self.in_code = false;
                self.at += 2;
            } else {
                return Ok(());
            }
        }
    }

    /// A comment that is code for servers from a version on. A source leaves those that it does
    /// not run as plain comments in its binlog.
    fn begin_code(&mut self) -> Result<(), Misunderstood> {
        let from = self.at;
        if self.in_code {
            let reason = "a comment that is code within another one";
            return Err(Misunderstood::new(reason, from));
        }
        let digits = &self.rest()[3..];
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit());
        let count = match count.count() {
            0 => 0,
            5 => 5,
            count if count >= 6 => 6,
            _ => {
                let reason = "a comment that is code, with half a version";
                return Err(Misunderstood::new(reason, from));
            }
        };
        let number = std::str::from_utf8(&digits[..count]).unwrap_or_default();
        let number: u32 = number.parse().unwrap_or_default();
        if number > self.dialect.version_number() {
            let reason = format!(
                "a comment that is code for a later version ({number}) than that of the server, {}",
                self.dialect.version
            );
            return Err(Misunderstood::new(reason, from));
        }
        self.in_code = true;
        self.at += 3 + count;
        Ok(())
    }

    fn name(&self, bytes: &[u8], at: usize) -> Result<String, Misunderstood> {
        if !bytes.is_ascii() && self.dialect.charset() != Charset::Utf8 {
            let reason =
                "a name with characters other than ASCII in another character set than UTF-8";
            return Err(Misunderstood::new(reason, at));
        }
        match std::str::from_utf8(bytes) {
            Ok(name) => Ok(name.to_owned()),
            Err(_) => Err(Misunderstood::new("a name that is not UTF-8", at)),
        }
    }

    fn quoted_name(&mut self) -> Result<String, Misunderstood> {
        let from = self.at;
        let quote = self.text[from];
        let mut content = Vec::new();
        let mut at = from + 1;
        loop {
            match self.text.get(at) {
                None | Some(0) => return Err(Misunderstood::new("a name does not end", from)),
                Some(&byte) if byte == quote => {
                    at += 1;
                    if self.text.get(at) != Some(&quote) {
                        break;
                    }
                    content.push(quote);
                }
                Some(&byte) => content.push(byte),
            }
            at += 1;
        }
        if content.is_empty() {
            return Err(Misunderstood::new("a name is empty", from));
        }
        self.at = at;
        self.name(&content, from)
    }

    fn pass_literal(&mut self, quote: u8) -> Result<(), Misunderstood> {
        let from = self.at;
        let mut at = from + 1;
        while let Some(&byte) = self.text.get(at) {
            if byte == quote {
                at += 1;
                if self.text.get(at) != Some(&quote) {
                    self.at = at;
                    return Ok(());
                }
            } else if byte == b'\\' && !self.dialect.no_backslash_escapes {
                at += 1;
            }
            at += 1;
        }
        Err(Misunderstood::new("a text in quotes does not end", from))
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || !byte.is_ascii()
}

fn is_line_comment(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(b"--") else {
        return false;
    };
    rest.first()
        .is_none_or(|byte| is_space(*byte) || byte.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dialect(sql_mode: u64, charset: u16) -> Dialect {
        let version = ServerVersion::parse("8.4.6").expect("a version");
        Dialect::of_session(sql_mode, charset, version)
    }

    fn cut(text: &[u8], dialect: &Dialect) -> Result<Vec<Piece>, Misunderstood> {
        Lexer::new(text, dialect)?.pieces()
    }

    /// The pieces as they stand in the text.
    fn texts(text: &str, dialect: &Dialect) -> String {
        let pieces = cut(text.as_bytes(), dialect).expect(text);
        let texts: Vec<&str> = pieces
            .iter()
            .map(|piece| &text[piece.span.clone()])
            .collect();
        texts.join("|")
    }

    #[test]
    fn pieces_stand_where_they_are() {
        let plain = dialect(0, 45);
        for (text, expected) in [
            ("a.b-1", "a|.|b|-|1"),
            ("a -- b\nc--d # e\n f", "a|c|-|-|d|f"),
            ("a--", "a"),
            ("a/* `x */b/*+ c */", "a|b"),
            ("a /*!80016 b /* x */ c*/ d*/e", "a|b|c|d|*|/|e"),
            ("a /*!b*/ /*!080400c*/", "a|b|c"),
            ("`a``b` 'c''d\\'' \"e\\\"\"", "`a``b`|'c''d\\''|\"e\\\"\""),
            ("żółw.`ж`", "żółw|.|`ж`"),
        ] {
            assert_eq!(texts(text, &plain), expected, "{text}");
        }
        let pieces = cut(b"`a``b`.x", &plain).expect("good");
        assert_eq!(pieces[0].kind, Kind::Quoted("a`b".to_owned()));
        assert_eq!(pieces[2].kind, Kind::Word("x".to_owned()));
    }

    #[test]
    fn modes_change_what_quotes_and_backslashes_are() {
        let ansi = dialect(ANSI_QUOTES, 45);
        let pieces = cut(br#""a""b\" 'x'"#, &ansi).expect("good");
        assert_eq!(pieces[0].kind, Kind::Quoted("a\"b\\".to_owned()));
        assert_eq!(pieces[1].kind, Kind::Literal);
        assert_eq!(
            texts(r"'a\' b", &dialect(NO_BACKSLASH_ESCAPES, 45)),
            r"'a\'|b"
        );
        assert!(cut(br"'a\' b", &dialect(0, 45)).is_err());
    }

    #[test]
    fn what_a_server_may_read_otherwise_is_refused() {
        let plain = dialect(0, 45);
        for text in [
            "'a",
            "`a",
            "``",
            "\"a",
            "/* a",
            "/*!80016 a",
            "/*!99999 a */",
            "/*!80016 a /*!80017 b */ */",
            "/*!801 a */",
            "a\u{1}b",
            "`a\0b`",
        ] {
            assert!(cut(text.as_bytes(), &plain).is_err(), "{text}");
        }
        assert!(cut(b"a\xff", &plain).is_err(), "no UTF-8");
        assert!(cut(b"'\xff'", &plain).is_ok(), "a text may be anything");
        let (latin1, gbk, swe7) = (dialect(0, 8), dialect(0, 28), dialect(0, 10));
        assert!(cut(b"a '\xe9' /* \xe9 */", &latin1).is_ok());
        assert!(cut(b"a\xe9", &latin1).is_err());
        assert!(cut(b"`\xe9`", &latin1).is_err());
        assert!(cut(b"a 'b'", &gbk).is_ok());
        assert!(cut(b"a '\x81\x5c' b", &gbk).is_err());
        assert!(cut(b"a", &swe7).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in prop::collection::vec(any::<u8>(), 0..80), mode in 0_u64..8, charset in 0_u16..330) {
            if let Ok(pieces) = cut(&text, &dialect(mode, charset)) {
                let mut before = 0;
                for piece in pieces {
                    prop_assert!(piece.span.start >= before && piece.span.end > piece.span.start);
                    before = piece.span.end;
                }
                prop_assert!(before <= text.len());
            }
        }
    }
}
