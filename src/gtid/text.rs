//! GTID sets as text, read and printed as MySQL does.
//!
//! The grammar is that of `Gtid_set::add_gtid_text` (`sql/rpl_gtid_set.cc`): white space is
//! allowed between all parts, empty elements between commas are skipped, a UUID may have no
//! interval at all, tags hold for the intervals after them, intervals come in any order and may
//! overlap, and one that ends before it starts holds nothing. One thing is refused that MySQL
//! takes: a number with a leading zero, which 8.0 reads as octal (`strtoll` with base 0) and 9.7
//! as decimal.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::{Gtid, GtidError, GtidSet, MAX_GNO, Tag, Tsid};

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if f.alternate() { "," } else { ",\n" };
        let mut before: Option<Uuid> = None;
        for (tsid, intervals) in self.origins() {
            if before != Some(tsid.uuid) {
                if before.is_some() {
                    f.write_str(separator)?;
                }
                write!(f, "{}", tsid.uuid)?;
                before = Some(tsid.uuid);
            }
            if let Some(tag) = &tsid.tag {
                write!(f, ":{tag}")?;
            }
            for interval in intervals.as_slice() {
                write!(f, ":{}", interval.start)?;
                if interval.end > interval.start {
                    write!(f, "-{}", interval.end)?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut scanner = Scanner::new(text);
        let mut set = Self::new();
        loop {
            while scanner.take(b',') {}
            if scanner.at_end() {
                return Ok(set);
            }
            let mut tsid = Tsid::untagged(scanner.uuid()?);
            while scanner.take(b':') {
                if let Some(tag) = scanner.tag()? {
                    tsid.tag = Some(tag);
                    continue;
                }
                let start = scanner.positive_gno()?;
                let end = if scanner.take(b'-') {
                    scanner.gno()?
                } else {
                    start
                };
                set.insert_range(&tsid, start..=end);
            }
            if !scanner.at_end() && !scanner.sees(b',') {
                return Err(scanner.expected("a colon, a comma or the end"));
            }
        }
    }
}

impl Gtid {
    /// The set of this transaction alone.
    #[must_use]
    pub fn to_set(&self) -> GtidSet {
        GtidSet::from(self.clone())
    }
}

/// Reads a GTID text part by part; white space before a part is skipped.
pub(super) struct Scanner<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Scanner<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, position: 0 }
    }

    /// What is left, from the next part on.
    fn rest(&mut self) -> &'a [u8] {
        let rest = &self.text.as_bytes()[self.position..];
        let blank = rest.iter().take_while(|&&b| is_space(b)).count();
        self.position += blank;
        &rest[blank..]
    }

    pub(super) fn at_end(&mut self) -> bool {
        self.rest().is_empty()
    }

    pub(super) fn sees(&mut self, byte: u8) -> bool {
        self.rest().first() == Some(&byte)
    }

    /// Takes the byte if it comes next.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let seen = self.sees(byte);
        self.position += usize::from(seen);
        seen
    }

    pub(super) fn require(&mut self, byte: u8, name: &'static str) -> Result<(), GtidError> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.expected(name))
        }
    }

    pub(super) fn end(&mut self) -> Result<(), GtidError> {
        if self.at_end() {
            Ok(())
        } else {
            Err(self.expected("the end"))
        }
    }

    /// A UUID of 36 characters.
    pub(super) fn uuid(&mut self) -> Result<Uuid, GtidError> {
        const LENGTH: usize = uuid::fmt::Hyphenated::LENGTH;
        let found = self
            .rest()
            .get(..LENGTH)
            .and_then(|bytes| Uuid::try_parse_ascii(bytes).ok());
        match found {
            Some(uuid) => {
                self.position += LENGTH;
                Ok(uuid)
            }
            None => Err(self.expected("a UUID")),
        }
    }

    /// A tag, or nothing if something else comes.
    pub(super) fn tag(&mut self) -> Result<Option<Tag>, GtidError> {
        let rest = self.rest();
        if !rest
            .first()
            .is_some_and(|&b| b.is_ascii_alphabetic() || b == b'_')
        {
            return Ok(None);
        }
        let length = rest
            .iter()
            .take_while(|&&b| b.is_ascii_alphanumeric() || b == b'_')
            .count();
        // Only ASCII was counted, so this is a border of characters.
        let tag = Tag::new(&self.text[self.position..self.position + length])
            .map_err(|_| self.expected("a tag of at most 32 characters"))?;
        self.position += length;
        Ok(Some(tag))
    }

    /// A transaction number of an interval's start.
    pub(super) fn positive_gno(&mut self) -> Result<u64, GtidError> {
        let before = self.position;
        match self.gno()? {
            0 => {
                self.position = before;
                Err(self.expected("a transaction number from 1"))
            }
            gno => Ok(gno),
        }
    }

    /// A transaction number or 0, which an interval's end may be.
    pub(super) fn gno(&mut self) -> Result<u64, GtidError> {
        let rest = self.rest();
        let length = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if length == 0 {
            return Err(self.expected("a transaction number"));
        }
        if length > 1 && rest[0] == b'0' {
            return Err(self.expected("a transaction number without leading zeros"));
        }
        let gno = self.text[self.position..self.position + length]
            .parse()
            .ok()
            .filter(|&gno| gno <= MAX_GNO)
            .ok_or_else(|| self.expected("a transaction number up to 9223372036854775806"))?;
        self.position += length;
        Ok(gno)
    }

    /// The error that something else should have come here.
    pub(super) fn expected(&self, expected: &'static str) -> GtidError {
        const BEFORE: usize = 50;
        const AFTER: usize = 40;
        // The position is a border: all that was taken so far is ASCII.
        let position = self.text[..self.position].chars().count();
        let skipped = position.saturating_sub(BEFORE);
        let mut text: String = self
            .text
            .chars()
            .skip(skipped)
            .take(BEFORE + AFTER)
            .collect();
        if skipped > 0 {
            text.insert_str(0, "...");
        }
        GtidError::Text {
            expected,
            position: position + 1,
            text,
        }
    }
}

/// White space of MySQL's latin1 and utf8 `my_isspace`.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}
