//! Whether a source tells the same story as the archive.
//!
//! A server that was restored, or a primary that lost its last transactions, may give their GTIDs
//! away again. By sets alone nobody notices. So when a source is turned to, the last archived
//! transaction of each origin is asked for once more, compared with what the archive knows of it,
//! and dropped: where one history has left the other, that last one differs.

use std::collections::BTreeMap;
use std::iter::once;

use chrono::TimeDelta;

use super::error::StreamError;
use crate::archive::segment::IndexedTransaction;
use crate::gtid::{Gtid, GtidSet, Tsid};
use crate::mysql::binlog::{
    Checksum, EventKind, GtidEvent, Piece, RawEvent, Splitter, SummaryBuilder, TransactionFacts,
    same_transaction,
};

/// Origins that have been silent for so long are left out: a source would have to read its binlog
/// from there on again.
const RECENT: TimeDelta = TimeDelta::minutes(10);

/// Compares transactions as they come again.
#[derive(Debug)]
pub(super) struct Witness {
    server: String,
    archived: BTreeMap<Gtid, IndexedTransaction>,
    /// Others that come again, and are dropped as well.
    again: GtidSet,
    splitter: Splitter,
    checksum: Checksum,
    open: Option<Open>,
}

/// The transaction that comes again.
#[derive(Debug)]
struct Open {
    first: GtidEvent,
    server_id: u32,
    summary: SummaryBuilder,
    /// What it is compared with, if it is.
    archived: Option<IndexedTransaction>,
}

impl Witness {
    /// Compares the `latest` transactions of the archive that the source has not purged, and
    /// drops those of `again` too.
    pub(super) fn new(
        server: &str,
        latest: &BTreeMap<Tsid, IndexedTransaction>,
        purged: &GtidSet,
        again: GtidSet,
    ) -> Self {
        let newest = latest.values().map(|line| line.time).max();
        let archived = latest
            .values()
            .filter(|line| newest.is_some_and(|newest| newest - line.time <= RECENT))
            .filter(|line| !purged.contains(&line.gtid))
            .map(|line| (line.gtid.clone(), line.clone()))
            .collect();
        Self {
            server: server.to_owned(),
            archived,
            again,
            splitter: Splitter::default(),
            checksum: Checksum::Crc32,
            open: None,
        }
    }

    /// What the source is to be asked for once more.
    pub(super) fn asks_for(&self) -> GtidSet {
        let mut asked: GtidSet = self.archived.keys().cloned().collect();
        asked.extend_from(&self.again);
        asked
    }

    /// Says which checksum the events have.
    pub(super) const fn expect(&mut self, checksum: Checksum) {
        self.checksum = checksum;
    }

    /// Whether nothing is left to compare.
    pub(super) fn is_done(&self) -> bool {
        self.archived.is_empty() && self.again.is_empty() && self.open.is_none()
    }

    /// Looks at an event; `true` if it belongs to a transaction that the archive holds, and is to
    /// be dropped.
    ///
    /// # Errors
    ///
    /// [`StreamError::OtherPayload`] if the transaction is another one.
    pub(super) fn takes(&mut self, bytes: &[u8]) -> Result<bool, StreamError> {
        // What is broken or out of place is for the cutter to refuse.
        let Ok(event) = RawEvent::new(bytes) else {
            return Ok(false);
        };
        if event.kind() == EventKind::FORMAT_DESCRIPTION {
            self.checksum = event.announced_checksum().unwrap_or(self.checksum);
            return Ok(false);
        }
        if event.verify(self.checksum).is_err() {
            return Ok(false);
        }
        let Ok(piece) = self.splitter.take(&event, self.checksum) else {
            return Ok(false);
        };
        match piece {
            Piece::File => Ok(false),
            Piece::First(first) => {
                let archived = self.archived.remove(&first.gtid);
                let again = self.again.contains(&first.gtid);
                if again {
                    self.again = self.again.subtract(&once(first.gtid.clone()).collect());
                }
                self.open = (again || archived.is_some()).then(|| Open {
                    summary: SummaryBuilder::begin(&first),
                    server_id: event.header().server_id,
                    first,
                    archived,
                });
                Ok(self.open.is_some())
            }
            Piece::Inside | Piece::Last => {
                let Some(open) = &mut self.open else {
                    return Ok(false);
                };
                if open.summary.take(&event, self.checksum).is_err() {
                    return Ok(false);
                }
                if piece == Piece::Last {
                    self.compare()?;
                }
                Ok(true)
            }
        }
    }

