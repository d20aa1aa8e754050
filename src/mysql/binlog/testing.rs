//! Made-up but valid binlog events, for the tests of every room that reads some.
//!
//! [`SourceLog`] writes what a server would: positions go on within a file, every GTID event
//! knows its transaction's length, checksums fit. Layouts: "MySQL Source Code Documentation",
//! page "Binlog Event".

use mysql_common::binlog::events::GtidEvent as TaggedLayout;
use mysql_common::packets::Tag as WireTag;
use mysql_common::proto::MySerialize as _;

use super::event::{Checksum, EventKind, HEADER_LENGTH};
use super::{EventBuilder, MAGIC};
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::wire::packet::{put_lenenc, put_lenenc_bytes};

/// What an event is made of beside its header.
pub(crate) type Body = (EventKind, Vec<u8>);

/// What a transaction does.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Rows written to tables, each a row event with these bytes; ends in an XID.
    Rows(Vec<(&'static str, Vec<u8>)>),
    /// The same inside a TRANSACTION_PAYLOAD, compressed with zstd or not.
    Payload(Vec<(&'static str, Vec<u8>)>, bool),
    /// One statement that commits by itself.
    Statement(&'static str, String),
    /// Rows of a prepared XA transaction.
    XaPrepare(Vec<(&'static str, Vec<u8>)>),
    /// BEGIN and COMMIT, as a replica logs a transaction that was filtered out.
    Empty,
}

/// Writes the files of one server.
#[derive(Debug, Clone)]
pub(crate) struct SourceLog {
    pub(crate) checksum: Checksum,
    pub(crate) server_id: u32,
    position: u64,
    sequence: u64,
}

impl SourceLog {
    pub(crate) const fn new(checksum: Checksum, server_id: u32) -> Self {
        Self {
            checksum,
            server_id,
            position: MAGIC.len() as u64,
            sequence: 0,
        }
    }

    /// Goes on at a position of the file, as if all before it were there.
    pub(crate) const fn go_to(&mut self, position: u64) {
        self.position = position;
    }

    /// The events at a file's start as a dump sends them: the made-up ROTATE,
    /// FORMAT_DESCRIPTION, PREVIOUS_GTIDS. `announced` is how the ROTATE ends.
    pub(crate) fn open_file(
        &mut self,
        name: &str,
        previous: &GtidSet,
        announced: Checksum,
    ) -> Vec<Vec<u8>> {
        self.position = MAGIC.len() as u64;
        self.sequence = 0;
        let rotate = EventBuilder::new(announced, self.server_id).rotate(name, 4, 0);
        vec![
            rotate,
            self.format_description("8.4.6"),
            self.event(1, &(EventKind::PREVIOUS_GTIDS, previous.encode())),
        ]
    }

    /// The ROTATE at a file's end.
    pub(crate) fn close_file(&mut self, next: &str) -> Vec<u8> {
        let mut body = 4_u64.to_le_bytes().to_vec();
        body.extend_from_slice(next.as_bytes());
        self.event(1, &(EventKind::ROTATE, body))
    }

    /// A FORMAT_DESCRIPTION event, which has a CRC whatever the checksum of the others is.
    pub(crate) fn format_description(&mut self, version: &str) -> Vec<u8> {
        let mut body = 4_u16.to_le_bytes().to_vec();
        let mut text = version.as_bytes().to_vec();
        text.resize(50, 0);
        body.extend_from_slice(&text);
        body.extend_from_slice(&1_u32.to_le_bytes());
        body.push(HEADER_LENGTH as u8);
        // The fixed parts of the event types 1 to 42.
        body.extend_from_slice(&[
            0, 13, 0, 8, 0, 0, 0, 0, 4, 0, 4, 0, 0, 0, 99, 0, 4, 26, 8, 0, 0, 0, 8, 8, 8, 2, 0, 0,
            0, 10, 10, 10, 42, 42, 0, 18, 52, 0, 10, 40, 0, 0,
        ]);
        body.push(match self.checksum {
            Checksum::None => 0,
            Checksum::Crc32 => 1,
        });
        let log = Self {
            checksum: Checksum::Crc32,
            ..self.clone()
        };
        let event = log.at_position(1, &(EventKind::FORMAT_DESCRIPTION, body));
        self.position += event.len() as u64;
        event
    }

    /// A whole transaction, committed at `micros` here and at `original` where it began.
    pub(crate) fn transaction(
        &mut self,
        gtid: &Gtid,
        (micros, original): (u64, u64),
        work: &Work,
    ) -> Vec<Vec<u8>> {
        let bodies = bodies(work);
        let seconds = u32::try_from(micros / 1_000_000).unwrap_or(u32::MAX);
        let around = HEADER_LENGTH + self.checksum.length();
        let rest: usize = bodies.iter().map(|(_, body)| body.len() + around).sum();
        self.sequence += 1;
        let mut length = 0;
        let first = loop {
            let first = self.gtid_body(gtid, (micros, original), length);
            let total = (first.1.len() + around + rest) as u64;
            if total == length {
                break first;
            }
            length = total;
        };
        std::iter::once(&first)
            .chain(&bodies)
            .map(|body| self.event(seconds, body))
            .collect()
    }

    fn gtid_body(&self, gtid: &Gtid, (micros, original): (u64, u64), length: u64) -> Body {
        match &gtid.tsid.tag {
            None => {
                let mut body = vec![0];
                body.extend_from_slice(gtid.tsid.uuid.as_bytes());
                body.extend_from_slice(&gtid.gno.to_le_bytes());
                body.push(2);
                body.extend_from_slice(&(self.sequence - 1).to_le_bytes());
                body.extend_from_slice(&self.sequence.to_le_bytes());
                if original == micros {
                    body.extend_from_slice(&micros.to_le_bytes()[..7]);
                } else {
                    body.extend_from_slice(&(micros | 1 << 55).to_le_bytes()[..7]);
                    body.extend_from_slice(&original.to_le_bytes()[..7]);
                }
                put_lenenc(length, &mut body);
                body.extend_from_slice(&80_406_u32.to_le_bytes());
                (EventKind::GTID, body)
            }
            Some(tag) => {
                let tag = WireTag::new(tag.as_str().to_owned()).expect("a valid tag");
                let mut body = Vec::new();
                TaggedLayout::new_tagged(gtid.tsid.uuid.into_bytes(), tag, gtid.gno)
                    .with_last_committed(self.sequence - 1)
                    .with_sequence_number(self.sequence)
                    .with_immediate_commit_timestamp(micros)
                    .with_original_commit_timestamp(original)
                    .with_tx_length(length)
                    .with_immediate_server_version(80_406)
                    .with_original_server_version(80_406)
                    .serialize(&mut body);
                (EventKind::GTID_TAGGED, body)
            }
        }
    }

    /// An event at the present position of the file.
    pub(crate) fn event(&mut self, seconds: u32, body: &Body) -> Vec<u8> {
        let event = self.at_position(seconds, body);
        self.position += event.len() as u64;
        event
    }

    fn at_position(&self, seconds: u32, (kind, body): &Body) -> Vec<u8> {
        let length = HEADER_LENGTH + body.len() + self.checksum.length();
        let end = self.position + length as u64;
        let mut out = header(*kind, seconds, self.server_id, length, end);
        out.extend_from_slice(body);
        if self.checksum == Checksum::Crc32 {
            let crc = crc32fast::hash(&out);
            out.extend_from_slice(&crc.to_le_bytes());
        }
        out
    }
}

fn header(kind: EventKind, seconds: u32, server_id: u32, length: usize, end: u64) -> Vec<u8> {
    let mut out = seconds.to_le_bytes().to_vec();
    out.push(kind.0);
    out.extend_from_slice(&server_id.to_le_bytes());
    out.extend_from_slice(&(length as u64).to_le_bytes()[..4]);
    out.extend_from_slice(&end.to_le_bytes()[..4]);
    out.extend_from_slice(&[0, 0]);
    out
}

fn bodies(work: &Work) -> Vec<Body> {
    match work {
        Work::Statement(schema, text) => vec![query(schema, text)],
        Work::Empty => vec![query("", "BEGIN"), query("", "COMMIT")],
        Work::Rows(rows) => {
            let mut bodies = vec![query("", "BEGIN")];
            bodies.extend(row_bodies(rows));
            bodies.push(xid());
            bodies
        }
        Work::XaPrepare(rows) => {
            let mut bodies = vec![query("", "XA START X'61',X'',1")];
            bodies.extend(row_bodies(rows));
            bodies.push(query("", "XA END X'61',X'',1"));
            // Two phases, format 1, one byte of gtrid, none of bqual.
            bodies.push((
                EventKind::XA_PREPARE,
                vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a'],
            ));
            bodies
        }
        Work::Payload(rows, compressed) => vec![payload(rows, *compressed)],
    }
}

fn row_bodies(rows: &[(&'static str, Vec<u8>)]) -> Vec<Body> {
    let mut bodies = Vec::new();
    for (number, (table, bytes)) in rows.iter().enumerate() {
        let id = &(90 + number as u64).to_le_bytes()[..6];
        let (schema, name) = table.split_once('.').unwrap_or(("", table));
        let mut map = id.to_vec();
        map.extend_from_slice(&[1, 0]);
        for text in [schema, name] {
            put_lenenc_bytes(text.as_bytes(), &mut map);
            map.push(0);
        }
        // One BIGINT column without metadata, nullable.
        map.extend_from_slice(&[1, 8, 0, 1]);
        bodies.push((EventKind::TABLE_MAP, map));
        let mut event = id.to_vec();
        // STMT_END_F, no extra data, one column, present.
        event.extend_from_slice(&[1, 0, 2, 0, 1, 0xff]);
        event.extend_from_slice(bytes);
        bodies.push((EventKind::WRITE_ROWS, event));
    }
    bodies
}

fn query(schema: &str, text: &str) -> Body {
    let mut body = vec![7, 0, 0, 0, 0, 0, 0, 0];
    body.push(u8::try_from(schema.len()).expect("a short name"));
    // No error; two bytes of status variables (Q_FLAGS2_CODE is 0, with four bytes).
    body.extend_from_slice(&[0, 0, 5, 0, 0, 0, 0, 0, 0]);
    body.extend_from_slice(schema.as_bytes());
    body.push(0);
    body.extend_from_slice(text.as_bytes());
    (EventKind::QUERY, body)
}

fn xid() -> Body {
    (EventKind::XID, 77_u64.to_le_bytes().to_vec())
}

fn payload(rows: &[(&'static str, Vec<u8>)], compressed: bool) -> Body {
    let mut inner = Vec::new();
    let mut bodies = vec![query("", "BEGIN")];
    bodies.extend(row_bodies(rows));
    bodies.push(xid());
    for (kind, body) in bodies {
        inner.extend(header(kind, 1, 7, HEADER_LENGTH + body.len(), 0));
        inner.extend(body);
    }
    let data = if compressed {
        zstd::bulk::compress(&inner, 3).expect("compresses")
    } else {
        inner.clone()
    };
    let mut body = Vec::new();
    let mut field = |kind: u64, value: u64| {
        let mut encoded = Vec::new();
        put_lenenc(value, &mut encoded);
        put_lenenc(kind, &mut body);
        put_lenenc_bytes(&encoded, &mut body);
    };
    field(2, if compressed { 0 } else { 255 });
    field(3, inner.len() as u64);
    field(1, data.len() as u64);
    put_lenenc(0, &mut body);
    body.extend(data);
    (EventKind::TRANSACTION_PAYLOAD, body)
}
