//! Holding a server against the ledger.

use std::collections::{HashMap, HashSet};

use anyhow::{Result, bail, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::{LedgerOptions, Outcome, Transfer};

/// Up to where the server should hold the ledger's transfers.
#[derive(Debug, Clone)]
pub enum Cut {
    /// Every acknowledged transfer.
    Everything,
    /// Exactly those acknowledged transfers whose GTID is in this set.
    Gtids(String),
}

/// What was compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Acknowledged transfers that had to be there, and are.
    pub present: usize,
    /// Acknowledged transfers that had to be absent, and are.
    pub absent: usize,
    /// Transfers of which either is right: those of unknown outcome, and those whose GTID is not known where the cut is a set.
    pub undecided: usize,
    /// The sum of all balances.
    pub sum: i64,
}

/// How many offenders an error names.
const NAMED: usize = 5;

pub(super) async fn run(
    conn: &mut Conn,
    options: &LedgerOptions,
    transfers: &[Transfer],
    cut: &Cut,
) -> Result<CheckReport> {
    let schema = &options.schema;
    let sum = balances(conn, options).await?;
    let rows: Vec<(u64, u32, u32, i64)> = conn
        .query(format!(
            "SELECT id, from_account, to_account, amount FROM `{schema}`.transfers"
        ))
        .await?;
    let found: HashMap<u64, (u32, u32, i64)> = rows
        .into_iter()
        .map(|(id, from, to, amount)| (id, (from, to, amount)))
        .collect();
    let inside = match cut {
        Cut::Everything => None,
        Cut::Gtids(set) => Some(inside(conn, transfers, set).await?),
    };

    let mut report = CheckReport {
        present: 0,
        absent: 0,
        undecided: 0,
        sum,
    };
    let (mut lost, mut surplus, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for transfer in transfers {
        let row = found.get(&transfer.id);
        if row.is_some_and(|row| *row != (transfer.from, transfer.to, transfer.amount)) {
            changed.push(transfer.id);
        }
        let expected = match (&transfer.outcome, &inside) {
            (Outcome::Failed, _) => Some(false),
            (Outcome::Acknowledged { .. }, None) => Some(true),
            (Outcome::Acknowledged { gtid: Some(gtid) }, Some(inside)) => {
                Some(inside.contains(gtid.as_str()))
            }
            (Outcome::Acknowledged { gtid: None }, Some(_)) | (Outcome::Unknown, _) => None,
        };
        match (expected, row.is_some()) {
            (Some(true), true) => report.present += 1,
            (Some(true), false) => lost.push(transfer.id),
            (Some(false), true) => surplus.push(transfer.id),
            (Some(false), false) => {
                report.absent += usize::from(transfer.outcome != Outcome::Failed);
            }
            (None, _) => report.undecided += 1,
        }
    }
    let known: HashSet<u64> = transfers.iter().map(|transfer| transfer.id).collect();
    let foreign: Vec<u64> = found
        .keys()
        .filter(|id| !known.contains(id))
        .copied()
        .collect();
    for (what, ids) in [
        ("acknowledged transfers are missing", lost),
        ("transfers are there that must not be", surplus),
        ("transfers are not what was written", changed),
        ("transfers are there that the ledger never made", foreign),
    ] {
        ensure!(
            ids.is_empty(),
            "{} {what}, such as {:?}",
            ids.len(),
            &ids[..ids.len().min(NAMED)]
        );
    }
    Ok(report)
}

/// The sum of all balances, after checking that it is the opening one and that each balance is what the transfers imply.
async fn balances(conn: &mut Conn, options: &LedgerOptions) -> Result<i64> {
    let LedgerOptions {
        schema,
        opening,
        accounts,
        ..
    } = options;
    let (count, sum): (u32, i64) = conn
        .query_first(format!(
            "SELECT COUNT(*), CAST(COALESCE(SUM(balance), 0) AS SIGNED) FROM `{schema}`.accounts"
        ))
        .await?
        .unwrap_or_default();
    ensure!(count == *accounts, "{count} accounts instead of {accounts}");
    let right = opening * i64::from(*accounts);
    ensure!(
        sum == right,
        "the balances add up to {sum} instead of {right}"
    );
    let wrong: Vec<(u32, i64, i64)> = conn
        .query(format!(
            "SELECT id, balance, CAST({opening} + moved AS SIGNED) FROM \
             (SELECT a.id, a.balance, \
              COALESCE((SELECT SUM(amount) FROM `{schema}`.transfers WHERE to_account = a.id), 0) - \
              COALESCE((SELECT SUM(amount) FROM `{schema}`.transfers WHERE from_account = a.id), 0) AS moved \
              FROM `{schema}`.accounts a) AS expected WHERE balance <> {opening} + moved"
        ))
        .await?;
    if let Some((id, balance, expected)) = wrong.first() {
        bail!(
            "{} accounts do not match the transfers: {id} has {balance} instead of {expected}",
            wrong.len()
        );
    }
    Ok(sum)
}

/// Which of the transfers' GTIDs are in a set, by the server's own GTID_SUBSET.
async fn inside<'a>(
    conn: &mut Conn,
    transfers: &'a [Transfer],
    set: &str,
) -> Result<HashSet<&'a str>> {
    let gtids: Vec<&str> = transfers
        .iter()
        .filter_map(|transfer| match &transfer.outcome {
            Outcome::Acknowledged { gtid } => gtid.as_deref(),
            _ => None,
        })
        .collect();
    let mut inside = HashSet::new();
    for batch in gtids.chunks(1000) {
        let list = serde_json::to_string(batch)?;
        let answers: Vec<(usize, bool)> = conn
            .exec(
                "SELECT n - 1, GTID_SUBSET(g, ?) FROM JSON_TABLE(?, '$[*]' \
                 COLUMNS (n FOR ORDINALITY, g VARCHAR(255) PATH '$')) AS gtids",
                (set, list),
            )
            .await?;
        inside.extend(
            answers
                .iter()
                .filter(|(_, within)| *within)
                .map(|(index, _)| batch[*index]),
        );
    }
    Ok(inside)
}
