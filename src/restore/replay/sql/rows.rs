//! Row events as `BINLOG` statements.
//!
//! A `BINLOG` statement needs the maps of its tables and ends with an event that ends a statement,
//! but nothing says that it must be the source's whole statement: so many rows go in several, each with
//! the maps again, and memory holds one piece. Events go without checksums, since some have none
//! (those of a compressed transaction) and the FORMAT_DESCRIPTION before them promises one way for all.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::mysql::binlog::{Checksum, EventKind, HEADER_LENGTH, RawEvent};

/// A statement is sent when its events have so many bytes.
const PIECE: usize = 1 << 20;
/// The largest statement that a server takes, with room for the words around it.
const STATEMENT_MAX: usize = (1 << 30) - 1024;
/// Where a rows event's flags are, behind the table's number.
const ROWS_FLAGS_AT: usize = HEADER_LENGTH + 6;
/// `STMT_END_F`.
const STATEMENT_END: u8 = 1;
/// Where the length is in an event's header.
const LENGTH_AT: usize = 9;

/// The rows events that have come and not been sent.
#[derive(Debug, Default)]
pub(in crate::restore) struct Rows {
    /// The statement's text, if the source wrote it down.
    query: Vec<u8>,
    /// The maps of the statement's tables.
    maps: Vec<u8>,
    /// Rows events.
    events: Vec<u8>,
    /// Where the last one begins.
    last: usize,
}

impl Rows {
    /// Takes the statement's text (ROWS_QUERY), which stands before its tables.
    pub(in crate::restore) fn query(&mut self, event: &RawEvent<'_>, checksum: Checksum) {
        self.query.clear();
        push_plain(event, checksum, &mut self.query);
    }

    /// Takes the map of a table.
    pub(in crate::restore) fn map(&mut self, event: &RawEvent<'_>, checksum: Checksum) {
        push_plain(event, checksum, &mut self.maps);
    }

    /// Takes rows; whether it is time to send.
    pub(in crate::restore) fn rows(&mut self, event: &RawEvent<'_>, checksum: Checksum) -> bool {
        self.last = self.events.len();
        push_plain(event, checksum, &mut self.events);
        self.ends() || self.events.len() >= PIECE
    }

    /// Says that the source's statement ends here, though the event that ends it is none of these.
    pub(in crate::restore) fn end_statement(&mut self) {
        if self.events.is_empty() {
            self.maps.clear();
            self.query.clear();
        } else if let Some(flags) = self.events.get_mut(self.last + ROWS_FLAGS_AT) {
            *flags |= STATEMENT_END;
        }
    }

    /// Whether the last event ends the source's statement.
    fn ends(&self) -> bool {
        self.events
            .get(self.last + ROWS_FLAGS_AT)
            .is_some_and(|flags| flags & STATEMENT_END != 0)
    }

    /// Whether nothing waits.
    pub(in crate::restore) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The statements that make the server do what waits, ready to be sent one by one or together.
    pub(in crate::restore) fn take(&mut self) -> Vec<Vec<u8>> {
        let ends = self.ends();
        if let Some(flags) = self.events.get_mut(self.last + ROWS_FLAGS_AT) {
            *flags |= STATEMENT_END;
        }
        let mut all = std::mem::take(&mut self.query);
        all.extend_from_slice(&self.maps);
        all.append(&mut self.events);
        self.last = 0;
        if ends {
            self.maps.clear();
        }
        if all.len() > 4 * PIECE {
            // One huge row must not keep its memory.
            self.events.shrink_to(PIECE);
        }
        statements(&all, STATEMENT_MAX)
    }
}

/// A `BINLOG` statement, or several with variables if its text would be too long for one.
pub(in crate::restore) fn statements(events: &[u8], limit: usize) -> Vec<Vec<u8>> {
    let encoded = STANDARD.encode(events).into_bytes();
    if encoded.len() <= limit {
        return vec![[b"BINLOG '", &encoded[..], b"'"].concat()];
    }
    let (first, second) = encoded.split_at(encoded.len() / 2);
    vec![
        [b"SET @quillback_1 = '", first, b"'"].concat(),
        [b"SET @quillback_2 = '", second, b"'"].concat(),
        b"BINLOG @quillback_1, @quillback_2".to_vec(),
    ]
}

/// A FORMAT_DESCRIPTION event that promises events without checksums.
pub(in crate::restore) fn format_without_checksums(event: &[u8]) -> Option<Vec<u8>> {
    let mut plain = event.to_vec();
    let (covered, crc) = plain.split_last_chunk_mut::<4>()?;
    *covered.last_mut()? = 0;
    *crc = crc32fast::hash(covered).to_le_bytes();
    Some(plain)
}

