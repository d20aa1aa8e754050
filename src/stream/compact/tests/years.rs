//! Years of segments, at the level of the plan: how many objects stay, and how often a byte is
//! copied.

use std::time::Duration;

use uuid::Uuid;

use super::super::plan::{CompactOptions, next_run};
use super::*;
use crate::archive::catalog::StoredSegment;
use crate::archive::layout::SegmentName;
use crate::archive::merge::Stand;
use crate::archive::segment::{SegmentIndex, SegmentSource};
use crate::gtid::GtidSet;
use crate::mysql::binlog::Checksum;

/// A log of which only the sizes are real.
struct Year {
    chain: Chain,
    options: CompactOptions,
    epoch: u64,
    sequence: u64,
    second: u64,
    written: u64,
    copied: u64,
    made: u64,
}

impl Year {
    fn new() -> Self {
        Self {
            chain: Chain::compute(BranchNumber(1), Vec::new()),
            options: CompactOptions {
                min_age: Duration::from_secs(60),
                ..CompactOptions::default()
            },
            epoch: 1,
            sequence: 0,
            second: 0,
            written: 0,
            copied: 0,
            made: 0,
        }
    }

    fn put(&mut self, raw: u64, transactions: u64) {
        self.sequence += 1;
        let last = self.chain.segments.last();
        let continues = last.map(|last| last.span().to);
        let digest = sha256(b"");
        self.written += raw;
        let segment = StoredSegment {
            name: SegmentName {
                branch: BranchNumber(1),
                epoch: Epoch(self.epoch),
                first: self.sequence,
                last: self.sequence,
                hash8: digest.short(),
                compacted: false,
            },
            size: 500 + raw / 4,
            index: SegmentIndex {
                format: 2,
                branch: BranchNumber(1),
                epoch: Epoch(self.epoch),
                first_sequence: self.sequence,
                last_sequence: self.sequence,
                previous: Some(digest).filter(|_| last.is_some()),
                continues: continues.filter(|_| self.sequence == 1),
                gap: GtidSet::new(),
                ends_with: None,
                source: Some(SegmentSource {
                    uuid: Uuid::from_u128(1),
                    version: "8.4.6".to_owned(),
                    file: "binlog.000001".to_owned(),
                    server_ids: vec![1],
                }),
                checksum: Checksum::Crc32,
                before: GtidSet::new(),
                added: GtidSet::new(),
                transactions,
                first_commit: None,
                last_commit: None,
                least_commit: None,
                complete_to: None,
                part: None,
                tables: Vec::new(),
                tables_incomplete: false,
                statements: false,
                raw_bytes: raw,
                raw_sha256: digest,
                body_bytes: 0,
                body_sha256: digest,
                details_bytes: 0,
                details_sha256: digest,
                written: at(self.second),
            },
        };
        self.chain.segments.push(segment);
    }

    fn takeover(&mut self) {
        self.epoch += 1;
        self.sequence = 0;
    }

    fn pass(&mut self) {
        while let Some(run) = next_run(&self.chain, &self.options, at(self.second)) {
            let sources = &self.chain.segments[run.clone()];
            let stand = Stand::of(sources).expect("a run");
            let mut made = sources[0].clone();
            made.name.epoch = stand.epoch;
            made.name.first = stand.first;
            made.name.last = stand.last;
            made.name.compacted = true;
            made.index.epoch = stand.epoch;
            made.index.first_sequence = stand.first;
            made.index.last_sequence = stand.last;
            made.index.continues = stand.continues;
            // A file's head is there once.
            let heads = 250 * (sources.len() as u64 - 1);
            let raw: u64 = sources.iter().map(|s| s.index.raw_bytes).sum();
            made.index.raw_bytes = raw - heads;
            made.index.transactions = sources.iter().map(|s| s.index.transactions).sum();
            made.index.written = sources.iter().map(|s| s.index.written).max().expect("one");
            made.size = 500 + made.index.raw_bytes / 4;
            self.copied += made.index.raw_bytes;
            self.made += 1;
            self.chain.segments.splice(run, [made]);
        }
    }

    /// That the chain is one for whoever reads it anew.
    fn is_whole(&self) -> bool {
        let chain = Chain::compute(BranchNumber(1), self.chain.segments.clone());
        chain.problems.is_empty() && chain.segments == self.chain.segments
    }
}

const MINUTES: u64 = 365 * 24 * 60;

#[test]
fn a_quiet_year_is_a_few_dozen_objects() {
    let mut year = Year::new();
    for minute in 0..MINUTES {
        year.second = minute * 60;
        year.put(250, 0);
        if minute % 5 == 0 {
            year.pass();
        }
        assert!(year.chain.segments.len() < 60);
    }
    assert!(year.is_whole());
    // One object for each fifteen or so that came.
    assert!(year.made < MINUTES / 10, "{}", year.made);
}

#[test]
fn a_year_of_runs_every_five_minutes_is_a_few_dozen_objects() {
    for transactions in [0, 3] {
        let mut year = Year::new();
        for run in 0..MINUTES / 5 {
            year.second = run * 300;
            year.put(250 + transactions * 400, transactions);
            year.pass();
            year.takeover();
            assert!(
                year.chain.segments.len() < 100,
                "{}",
                year.chain.segments.len()
            );
        }
        assert!(year.is_whole());
        let times = year.copied / year.written;
        assert!(times <= 6, "each byte was copied {times} times");
    }
}

#[test]
fn a_busy_log_is_copied_a_few_times_and_ends_in_large_objects() {
    // Sizes that jump about, with quiet hours between, and objects an eighth as large as usual.
    let mut year = Year::new();
    year.options.raw_bytes = 32 << 20;
    year.options.stored_bytes = 8 << 20;
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for step in 0..30_000_u64 {
        year.second = step * 30;
        let raw = match next() % 10 {
            0..=4 => 250,
            5..=7 => 2_000 + next() % 8_000,
            8 => 60_000 + next() % 500_000,
            _ => next() % (3 << 20),
        };
        year.put(raw.max(250), u64::from(raw > 250) * (1 + raw / 1000));
        if step % 4 == 0 {
            year.pass();
        }
    }
    let times = year.copied as f64 / year.written as f64;
    assert!(times < 4.0, "each byte was copied {times} times");
    let least = year.written / (32 << 20);
    let count = year.chain.segments.len() as u64;
    assert!(
        count < 2 * least + 150,
        "{count} objects where {least} could be"
    );
    assert!(year.is_whole());
}
