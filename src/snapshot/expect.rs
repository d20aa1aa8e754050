//! How long a snapshot may take, by those that are in the archive.
//!
//! The server's sizes say little of how long reading takes; an earlier snapshot of the same data
//! says more. Each table is taken to have grown as its rows have, and to be read as fast as then.
//! Where no snapshot fits, nothing is expected rather than something invented.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use super::plan::SnapshotPlan;
use crate::archive::layout::SnapshotId;
use crate::archive::manifest::{Manifest, TableEntry};

/// Less than this is read too quickly to tell a rate that would hold for more.
const LEAST_BYTES: u64 = 64 << 20;
/// By how much a smaller snapshot may be exceeded.
const GROWTH: f64 = 2.0;

/// However little there is to read.
const LEAST_SECONDS: f64 = 1.0;

/// What a snapshot is expected to take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Expected {
    /// Seconds, all phases together.
    pub seconds: f64,
    /// Bytes of rows before compression.
    pub raw_bytes: u64,
    /// Bytes in the store.
    pub stored_bytes: u64,
    /// The snapshot that tells.
    pub learnt_from: SnapshotId,
    /// Whether it read the same server.
    pub same_server: bool,
    /// Bytes before compression that it read a second.
    pub bytes_per_second: f64,
    /// Connections that it read with.
    pub threads: usize,
}

/// The size of a table as the server estimates it.
struct Size<'a> {
    database: &'a str,
    name: &'a str,
    rows: u64,
    bytes: u64,
}

/// What is expected of a plan, by the newest snapshot that fits, one of the same server first;
/// `manifests` stand in the order of their times.
#[must_use]
pub fn expect(plan: &SnapshotPlan, manifests: &[Manifest]) -> Option<Expected> {
    let sizes: Vec<Size<'_>> = plan
        .tables
        .iter()
        .map(|table| Size {
            database: &table.database,
            name: &table.name,
            rows: table.estimated_rows,
            bytes: table.estimated_bytes,
        })
        .collect();
    newest(plan.server_uuid, &sizes, manifests)
}