/// Whether the event holds rows.
pub(in crate::restore) fn is_rows(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::WRITE_ROWS
            | EventKind::UPDATE_ROWS
            | EventKind::DELETE_ROWS
            | EventKind::PARTIAL_UPDATE_ROWS
    )
}

fn push_plain(event: &RawEvent<'_>, checksum: Checksum, out: &mut Vec<u8>) {
    let at = out.len();
    let bytes = event.bytes();
    let length = bytes.len().saturating_sub(checksum.length());
    out.extend_from_slice(&bytes[..length]);
    if let (Some(field), Ok(length)) = (
        out.get_mut(at + LENGTH_AT..at + LENGTH_AT + 4),
        u32::try_from(length),
    ) {
        field.copy_from_slice(&length.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::binlog::testing::{SourceLog, Work};

    fn decode(statement: &[u8]) -> Vec<u8> {
        let text = statement
            .strip_prefix(b"BINLOG '")
            .and_then(|rest| rest.strip_suffix(b"'"))
            .expect("a BINLOG statement");
        STANDARD.decode(text).expect("base64")
    }

    /// The kinds of the events of a statement, and whether each rows event ends a statement.
    fn parts(statement: &[u8]) -> Vec<(u8, bool)> {
        let bytes = decode(statement);
        let mut rest = &bytes[..];
        let mut out = Vec::new();
        while !rest.is_empty() {
            let event = RawEvent::first_of(rest).expect("whole events");
            let kind = event.kind();
            let ends = is_rows(kind) && event.bytes()[ROWS_FLAGS_AT] & STATEMENT_END != 0;
            out.push((kind.0, ends));
            rest = &rest[event.bytes().len()..];
        }
        out
    }

    #[test]
    fn many_rows_go_in_several_statements_each_with_the_maps() {
        let gtid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1"
            .parse()
            .expect("a GTID");
        let work = Work::Rows(vec![("a.t", vec![1; 700_000])]);
        let events = SourceLog::new(Checksum::Crc32, 7).transaction(&gtid, (1, 1), &work);
        let of = |kind: EventKind| {
            let bytes = events
                .iter()
                .find(|bytes| bytes[4] == kind.0)
                .expect("it has one");
            RawEvent::new(bytes).expect("well formed")
        };
        let (map, rows) = (of(EventKind::TABLE_MAP), of(EventKind::WRITE_ROWS));
        let mut open = rows.bytes().to_vec();
        open[ROWS_FLAGS_AT] &= !STATEMENT_END;
        let open = RawEvent::new(&open).expect("well formed");
        let mut closing = rows.bytes().to_vec();
        closing[ROWS_FLAGS_AT] |= STATEMENT_END;
        let closing = RawEvent::new(&closing).expect("well formed");

        let mut waiting = Rows::default();
        waiting.map(&map, Checksum::Crc32);
        assert!(!waiting.rows(&open, Checksum::Crc32));
        assert!(waiting.rows(&open, Checksum::Crc32));
        let first = waiting.take();
        assert!(waiting.is_empty());
        let (table, write) = (EventKind::TABLE_MAP.0, EventKind::WRITE_ROWS.0);
        assert_eq!(
            parts(&first[0]),
            [(table, false), (write, false), (write, true)]
        );
        assert!(waiting.rows(&closing, Checksum::Crc32));
        let second = waiting.take();
        assert_eq!(parts(&second[0]), [(table, false), (write, true)]);
        // The next statement has maps of its own.
        waiting.map(&map, Checksum::Crc32);
        assert!(waiting.rows(&closing, Checksum::Crc32));
        assert_eq!(parts(&waiting.take()[0]).len(), 2);
    }

    #[test]
    fn what_is_too_long_for_a_statement_goes_by_variables() {
        let events: Vec<u8> = (0..=255).collect();
        assert_eq!(statements(&events, 400).len(), 1);
        let pieces = statements(&events, 200);
        assert_eq!(pieces.len(), 3);
        let text = |piece: &[u8]| {
            let text = String::from_utf8(piece.to_vec()).expect("ASCII");
            text.split('\'').nth(1).expect("a literal").to_owned()
        };
        let whole = text(&pieces[0]) + &text(&pieces[1]);
        assert_eq!(STANDARD.decode(whole).expect("base64"), events);
        assert_eq!(pieces[2], b"BINLOG @quillback_1, @quillback_2");
    }
}