    fn compare(&mut self) -> Result<(), StreamError> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let Some(old) = open.archived else {
            return Ok(());
        };
        let received = open.summary.finish();
        let original = old.original_time.map_or(0, |time| {
            u64::try_from(time.timestamp_micros()).unwrap_or(0)
        });
        same_transaction(
            TransactionFacts {
                original_commit_micros: original,
                server_id: old.server_id,
                source_version: None,
                summary: &old.summary,
            },
            TransactionFacts {
                original_commit_micros: open.first.original_commit_micros,
                server_id: open.server_id,
                source_version: None,
                summary: &received,
            },
        )
        .map_err(|difference| StreamError::OtherPayload {
            server: self.server.clone(),
            gtid: old.gtid,
            difference: difference.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::from_micros;
    use crate::mysql::binlog::testing::{SourceLog, Work};

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    /// The events of transactions 1 to 3 as a server sends them, with the format before.
    fn sent(micros: u64, table: &'static str) -> Vec<Vec<u8>> {
        let mut log = SourceLog::new(Checksum::Crc32, 7);
        let mut events = vec![log.format_description("8.4.6")];
        for gno in 1..=3 {
            let gtid = format!("{UUID}:{gno}").parse().expect("a GTID");
            let work = Work::Rows(vec![(table, vec![1, 2, 3])]);
            let at = micros + gno;
            events.extend(log.transaction(&gtid, (at, at), &work));
        }
        events
    }

    fn line(gno: u64, micros: u64, table: &'static str) -> IndexedTransaction {
        let events = sent(micros, table);
        let mut splitter = Splitter::default();
        let mut open: Option<(GtidEvent, SummaryBuilder)> = None;
        for bytes in &events {
            let event = RawEvent::new(bytes).expect("an event");
            match splitter.take(&event, Checksum::Crc32).expect("in place") {
                Piece::File => {}
                Piece::First(first) => open = Some((first.clone(), SummaryBuilder::begin(&first))),
                piece => {
                    let (first, mut summary) = open.take().expect("begun");
                    summary.take(&event, Checksum::Crc32).expect("a summary");
                    if piece != Piece::Last {
                        open = Some((first, summary));
                    } else if first.gtid.gno == gno {
                        let time = from_micros(micros + gno).expect("in range");
                        return IndexedTransaction {
                            gtid: first.gtid,
                            time,
                            original_time: Some(time),
                            server_id: 7,
                            bytes: first.transaction_length,
                            summary: summary.finish(),
                        };
                    }
                }
            }
        }
        unreachable!("transaction {gno} was sent");
    }

    fn latest(line: IndexedTransaction) -> BTreeMap<Tsid, IndexedTransaction> {
        BTreeMap::from([(line.gtid.tsid.clone(), line)])
    }

    const NOW: u64 = 1_795_000_000_000_000;

    #[test]
    fn the_same_transaction_is_dropped_and_nothing_else() {
        let latest = latest(line(2, NOW, "shop.page"));
        let mut witness = Witness::new("db1:3306", &latest, &GtidSet::new(), GtidSet::new());
        assert_eq!(witness.asks_for().to_string(), format!("{UUID}:2"));
        let mut dropped = 0;
        for bytes in sent(NOW, "shop.page") {
            dropped += u32::from(witness.takes(&bytes).expect("the same"));
        }
        assert!(witness.is_done());
        assert_eq!(dropped, 5, "GTID, BEGIN, table, rows, end");
    }

    #[test]
    fn what_was_sent_before_its_commit_is_dropped_when_it_comes_again() {
        let latest = latest(line(3, NOW, "shop.page"));
        let again = format!("{UUID}:2-3").parse().expect("a set");
        let mut witness = Witness::new("db1:3306", &latest, &GtidSet::new(), again);
        assert_eq!(witness.asks_for().to_string(), format!("{UUID}:2-3"));
        let mut dropped = 0;
        for bytes in sent(NOW, "shop.page") {
            dropped += u32::from(witness.takes(&bytes).expect("the same"));
        }
        assert!(witness.is_done());
        assert_eq!(dropped, 10, "all five events of both");
    }

    #[test]
    fn another_transaction_under_the_same_gtid_stops_the_stream() {
        let latest = latest(line(2, NOW, "shop.page"));
        for (micros, table) in [(NOW + 77, "shop.page"), (NOW, "shop.user")] {
            let mut witness = Witness::new("db1:3306", &latest, &GtidSet::new(), GtidSet::new());
            let stopped = sent(micros, table)
                .iter()
                .find_map(|bytes| witness.takes(bytes).err());
            assert!(
                matches!(&stopped, Some(StreamError::OtherPayload { gtid, .. }) if gtid.gno == 2),
                "{stopped:?}"
            );
        }
    }

    #[test]
    fn what_is_purged_or_old_is_not_asked_for() {
        let mut latest = latest(line(2, NOW, "a.t"));
        let purged = format!("{UUID}:1-2").parse().expect("a set");
        assert!(Witness::new("x", &latest, &purged, GtidSet::new()).is_done());
        let mut newer = line(3, NOW + 601_000_000, "a.t");
        newer.gtid = "ffffffff-71ca-11e1-9e33-c80aa9429562:9"
            .parse()
            .expect("a GTID");
        latest.insert(newer.gtid.tsid.clone(), newer.clone());
        let witness = Witness::new("x", &latest, &GtidSet::new(), GtidSet::new());
        assert_eq!(witness.asks_for().to_string(), newer.gtid.to_string());
    }
}
