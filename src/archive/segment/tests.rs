//! Segments there and back, damaged, cut and forged.

use std::io::Read as _;
use std::sync::LazyLock;

use bytes::Bytes;
use chrono::DateTime;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::archive::hash::sha256;
use crate::archive::layout::{BranchNumber, Epoch};
use crate::clock::from_micros;
use crate::gtid::GtidSet;
use crate::mysql::binlog::testing::{SourceLog, Work};
use crate::mysql::binlog::{Checksum, GtidEvent, RawEvent, SummaryBuilder};

const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

/// A draft with these transactions, and the binlog file that it should become.
fn draft(checksum: Checksum, works: &[Work]) -> (Draft, Vec<u8>) {
    let mut log = SourceLog::new(checksum, 7);
    let format = log.format_description("8.4.6");
    let before: GtidSet = format!("{UUID}:1-5:tag:2").parse().expect("a set");
    let mut draft = Draft::begin(
        (BranchNumber(1), Epoch(2), 3),
        before.clone(),
        checksum,
        &format,
    );
    draft.source = Some((
        Uuid::from_u128(9),
        "8.4.6".to_owned(),
        "binlog.000001".to_owned(),
    ));
    draft.previous = Some(sha256(b"before"));
    let mut raw = b"\xfebin".to_vec();
    raw.extend_from_slice(&format);
    raw.extend_from_slice(
        &crate::mysql::binlog::EventBuilder::new(checksum, 7).previous_gtids(
            &before,
            1,
            raw.len() as u64,
        ),
    );
    for (number, work) in works.iter().enumerate() {
        let gtid = format!("{UUID}:{}", number + 6).parse().expect("a GTID");
        let micros = 1_795_000_000_000_000 + number as u64;
        let events = log.transaction(&gtid, (micros, micros), work);
        let first = RawEvent::new(&events[0]).expect("an event");
        let first = GtidEvent::parse(&first, checksum).expect("a GTID event");
        let mut summary = SummaryBuilder::begin(&first);
        for event in &events {
            raw.extend_from_slice(event);
            draft.push_event(event, 7);
            let event = RawEvent::new(event).expect("an event");
            summary.take(&event, checksum).expect("a summary");
        }
        let line = IndexedTransaction {
            gtid,
            time: from_micros(micros).expect("in range"),
            original_time: None,
            server_id: 7,
            bytes: first.transaction_length,
            summary: summary.finish(),
        };
        draft.complete(&line).expect("a line");
    }
    (draft, raw)
}

fn works() -> Vec<Work> {
    vec![
        Work::Rows(vec![("shop.page", vec![1, 2, 3])]),
        Work::Statement("shop", "DROP TABLE page".to_owned()),
    ]
}

fn encode(draft: Draft) -> EncodedSegment {
    let time = DateTime::from_timestamp_micros(1_795_000_001_000_000).expect("in range");
    draft.encode(3, Some(time), time).expect("encodes")
}

static SMALL: LazyLock<Bytes> =
    LazyLock::new(|| Bytes::from(encode(draft(Checksum::Crc32, &works()).0).bytes));

/// Everything that can be read of an object, or the first error.
fn read_all(object: &Bytes) -> Result<(Vec<u8>, Vec<IndexedTransaction>), SegmentError> {
    let segment = Segment::open(object)?;
    let details = segment.details()?;
    let mut raw = b"\xfebin".to_vec();
    let mut events = segment.events()?;
    while let Some(event) = events.next_event()? {
        raw.extend_from_slice(event.bytes());
    }
    Ok((raw, details))
}

/// Puts an object together from an index and what stands behind it, with digests that fit.
fn forge(mut index: Value, data: &[u8], lines: &[u8]) -> Bytes {
    let frame = |magic: [u8; 4], content: &[u8]| {
        let mut frame = magic.to_vec();
        frame.extend_from_slice(&u32::try_from(content.len()).expect("small").to_le_bytes());
        frame.extend_from_slice(content);
        frame
    };
    let details = frame(DETAILS_MAGIC, lines);
    let body = [data, &details].concat();
    index["body_bytes"] = json!(body.len());
    index["body_sha256"] = json!(sha256(&body));
    index["details_bytes"] = json!(details.len());
    index["details_sha256"] = json!(sha256(&details));
    let mut content = SIGNATURE.to_vec();
    content.extend(serde_json::to_vec(&index).expect("JSON"));
    let digest = sha256(&content);
    content.extend_from_slice(digest.as_bytes());
    let mut object = frame(INDEX_MAGIC, &content);
    object.extend_from_slice(&body);
    Bytes::from(object)
}

/// The index, the compressed file and the compressed lines of an object.
fn parts(object: &Bytes) -> (Value, Vec<u8>, Vec<u8>) {
    let segment = Segment::open(object).expect("opens");
    let index = serde_json::to_value(segment.index()).expect("JSON");
    let details = segment.index().details_bytes as usize;
    let body = object.len() - segment.index().body_bytes as usize;
    let data = object[body..object.len() - details].to_vec();
    let lines = object[object.len() - details + 8..].to_vec();
    (index, data, lines)
}

