//! Fifty random instants and transactions of a busy life, each restored and held against what the
//! ledger says was committed by then.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use quillback::archive::segment::IndexedTransaction;
use quillback::gtid::GtidSet;
use quillback::restore::RestoreRequest;
use quillback::restore::target::Target;
use quillback_harness::ledger::{Cut, LedgerOptions, Outcome, fixed};
use quillback_harness::{Ledger, Server};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::support::{
    Archive, LIMIT, Streaming, chain, exec_all, executed, on_primary, request, restore, snapshot,
    stream_options, url, wait_archived, wait_covered,
};

/// How many restores; each empties the server and fills it again.
const INSTANTS: usize = 50;

/// DDL on the ledger's own tables and beside them, while it works.
const DDL: &[&str] = &[
    "CREATE DATABASE beside",
    "CREATE TABLE beside.kept (id INT PRIMARY KEY, at TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6))",
    "INSERT INTO beside.kept (id) VALUES (1)",
    "ALTER TABLE ledger.transfers ADD COLUMN extra INT DEFAULT 7 INVISIBLE",
    "CREATE TABLE beside.dropped AS SELECT 1 AS id",
    "INSERT INTO beside.kept (id) VALUES (2)",
    "DROP TABLE beside.dropped",
    "ALTER TABLE ledger.transfers ADD INDEX by_amount (amount), ALGORITHM = INPLACE",
    "INSERT INTO beside.kept (id) VALUES (3)",
    "ALTER TABLE ledger.transfers DROP COLUMN extra",
    "RENAME TABLE beside.kept TO beside.renamed",
    "TRUNCATE TABLE beside.renamed",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_instants_are_what_the_ledger_says() -> Result<()> {
    let source = Server::start().await?;
    let options = LedgerOptions {
        pause: Duration::from_millis(15),
        ..LedgerOptions::default()
    };
    let mut ledger = Ledger::start_with(fixed(&source.url()), options).await?;
    ledger.wait_acknowledged(10, LIMIT).await?;
    let archive = Archive::new().await?;
    let repository = &archive.repository;
    let streaming = Streaming::start(repository, vec![url(&source)], stream_options());
    let taken = snapshot(repository, &[url(&source)], &on_primary()).await?;
    for statement in DDL {
        ledger.wait_acknowledged(12, LIMIT).await?;
        exec_all(&source, &[statement]).await?;
    }
    // A second snapshot, so that there is a choice.
    snapshot(repository, &[url(&source)], &on_primary()).await?;
    ledger.wait_acknowledged(20, LIMIT).await?;
    ledger.stop().await;
    wait_archived(repository, &executed(&source).await?).await?;
    wait_covered(repository).await?;
    streaming.stop().await?;
    drop(source);

    let chain = chain(repository).await?;
    let mut log: Vec<IndexedTransaction> = Vec::new();
    for segment in &chain.segments {
        log.extend(repository.read_transactions(segment).await?);
    }
    let before = chain.start().expect("there are segments").clone();
    let up_to = |is_in: &dyn Fn(&IndexedTransaction) -> bool| -> GtidSet {
        let mut set = before.clone();
        for transaction in log.iter().take_while(|line| is_in(line)) {
            set.insert(&transaction.gtid);
        }
        set
    };
    let first = log
        .iter()
        .position(|line| !taken.gtid_executed.contains(&line.gtid))
        .context("nothing behind the snapshot")?;
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let mut random = StdRng::seed_from_u64(seed);
    let server = Server::start().await?;
    let address = url(&server).address();
    for round in 0..INSTANTS {
        // Every statement's edges are tried, then whatever chance brings.
        let at = random.random_range(first + 20..log.len());
        let line = &log[at];
        let (target, expected) = match round % 3 {
            0 => {
                // Behind the very last transaction nobody has promised anything.
                let behind = if at + 1 == log.len() { 1 } else { 2000 };
                let micros = random.random_range(-2000..behind);
                let moment = line.time + TimeDelta::microseconds(micros);
                (Target::Until { moment }, up_to(&|line| line.time <= moment))
            }
            1 => (
                Target::BeforeGtid {
                    gtid: line.gtid.clone(),
                },
                up_to(&|other| other.gtid != line.gtid),
            ),
            _ => {
                let mut set = up_to(&|other| other.gtid != line.gtid);
                set.insert(&line.gtid);
                (Target::UntilGtid { set: set.clone() }, set)
            }
        };
        let told = format!("seed {seed}, round {round}: {target}");
        let check = async {
            let moment = match &target {
                Target::Until { moment } => Some(*moment),
                _ => None,
            };
            let asked = RestoreRequest {
                wipe: Some(address.clone()),
                ..request(target.clone(), &server)
            };
            let report = restore(repository, asked).await?;
            ensure!(
                report.gtid_executed == expected,
                "{:#}",
                report.gtid_executed
            );
            exec_all(&server, &["SET GLOBAL super_read_only = OFF"]).await?;
            hold_against(&server, &ledger, &expected, moment).await
        };
        check.await.context(told)?;
    }
    Ok(())
}

/// What is there is what the set says; and what was known to be committed before the moment is
/// there, what was sent after it is not.
async fn hold_against(
    server: &Server,
    ledger: &Ledger,
    expected: &GtidSet,
    moment: Option<DateTime<Utc>>,
) -> Result<()> {
    let mut conn = server.conn().await?;
    let report = ledger
        .check(&mut conn, &Cut::Gtids(expected.to_string()))
        .await?;
    ensure!(report.sum == 50 * 1000, "{report:?}");
    let ids: Vec<u64> =
        mysql_async::prelude::Queryable::query(&mut conn, "SELECT id FROM ledger.transfers")
            .await?;
    conn.disconnect().await?;
    let Some(moment) = moment else {
        return Ok(());
    };
    for transfer in ledger.transfers() {
        let there = ids.contains(&transfer.id);
        let is_known = transfer.known_micros < moment.timestamp_micros();
        if matches!(transfer.outcome, Outcome::Failed) {
            ensure!(!there, "never committed: {transfer:?}");
        } else if is_known && matches!(transfer.outcome, Outcome::Acknowledged { .. }) {
            ensure!(there, "lost: {transfer:?}");
        } else if transfer.sent_micros > moment.timestamp_micros() {
            ensure!(!there, "too late: {transfer:?}");
        }
    }
    Ok(())
}
