//! Bytes that a server could send, and bytes that none would.

use proptest::prelude::*;

use super::super::event::{Checksum, EventKind, RawEvent};
use super::super::summary::Operation;
use super::column::kind;
use super::*;
use crate::mysql::binlog::testing::SourceLog;
use crate::mysql::wire::packet::{put_lenenc, put_lenenc_bytes};

/// A TABLE_MAP event of table 7, `d.t`, with these columns and these fields behind them.
fn map(columns: &[(u8, Vec<u8>)], fields: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0];
    for text in ["d", "t"] {
        put_lenenc_bytes(text.as_bytes(), &mut body);
        body.push(0);
    }
    put_lenenc(columns.len() as u64, &mut body);
    body.extend(columns.iter().map(|(kind, _)| kind));
    let metadata: Vec<u8> = columns.iter().flat_map(|(_, meta)| meta.clone()).collect();
    put_lenenc_bytes(&metadata, &mut body);
    body.extend(vec![0xff; columns.len().div_ceil(8)]);
    for (field, value) in fields {
        body.push(*field);
        put_lenenc_bytes(value, &mut body);
    }
    SourceLog::new(Checksum::None, 1).event(1, &(EventKind::TABLE_MAP, body))
}

/// A rows event of table 7.
fn rows(kind: EventKind, width: usize, bitmaps: &[u8], data: &[u8]) -> Vec<u8> {
    let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0, 2, 0];
    put_lenenc(width as u64, &mut body);
    body.extend_from_slice(bitmaps);
    body.extend_from_slice(data);
    SourceLog::new(Checksum::None, 1).event(1, &(kind, body))
}

fn table(event: &[u8]) -> TableMap {
    let event = RawEvent::new(event).expect("well formed");
    TableMap::parse(&event, Checksum::None).expect("a table")
}

/// The values of all rows, as they are shown.
fn shown(table: &TableMap, event: &[u8]) -> Vec<String> {
    let event = RawEvent::new(event).expect("well formed");
    let event = RowsEvent::parse(&event, Checksum::None).expect("rows");
    let event = event.expect("rows");
    let mut lines = Vec::new();
    for row in event.rows(table) {
        let row = row.expect("a row");
        for (mark, image) in [("-", row.before), ("+", row.after)] {
            for (number, value) in image.unwrap_or_default() {
                let column = table.column(number);
                lines.push(format!("{mark}{column}={}", value.show(&column, 100).text));
            }
        }
    }
    assert_eq!(
        event.count(&table.layout),
        Ok(event.rows(table).count() as u64)
    );
    lines
}

#[test]
fn an_update_has_two_images_with_columns_of_their_own() {
    let columns = [
        (kind::LONG, vec![]),
        (kind::VARCHAR, vec![100, 0]),
        (kind::LONGLONG, vec![]),
    ];
    // The second number has no sign; utf8mb4; names.
    let fields = [
        (1, vec![0b0100_0000]),
        (2, vec![255_u8 - 210]),
        (4, b"\x02id\x04name\x01n".to_vec()),
    ];
    let table = table(&map(&columns, &fields));
    assert_eq!(table.name(), "d.t");
    // Before: id. After: name and n, n is NULL.
    let data = [&[0b0][..], &[1, 0, 0, 0], &[0b10], &[3], b"a'b"].concat();
    let event = rows(EventKind::UPDATE_ROWS, 3, &[0b001, 0b110], &data);
    assert_eq!(shown(&table, &event), ["-id=1", "+name='a\\'b'", "+n=NULL"]);
    let data = [&[0b0][..], &[0xff; 4], &[0b00], &[0], &[0xff; 8]].concat();
    let event = rows(EventKind::UPDATE_ROWS, 3, &[0b001, 0b110], &data.repeat(2));
    let once = ["-id=-1", "+name=''", "+n=18446744073709551615"];
    assert_eq!(shown(&table, &event), [once, once].concat());
}

#[test]
fn words_of_enum_and_set_are_shown_where_they_are_told() {
    let columns = [
        (kind::STRING, vec![kind::ENUM, 1]),
        (kind::STRING, vec![kind::SET, 1]),
    ];
    let plain = table(&map(&columns, &[]));
    let event = rows(EventKind::WRITE_ROWS, 2, &[0b11], &[0, 2, 0b101]);
    assert_eq!(shown(&plain, &event), ["+@1=2", "+@2=b'00000101'"]);
    let fields = [
        (10, vec![45]),
        (6, b"\x02\x01a\x02\xc5\xbc".to_vec()),
        (5, b"\x03\x01x\x01y\x01z".to_vec()),
    ];
    let told = table(&map(&columns, &fields));
    assert_eq!(shown(&told, &event), ["+@1='ż'", "+@2='x,z'"]);
    // The error value of an ENUM is no word.
    let event = rows(EventKind::WRITE_ROWS, 2, &[0b11], &[0, 0, 0]);
    assert_eq!(shown(&told, &event), ["+@1=0", "+@2=''"]);
}