#[test]
fn what_was_put_in_comes_out() {
    let large = vec![7; 300_000];
    let all = [
        Work::Rows(vec![("a.t", vec![1, 2]), ("b.u", large)]),
        Work::Payload(vec![("a.t", vec![9; 1000])], true),
        Work::Statement("shop", "CREATE TABLE t (n INT)".to_owned()),
        Work::XaPrepare(vec![("a.t", vec![])]),
        Work::Empty,
    ];
    for checksum in [Checksum::None, Checksum::Crc32] {
        for works in [&all[..], &all[..1], &[]] {
            let (draft, raw) = draft(checksum, works);
            assert_eq!(draft.is_empty(), works.is_empty());
            let encoded = encode(draft);
            let object = Bytes::from(encoded.bytes);
            let (read, details) = read_all(&object).expect("whole");
            assert!(read == raw);
            assert_eq!(details.len(), works.len());
            let segment = Segment::open(&object).expect("opens");
            assert_eq!(*segment.index(), encoded.index);
            assert_eq!(*segment.sha256(), encoded.sha256);
            assert_eq!(*segment.sha256(), sha256(&object));
            assert_eq!(encoded.name.hash8, encoded.sha256.short());
            assert_eq!(encoded.index.raw_sha256, sha256(&raw));
            let after = encoded.index.after();
            assert_eq!(after.count(), 6 + works.len() as u128);
            // Without Quillback: any zstd reads the binlog file and skips the rest.
            let mut unpacked = Vec::new();
            zstd::stream::read::Decoder::with_buffer(&object[..])
                .and_then(|mut zstd| zstd.read_to_end(&mut unpacked))
                .expect("zstd reads it");
            assert!(unpacked == raw);
        }
    }
}

#[test]
fn the_index_tells_what_is_inside() {
    let segment = Segment::open(&SMALL).expect("opens");
    let index = segment.index();
    assert_eq!(index.tables, ["shop.page"]);
    assert!(index.statements);
    assert_eq!(index.transactions, 2);
    assert_eq!(index.added, format!("{UUID}:6-7").parse().expect("a set"));
    assert_eq!(index.first_commit, from_micros(1_795_000_000_000_000));
    assert_eq!(index.last_commit, from_micros(1_795_000_000_000_001));
    let details = segment.details().expect("lines");
    let ddl = &details[1].summary;
    assert_eq!(ddl.statement.as_deref(), Some("DROP TABLE page"));
    assert_eq!(ddl.schema.as_deref(), Some("shop"));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let whole = read_all(&SMALL).expect("whole");
    for bit in 0..SMALL.len() * 8 {
        let mut flipped = SMALL.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(read_all(&Bytes::from(flipped)).is_err(), "bit {bit}");
    }
    assert_eq!(read_all(&SMALL).expect("still whole"), whole);
}

#[test]
fn every_truncation_and_every_appended_byte_is_noticed() {
    for length in 0..SMALL.len() {
        assert!(read_all(&SMALL.slice(..length)).is_err(), "{length}");
    }
    for more in [0, 0xff] {
        let longer = [&SMALL[..], &[more]].concat();
        assert!(read_all(&Bytes::from(longer)).is_err());
    }
}

#[test]
fn the_head_asks_for_what_it_needs() {
    let HeadRead::Done(index, head) = read_head(&SMALL).expect("a head") else {
        panic!("the whole object is enough");
    };
    for length in 0..SMALL.len() as u64 {
        let read = read_head(&SMALL[..length as usize]).expect("a prefix");
        if length < head {
            let HeadRead::Needs(more) = read else {
                panic!("{length} bytes are not enough");
            };
            assert!(length < more && more <= head, "{length} asks for {more}");
        } else {
            assert_eq!(read, HeadRead::Done(index.clone(), head));
        }
    }
}

#[test]
fn the_lines_can_be_read_alone() {
    let segment = Segment::open(&SMALL).expect("opens");
    let index = segment.index();
    let start = SMALL.len() - index.details_bytes as usize;
    let lines = read_details(index, &SMALL.slice(start..)).expect("lines");
    assert_eq!(lines, segment.details().expect("lines"));
    assert!(read_details(index, &SMALL.slice(start + 1..)).is_err());
    assert!(read_details(index, &Bytes::new()).is_err());
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let (mut index, data, lines) = parts(&SMALL);
    assert!(read_all(&forge(index.clone(), &data, &lines)).is_ok());
    index["format"] = json!(FORMAT + 1);
    index["source"] = json!("what nobody knows yet");
    let error = read_all(&forge(index, &data, &lines)).expect_err("too new");
    assert!(matches!(error, SegmentError::TooNew { found } if found == FORMAT + 1));
    assert_eq!(error.class(), Class::NoArchive);
}