fn newest(server: Uuid, sizes: &[Size<'_>], manifests: &[Manifest]) -> Option<Expected> {
    let of = |same_server: bool| {
        manifests
            .iter()
            .rev()
            .filter(|manifest| (manifest.server.server_uuid == server) == same_server)
            .find_map(|manifest| learn(sizes, manifest, same_server))
    };
    of(true).or_else(|| of(false))
}

fn learn(sizes: &[Size<'_>], manifest: &Manifest, same_server: bool) -> Option<Expected> {
    let earlier: BTreeMap<(&str, &str), &TableEntry> = manifest
        .tables
        .iter()
        .map(|table| ((table.database.as_str(), table.name.as_str()), table))
        .collect();
    let raw: f64 = sizes
        .iter()
        .map(|size| raw_bytes(size, earlier.get(&(size.database, size.name)).copied()))
        .sum();
    let seconds = (manifest.finished - manifest.started).as_seconds_f64();
    let read = manifest.totals.raw_bytes;
    let growth = raw / read as f64;
    let small = read < LEAST_BYTES;
    if seconds <= 0.0 || read == 0 || (small && growth > GROWTH) {
        return None;
    }
    // Most of the time of a small one does not come from its size.
    let longer = if small { growth.max(1.0) } else { growth };
    Some(Expected {
        seconds: (seconds * longer).max(LEAST_SECONDS),
        raw_bytes: raw as u64,
        stored_bytes: (manifest.totals.stored_bytes as f64 * growth) as u64,
        learnt_from: manifest.id.clone(),
        same_server,
        bytes_per_second: read as f64 / seconds,
        threads: manifest.threads,
    })
}

/// A table's bytes as text: those of the earlier snapshot, grown as the rows have.
fn raw_bytes(size: &Size<'_>, earlier: Option<&TableEntry>) -> f64 {
    match earlier {
        Some(earlier) if earlier.rows > 0 => {
            let bytes: u64 = earlier.files.iter().map(|file| file.file.raw_bytes).sum();
            bytes as f64 * size.rows as f64 / earlier.rows as f64
        }
        _ => size.bytes as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    /// A snapshot of one table with a million rows, that took 100 s.
    fn manifest(number: u32, server: u128, raw_bytes: u64) -> Manifest {
        let hash = "00".repeat(32);
        let file = json!({
            "key": "data/d/t/000000.tsv.zst", "rows": 1_000_000, "raw_bytes": raw_bytes,
            "stored_bytes": raw_bytes / 4, "sha256": hash,
        });
        serde_json::from_value(json!({
            "format": 1,
            "id": format!("20261120T02000{number}Z-00000001"),
            "tool_version": "0.1.0",
            "started": format!("2026-11-20T02:00:0{number}.000000Z"),
            "finished": format!("2026-11-20T02:01:4{number}.000000Z"),
            "server": {
                "address": "db:3306", "server_uuid": Uuid::from_u128(server), "server_id": 1,
                "version": "8.4.6", "role": "secondary", "lower_case_table_names": 0,
                "character_set_server": "utf8mb4", "collation_server": "utf8mb4_0900_ai_ci",
            },
            "gtid_executed": "",
            "consistency": {
                "method": "lock_free", "attempts": 1, "global_lock_seconds": 0.0,
                "backup_lock": true, "backup_lock_seconds": 1.0,
            },
            "threads": 4,
            "schema": [],
            "accounts": {
                "kind": "accounts", "objects": 0, "key": "accounts.sql.zst", "raw_bytes": 0,
                "stored_bytes": 0, "sha256": hash,
            },
            "tables": [{
                "database": "d", "name": "t", "columns": [], "files": [file],
                "rows": 1_000_000, "row_checksum": "0".repeat(32), "create_sha256": hash,
            }],
            "totals": {
                "tables": 1, "rows": 1_000_000, "files": 1, "raw_bytes": raw_bytes,
                "stored_bytes": raw_bytes / 4,
            },
        }))
        .expect("a manifest")
    }

    fn size(name: &str, rows: u64, bytes: u64) -> Size<'_> {
        Size {
            database: "d",
            name,
            rows,
            bytes,
        }
    }

    const ONE: Uuid = Uuid::from_u128(1);

    #[test]
    fn what_has_grown_takes_longer_by_as_much() {
        let known = [manifest(1, 1, GIB)];
        let sizes = [size("t", 1_500_000, 7)];
        let expected = newest(ONE, &sizes, &known).expect("the same table");
        assert!((expected.seconds - 150.0).abs() < 1e-6, "{expected:?}");
        assert_eq!(expected.raw_bytes, GIB + GIB / 2);
        assert_eq!(expected.stored_bytes, (GIB + GIB / 2) / 4);
        assert!(expected.same_server);
        // A table that is new counts by the server's size.
        let more = [size("t", 1_000_000, 7), size("new", 10, GIB)];
        let expected = newest(ONE, &more, &known).expect("one is known");
        assert!((expected.seconds - 200.0).abs() < 1e-6, "{expected:?}");
    }

    #[test]
    fn the_newest_of_the_same_server_tells() {
        let known = [
            manifest(1, 1, GIB),
            manifest(2, 1, GIB),
            manifest(3, 2, GIB),
        ];
        let sizes = [size("t", 1_000_000, 7)];
        let by = |server| newest(Uuid::from_u128(server), &sizes, &known).expect("some fit");
        assert_eq!(by(1).learnt_from, known[1].id);
        assert_eq!(by(2).learnt_from, known[2].id);
        let other = by(3);
        assert_eq!(
            (&other.learnt_from, other.same_server),
            (&known[2].id, false)
        );
    }

    #[test]
    fn nothing_is_made_up() {
        let sizes = [size("t", 1_000_000, 7)];
        assert_eq!(newest(ONE, &sizes, &[]), None);
        // A small one took its time for other things, and says nothing of a large one.
        let small = [manifest(1, 1, MIB)];
        let same = newest(ONE, &[size("t", 500_000, 7)], &small).expect("it is as small");
        assert!((same.seconds - 100.0).abs() < 1e-6, "{same:?}");
        assert_eq!(newest(ONE, &[size("t", 9_000_000, 7)], &small), None);
        assert_eq!(newest(ONE, &sizes, &[manifest(1, 1, 0)]), None);
    }
}