#[test]
fn changes_of_json_are_calls() {
    let columns = [(kind::JSON, vec![4]), (kind::JSON, vec![4])];
    let table = table(&map(&columns, &[]));
    let mut change = vec![0];
    put_lenenc_bytes(b"$.a", &mut change);
    put_lenenc_bytes(&[5, 7, 0], &mut change);
    change.push(2);
    put_lenenc_bytes(b"$[1]", &mut change);
    let mut data = vec![0b00, 0, 0, 0, 0, 0, 0, 0, 0];
    // The second column is logged as changes; the first as a whole.
    data.extend_from_slice(&[1, 0b10, 0b00, 3, 0, 0, 0, 5, 9, 0]);
    data.extend_from_slice(&(change.len() as u32).to_le_bytes());
    data.extend_from_slice(&change);
    let event = rows(EventKind::PARTIAL_UPDATE_ROWS, 2, &[0b11, 0b11], &data);
    assert_eq!(
        shown(&table, &event),
        [
            "-@1='null'",
            "-@2='null'",
            "+@1='9'",
            "+@2=JSON_REMOVE(JSON_REPLACE(@2, '$.a', 7), '$[1]')"
        ]
    );
}

#[test]
fn long_values_are_cut_between_characters() {
    let columns = [(kind::BLOB, vec![2])];
    let table = table(&map(&columns, &[(2, vec![45])]));
    let text = "ż".repeat(300);
    let mut data = vec![0];
    data.extend_from_slice(&600_u16.to_le_bytes());
    data.extend_from_slice(text.as_bytes());
    let event = rows(EventKind::WRITE_ROWS, 1, &[1], &data);
    let event = RawEvent::new(&event).expect("well formed");
    let event = RowsEvent::parse(&event, Checksum::None).expect("rows");
    let row = event.expect("rows").rows(&table).next().expect("one");
    let image = row.expect("a row").after.expect("an image");
    let cut = image[0].1.show("@1", 101);
    assert_eq!((cut.text.chars().count(), cut.cut_of), (52, Some(600)));
    assert_eq!(image[0].1.show("@1", 600).cut_of, None);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let table = table(&map(&[(kind::LONG, vec![])], &[]));
    for (bitmaps, data) in [
        // Half a value; a row without a byte.
        (&[1][..], &[0, 1, 2][..]),
        (&[0][..], &[1][..]),
    ] {
        let event = rows(EventKind::WRITE_ROWS, 1, bitmaps, data);
        let event = RawEvent::new(&event).expect("well formed");
        let event = RowsEvent::parse(&event, Checksum::None).expect("rows");
        let event = event.expect("rows");
        assert!(event.count(&table.layout).is_err(), "{data:?}");
        assert!(event.rows(&table).any(|row| row.is_err()), "{data:?}");
    }
    let event = rows(EventKind::WRITE_ROWS, 2, &[3], &[0; 9]);
    let event = RawEvent::new(&event).expect("well formed");
    let event = RowsEvent::parse(&event, Checksum::None).expect("rows");
    assert!(event.expect("rows").count(&table.layout).is_err());
    for columns in [[(99, vec![])], [(kind::TIME2, vec![7])]] {
        let event = map(&columns, &[]);
        let event = RawEvent::new(&event).expect("well formed");
        assert!(TableMap::parse(&event, Checksum::None).is_err());
    }
    assert_eq!(Operation::of(EventKind::QUERY), None);
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(
        columns in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..4)), 0..6),
        fields in prop::collection::vec((0..14_u8, prop::collection::vec(any::<u8>(), 0..20)), 0..4),
        event in 0..4_usize,
        bitmaps in prop::collection::vec(any::<u8>(), 0..3),
        data in prop::collection::vec(any::<u8>(), 0..120),
        limit in 0..40_usize,
    ) {
        let bytes = map(&columns, &fields);
        let parsed = RawEvent::new(&bytes).expect("well formed");
        let kinds = [
            EventKind::WRITE_ROWS,
            EventKind::UPDATE_ROWS,
            EventKind::PARTIAL_UPDATE_ROWS,
            EventKind::DELETE_ROWS_V1,
        ];
        let bytes = rows(kinds[event], columns.len(), &bitmaps, &data);
        let event = RawEvent::new(&bytes).expect("well formed");
        let event = RowsEvent::parse(&event, Checksum::None);
        if let (Ok(table), Ok(Some(event))) = (TableMap::parse(&parsed, Checksum::None), event) {
            let _ = event.count(&table.layout);
            for row in event.rows(&table).flatten() {
                for (number, value) in row.before.iter().chain(&row.after).flatten() {
                    let _ = value.show(&table.column(*number), limit);
                }
            }
        }
    }

    /// Every type that there is, with data that mostly fits.
    #[test]
    fn values_of_every_type_are_shown(
        number in 0..32_usize,
        meta in any::<[u8; 2]>(),
        data in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let kinds: [(u8, usize); 32] = [
            (1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 0), (7, 0), (8, 0), (9, 0), (10, 0), (11, 0),
            (12, 0), (13, 0), (14, 0), (15, 2), (16, 2), (17, 1), (18, 1), (19, 1), (242, 1), (245, 1),
            (246, 2), (247, 2), (248, 2), (249, 1), (250, 1), (251, 1), (252, 1), (253, 2), (254, 2),
            (255, 1), (1, 0),
        ];
        let (kind, size) = kinds[number];
        let meta = match size {
            1 => vec![meta[0] % 5],
            size => meta[..size].to_vec(),
        };
        let bytes = map(&[(kind, meta)], &[]);
        let parsed = RawEvent::new(&bytes).expect("well formed");
        if let Ok(table) = TableMap::parse(&parsed, Checksum::None) {
            let bytes = rows(EventKind::WRITE_ROWS, 1, &[1], &[&[0][..], &data].concat());
            let event = RawEvent::new(&bytes).expect("well formed");
            let event = RowsEvent::parse(&event, Checksum::None).expect("rows").expect("rows");
            for row in event.rows(&table).flatten() {
                for (_, value) in row.after.iter().flatten() {
                    let _ = value.show("@1", 30);
                }
            }
        }
    }
}