/// An index that lies about its data is found out although every digest fits.
#[test]
fn an_index_that_lies_is_noticed() {
    let (index, data, lines) = parts(&SMALL);
    for (field, lie) in [
        (
            "raw_bytes",
            json!(index["raw_bytes"].as_u64().expect("n") - 1),
        ),
        (
            "raw_bytes",
            json!(index["raw_bytes"].as_u64().expect("n") + 1),
        ),
        ("raw_bytes", json!(3)),
        ("raw_bytes", json!(u64::MAX)),
        ("raw_sha256", json!(sha256(b"other"))),
        ("transactions", json!(1)),
        ("transactions", json!(3)),
        ("transactions", json!(0)),
    ] {
        let mut lying = index.clone();
        lying[field] = lie.clone();
        let forged = forge(lying, &data, &lines);
        assert!(read_all(&forged).is_err(), "{field} {lie}");
    }
}

#[test]
fn what_unfolds_to_too_much_is_refused() {
    let (index, data, lines) = parts(&SMALL);
    let zeros = vec![0; 64 << 20];
    let bomb = zstd::bulk::compress(&zeros, 19).expect("compresses");
    assert!(bomb.len() < 64 << 10);
    assert!(read_all(&forge(index.clone(), &bomb, &lines)).is_err());
    assert!(read_all(&forge(index.clone(), &data, &bomb)).is_err());
    let empty_lines = zstd::bulk::compress(&vec![b'\n'; 64 << 20], 3).expect("compresses");
    assert!(read_all(&forge(index.clone(), &data, &empty_lines)).is_err());
    // The file's bytes twice: one frame behind the other.
    assert!(read_all(&forge(index.clone(), &data.repeat(2), &lines)).is_err());
    // An event that claims a gigabyte that does not come.
    let mut claims = b"\xfebin".to_vec();
    claims.extend_from_slice(&[0, 0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0, 0x40]);
    claims.extend_from_slice(&[0; 40]);
    let mut lying = index.clone();
    lying["raw_bytes"] = json!(1_u64 << 40);
    let compressed = zstd::bulk::compress(&claims, 3).expect("compresses");
    let error = read_all(&forge(lying, &compressed, &lines)).expect_err("too short");
    assert!(matches!(error, SegmentError::Truncated), "{error}");
    // A frame that wants a window of 256 MiB: magic, no sizes, window, one raw block.
    let mut wide = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, (28 - 10) << 3];
    wide.extend_from_slice(&[4 << 3 | 1, 0, 0]);
    wide.extend_from_slice(b"\xfebin");
    let error = read_all(&forge(index, &wide, &lines)).expect_err("too wide");
    assert!(matches!(error, SegmentError::Compression(_)), "{error}");
}

#[test]
fn an_index_that_no_reader_takes_is_not_written() {
    let (mut draft, _) = draft(Checksum::Crc32, &works());
    let tsid = UUID.parse().expect("an origin");
    for gno in 0..1_000_000_u64 {
        let gno = 1_000_000_000_000_000 + gno * 2;
        draft.before.insert_range(&tsid, gno..=gno);
    }
    let refused = draft.encode(1, None, DateTime::UNIX_EPOCH);
    assert!(matches!(refused, Err(SegmentError::IndexTooLarge { .. })));
}

proptest! {
    #[test]
    fn no_object_makes_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), signed: bool) {
        let object = if signed {
            let mut head = INDEX_MAGIC.to_vec();
            head.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            head.extend(bytes);
            Bytes::from(head)
        } else {
            Bytes::from(bytes)
        };
        let _ = read_head(&object);
        prop_assert!(read_all(&object).is_err());
    }

    #[test]
    fn no_forgery_makes_a_reader_panic(
        field in any::<prop::sample::Index>(),
        number in any::<u64>(),
        shape in 0..5_u8,
        data in prop::collection::vec(any::<u8>(), 0..200),
        keep_data: bool,
        compress: bool,
        lines in "\\PC{0,60}\n?",
        keep_lines: bool,
    ) {
        let (mut index, own_data, own_lines) = parts(&SMALL);
        let fields: Vec<String> = index.as_object().expect("an object").keys().cloned().collect();
        let field = &fields[field.index(fields.len())];
        index[field] = match shape {
            0 => index[field].clone(),
            1 => json!(number),
            2 => json!(number.to_string()),
            3 => Value::Null,
            _ => json!([]),
        };
        let data = match (keep_data, compress) {
            (true, _) => own_data,
            (false, false) => data,
            (false, true) => {
                let mut file = b"\xfebin".to_vec();
                file.extend(data);
                zstd::bulk::compress(&file, 1).expect("compresses")
            }
        };
        let lines = if keep_lines {
            own_lines
        } else {
            zstd::bulk::compress(lines.as_bytes(), 1).expect("compresses")
        };
        let _ = read_all(&forge(index, &data, &lines));
    }
}
