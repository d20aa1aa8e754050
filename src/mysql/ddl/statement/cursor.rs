//! A walk along the pieces of a statement.

use std::ops::Range;

use super::super::lexer::{Kind, Misunderstood, Piece};
use super::{NameUse, Role, TableName};

/// Words that are reserved, and so are no names without quotes; those that can stand beside a name.
const NO_NAMES: [&str; 26] = [
    "ALTER",
    "AS",
    "BY",
    "CREATE",
    "DROP",
    "EXISTS",
    "FOR",
    "FROM",
    "IF",
    "IGNORE",
    "INDEX",
    "INTO",
    "KEY",
    "LIKE",
    "NOT",
    "ON",
    "OR",
    "PARTITION",
    "REFERENCES",
    "RENAME",
    "REPLACE",
    "SELECT",
    "TABLE",
    "TO",
    "WITH",
    "VALUES",
];

/// A name as it stands, without what it has by default.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) database: Option<(String, Range<usize>)>,
    pub(super) table: String,
    pub(super) span: Range<usize>,
}

impl Found {
    /// The name with its schema.
    pub(super) fn of(self, role: Role, default: Option<&str>) -> Result<NameUse, Misunderstood> {
        let (database, database_span) = match (self.database, default) {
            (Some((database, span)), _) => (database, Some(span)),
            (None, Some(default)) => (default.to_owned(), None),
            (None, None) => {
                let reason = format!("{} has no schema, and there is no default one", self.table);
                return Err(Misunderstood::new(reason, self.span.start));
            }
        };
        Ok(NameUse {
            role,
            name: TableName::new(database, self.table),
            database_span,
            table_span: self.span,
        })
    }
}

pub(super) struct Cursor<'a> {
    pieces: &'a [Piece],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(pieces: &'a [Piece], at: usize) -> Self {
        Self { pieces, at }
    }

    /// The piece so many ahead.
    pub(super) fn ahead(&self, count: usize) -> Option<&'a Piece> {
        self.pieces.get(self.at + count)
    }

    /// The one before the next.
    pub(super) fn before(&self) -> Option<&'a Piece> {
        self.pieces.get(self.at.checked_sub(1)?)
    }

    pub(super) fn is_ahead(&self, count: usize, word: &str) -> bool {
        self.ahead(count).is_some_and(|piece| piece.is_word(word))
    }

    /// Where the next piece begins, or the last one ends.
    pub(super) fn place(&self) -> usize {
        match self.ahead(0) {
            Some(piece) => piece.span.start,
            None => self.pieces.last().map_or(0, |piece| piece.span.end),
        }
    }

    pub(super) fn refuse(&self, reason: impl Into<String>) -> Misunderstood {
        Misunderstood::new(reason, self.place())
    }

    /// Passes the words if they are next.
    pub(super) fn eat(&mut self, words: &[&str]) -> bool {
        let mut words_ahead = words.iter().enumerate();
        let fits = words_ahead.all(|(count, word)| self.is_ahead(count, word));
        if fits {
            self.at += words.len();
        }
        fits
    }

    /// Passes one of the words if it is next.
    pub(super) fn eat_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.eat(&[word]))
    }

    pub(super) fn sign(&mut self, sign: u8) -> bool {
        let fits = self.ahead(0).is_some_and(|piece| piece.is_sign(sign));
        self.at += usize::from(fits);
        fits
    }

    /// Nothing, or one semicolon, must follow.
    pub(super) fn end(&mut self) -> Result<(), Misunderstood> {
        self.sign(b';');
        match self.ahead(0) {
            None => Ok(()),
            Some(_) => Err(self.refuse("something unknown follows")),
        }
    }

    /// One identifier.
    pub(super) fn identifier(&mut self) -> Result<(String, Range<usize>), Misunderstood> {
        let piece = self.ahead(0);
        let name = match piece.map(|piece| &piece.kind) {
            Some(Kind::Quoted(name)) => name,
            Some(Kind::Word(word)) if is_name(word) || self.is_behind_dot() => word,
            _ => return Err(self.refuse("a name is expected here")),
        };
        let span = piece.map_or(0..0, |piece| piece.span.clone());
        self.at += 1;
        Ok((name.clone(), span))
    }

    fn is_behind_dot(&self) -> bool {
        self.before().is_some_and(|piece| piece.is_sign(b'.'))
    }

    /// `table` or `schema.table`.
    pub(super) fn name(&mut self) -> Result<Found, Misunderstood> {
        let (first, span) = self.identifier()?;
        let found = match self.sign(b'.') {
            true => {
                let (table, table_span) = self.identifier()?;
                Found {
                    database: Some((first, span)),
                    table,
                    span: table_span,
                }
            }
            false => Found {
                database: None,
                table: first,
                span,
            },
        };
        match self.ahead(0) {
            Some(piece) if piece.is_sign(b'.') => Err(self.refuse("a name of too many parts")),
            _ => Ok(found),
        }
    }
}

/// Whether a word can be a name: no number, and none of the reserved words that are known here.
pub(super) fn is_name(word: &str) -> bool {
    let is_reserved = NO_NAMES
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known));
    !is_reserved && !is_number(word)
}

/// Whether a word is, or may be read as, a number: `12`, `1e5`, `0x1f`, `0b1`.
pub(super) fn is_number(word: &str) -> bool {
    if !word.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let exponent = rest.strip_prefix(['e', 'E']);
    rest.is_empty()
        || word.starts_with("0x")
        || word.starts_with("0b")
        || exponent.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()))
}
