//! Holding an archive against the ledger: every acknowledged commit is in it exactly once.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result, ensure};
use quillback::archive::repository::Repository;
use quillback::gtid::Gtid;
use quillback::mysql::binlog::{Checksum, EventKind, RawEvent};
use quillback_harness::Ledger;
use quillback_harness::ledger::Outcome;

use crate::{Transaction, archived};

/// What was found.
#[derive(Debug)]
#[expect(dead_code, reason = "shown by tests")]
pub(crate) struct Audit {
    /// Whole transactions in the archive.
    pub(crate) transactions: usize,
    /// Acknowledged transfers, each of them found once.
    pub(crate) acknowledged: usize,
    /// Transfers of unknown outcome that are in the archive.
    pub(crate) unknown: usize,
}

/// A row of the ledger's table, as a binlog event holds it.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    id: u64,
    from: u32,
    to: u32,
    amount: i64,
}

/// Compares the archive's transactions, and the rows in them, with the ledger.
///
/// What the ledger was told must be there once, with the GTID that it was told and the row that it wrote; what it was
/// told to have failed must not be there; nothing else may be there.
pub(crate) async fn audit(repository: &Repository, ledger: &Ledger) -> Result<Audit> {
    let transfers = ledger.transfers();
    let transactions = archived(repository).await?;
    let mut gtids = HashSet::new();
    let mut found: HashMap<u64, (&Gtid, Row)> = HashMap::new();
    for transaction in &transactions {
        let (gtid, _) = transaction;
        ensure!(gtids.insert(gtid), "{gtid} is there twice");
        for row in rows(transaction).with_context(|| gtid.to_string())? {
            let id = row.id;
            let again = found.insert(id, (gtid, row));
            ensure!(
                again.is_none(),
                "transfer {id} is in {gtid} and in another transaction"
            );
        }
    }
    let (mut acknowledged, mut unknown) = (0, 0);
    for transfer in &transfers {
        let row = found.remove(&transfer.id);
        match &transfer.outcome {
            Outcome::Failed => ensure!(row.is_none(), "{transfer:?} is in the archive: {row:?}"),
            Outcome::Unknown => unknown += usize::from(row.is_some()),
            Outcome::Acknowledged { gtid } => {
                let (found, row) =
                    row.with_context(|| format!("{transfer:?} is not in the archive"))?;
                if let Some(gtid) = gtid {
                    ensure!(
                        *found == gtid.parse()?,
                        "{transfer:?} is there as {found}: {row:?}"
                    );
                }
                let written = Row {
                    id: transfer.id,
                    from: transfer.from,
                    to: transfer.to,
                    amount: transfer.amount,
                };
                ensure!(row == written, "{transfer:?} is there as {row:?}");
                acknowledged += 1;
            }
        }
    }
    ensure!(
        found.is_empty(),
        "the ledger never made {:?}",
        found.values().next()
    );
    Ok(Audit {
        transactions: transactions.len(),
        acknowledged,
        unknown,
    })
}

/// The rows of the ledger's table that a transaction writes.
fn rows((_, bytes): &Transaction) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut rest = bytes.as_slice();
    let mut table = None;
    while !rest.is_empty() {
        let event = RawEvent::first_of(rest)?;
        rest = &rest[event.bytes().len()..];
        match event.kind() {
            EventKind::TABLE_MAP => {
                let (id, schema, name) = event.table_map(Checksum::Crc32)?;
                table = (schema == b"ledger" && name == b"transfers")
                    .then_some(id)
                    .or(table);
            }
            EventKind::WRITE_ROWS if table == Some(event.rows_table_id(Checksum::Crc32)?) => {
                rows.push(row(event.body(Checksum::Crc32)?)?);
            }
            _ => {}
        }
    }
    Ok(rows)
}

/// The one row of an event: table id (6 bytes), flags (2), extra data (2, which count themselves), the number of columns
/// and a bitmap of them (1 each), the nulls' bitmap (1), and the columns.
fn row(body: &[u8]) -> Result<Row> {
    let columns = body.get(10..).context("too short")?;
    ensure!(
        columns.len() == 3 + 32 && columns[0] == 5 && columns[2] & 0b1_1111 == 0,
        "another row: {columns:?}"
    );
    let (id, rest) = columns[3..].split_first_chunk().context("no id")?;
    let (from, rest) = rest.split_first_chunk().context("no payer")?;
    let (to, rest) = rest.split_first_chunk().context("no payee")?;
    let (amount, _) = rest.split_first_chunk().context("no amount")?;
    Ok(Row {
        id: u64::from_le_bytes(*id),
        from: u32::from_le_bytes(*from),
        to: u32::from_le_bytes(*to),
        amount: i64::from_le_bytes(*amount),
    })
}
