//! Row events of made-up statements, kept, renamed and left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::mysql::binlog::testing::{SourceLog, Work};

/// The events of one statement that writes to `a.t` and `b.u`, as a source sends them.
fn events(tables: Vec<(&'static str, Vec<u8>)>) -> Vec<Vec<u8>> {
    let gtid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1"
        .parse()
        .expect("a GTID");
    SourceLog::new(Checksum::Crc32, 7).transaction(&gtid, (1, 1), &Work::Rows(tables))
}

fn with_end(event: &[u8], is_end: bool) -> Vec<u8> {
    let mut event = event.to_vec();
    event[HEADER_LENGTH + 6] = u8::from(is_end);
    event
}

/// The tables and rows events of a BINLOG statement, and whether each ends a statement.
fn said(statement: &[u8]) -> Vec<String> {
    let text = statement
        .strip_prefix(b"BINLOG '")
        .and_then(|rest| rest.strip_suffix(b"'"))
        .expect("a BINLOG statement");
    let bytes = STANDARD.decode(text).expect("base64");
    let mut rest = &bytes[..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let event = RawEvent::first_of(rest).expect("whole events");
        found.push(match event.kind() {
            EventKind::TABLE_MAP => {
                let (_, schema, table) = event.table_map(Checksum::None).expect("a map");
                let text = String::from_utf8_lossy;
                format!("{}.{}", text(schema), text(table))
            }
            _ => format!("rows {}", event.bytes()[HEADER_LENGTH + 6] & 1),
        });
        rest = &rest[event.bytes().len()..];
    }
    found
}

fn to_staging(schema: &str, table: &str) -> Option<Staged> {
    (schema == "a").then(|| Staged {
        schema: "quillback_staged_a".to_owned(),
        table: table.to_owned(),
        unchecked: false,
    })
}

fn take(kept: &mut KeptRows, event: &[u8]) -> Taken {
    let event = RawEvent::new(event).expect("well formed");
    match event.kind() {
        EventKind::TABLE_MAP => {
            kept.map(&event, Checksum::Crc32, to_staging)
                .expect("a good map");
            Taken::Nothing
        }
        _ => kept.rows(&event, Checksum::Crc32).expect("good rows"),
    }
}

fn of(events: &[Vec<u8>], kind: EventKind, at: usize) -> &[u8] {
    let mut found = events.iter().filter(|event| event[4] == kind.0);
    found.nth(at).expect("it has one")
}

#[test]
fn the_last_event_that_is_kept_ends_the_statement() {
    let all = events(vec![("a.t", vec![1; 20]), ("b.u", vec![2; 30])]);
    let kind = EventKind::TABLE_MAP;
    let (followed, other) = (of(&all, kind, 0), of(&all, kind, 1));
    let rows = |at, is_end| with_end(of(&all, EventKind::WRITE_ROWS, at), is_end);
    for (first, last) in [(0, 1), (1, 0)] {
        let mut kept = KeptRows::default();
        take(&mut kept, followed);
        take(&mut kept, other);
        let before = take(&mut kept, &rows(first, false));
        assert_eq!(before == Taken::Kept, first == 0);
        assert_eq!(take(&mut kept, &rows(last, true)), Taken::Say);
        let statements = kept.take();
        assert_eq!(said(&statements[0]), ["quillback_staged_a.t", "rows 1"]);
        // The next statement of the transaction has maps of its own.
        assert!(kept.is_empty());
        assert_eq!(take(&mut kept, &rows(0, true)), Taken::Nothing);
    }
}

#[test]
fn a_statement_without_a_followed_table_says_nothing() {
    let all = events(vec![("b.u", vec![2; 30])]);
    let mut kept = KeptRows::default();
    take(&mut kept, of(&all, EventKind::TABLE_MAP, 0));
    let rows = with_end(of(&all, EventKind::WRITE_ROWS, 0), true);
    assert_eq!(take(&mut kept, &rows), Taken::Nothing);
    assert!(kept.is_empty());
}

#[test]
fn what_was_said_in_pieces_is_not_ended_twice() {
    let all = events(vec![("a.t", vec![1; 1_100_000]), ("b.u", vec![2; 30])]);
    let mut kept = KeptRows::default();
    take(&mut kept, of(&all, EventKind::TABLE_MAP, 0));
    take(&mut kept, of(&all, EventKind::TABLE_MAP, 1));
    let large = with_end(of(&all, EventKind::WRITE_ROWS, 0), false);
    assert_eq!(take(&mut kept, &large), Taken::Say);
    assert_eq!(said(&kept.take()[0]), ["quillback_staged_a.t", "rows 1"]);
    let last = with_end(of(&all, EventKind::WRITE_ROWS, 1), true);
    assert_eq!(take(&mut kept, &last), Taken::Nothing);
    assert!(kept.is_empty());
}

#[test]
fn rows_of_a_table_whose_parent_is_not_there_go_unchecked() {
    let all = events(vec![("a.t", vec![1; 20])]);
    let map = RawEvent::new(of(&all, EventKind::TABLE_MAP, 0)).expect("well formed");
    let rows = of(&all, EventKind::WRITE_ROWS, 0);
    for (kind, flags) in [
        (EventKind::WRITE_ROWS, 3),
        (EventKind::UPDATE_ROWS, 3),
        (EventKind::DELETE_ROWS, 1),
    ] {
        let mut kept = KeptRows::default();
        let place = |schema: &str, table: &str| {
            Some(Staged {
                unchecked: true,
                ..to_staging(schema, table)?
            })
        };
        kept.map(&map, Checksum::Crc32, place).expect("a good map");
        let mut event = with_end(rows, true);
        event[4] = kind.0;
        assert_eq!(take(&mut kept, &event), Taken::Say);
        let text = kept.take().pop().expect("a statement");
        let text = text.strip_prefix(b"BINLOG '").expect("a BINLOG statement");
        let bytes = STANDARD.decode(&text[..text.len() - 1]).expect("base64");
        let map = RawEvent::first_of(&bytes).expect("a map").bytes().len();
        assert_eq!(bytes[map + FLAGS_AT], flags, "{kind}");
    }
}

#[test]
fn a_map_keeps_all_but_its_names() {
    let all = events(vec![("a.t", vec![1; 20])]);
    let map = RawEvent::new(of(&all, EventKind::TABLE_MAP, 0)).expect("well formed");
    let long = "s".repeat(64);
    let new = renamed(&map, Checksum::Crc32, (b"a", b"t"), (&long, "tt")).expect("renamed");
    let new = RawEvent::new(&new).expect("its length is right");
    let (id, schema, table) = new.table_map(Checksum::None).expect("a map");
    let before = map.table_map(Checksum::Crc32).expect("a map");
    assert_eq!((id, schema, table), (before.0, long.as_bytes(), &b"tt"[..]));
    let tail = |event: &RawEvent<'_>, checksum, names: usize| {
        event.body(checksum).expect("a body")[BEFORE_NAMES + names + 4..].to_vec()
    };
    assert_eq!(
        tail(&map, Checksum::Crc32, 2),
        tail(&new, Checksum::None, 66)
    );
    assert!(renamed(&map, Checksum::Crc32, (b"a", b"t"), (&"x".repeat(300), "t")).is_err());
}
