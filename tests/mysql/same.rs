//! One GTID, one payload: members of a group agree, servers that went apart do not.

use std::time::Duration;

use anyhow::{Context as _, Result};
use quillback::mysql::binlog::{Difference, TransactionFacts, same_transaction};
use quillback_harness::{Server, Trio};

use crate::log::{Log, Transaction, write_all};

const LIMIT: Duration = Duration::from_secs(90);

const fn facts(one: &Transaction) -> TransactionFacts<'_> {
    TransactionFacts {
        original_commit_micros: one.event.original_commit_micros,
        server_id: one.server_id,
        source_version: Some("9.7"),
        summary: &one.summary,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_group_have_the_same_transactions() -> Result<()> {
    let trio = Trio::start().await?;
    let first = trio.primary().await?;
    write_all(first).await?;
    // Another member writes too, and one comes back, so that views change in between.
    let secondaries = trio.secondaries().await?;
    let (second, third) = (secondaries[0], secondaries[1]);
    third.exec("STOP GROUP_REPLICATION").await?;
    trio.set_primary(second).await?;
    second.exec("INSERT INTO d.u VALUES (20, NULL, 1)").await?;
    second
        .exec("CREATE TABLE d.later (id INT PRIMARY KEY)")
        .await?;
    third.exec("START GROUP_REPLICATION").await?;
    trio.wait_online(3).await?;
    second.exec("INSERT INTO d.later VALUES (1), (2)").await?;
    let executed = second.gtid_executed().await?;
    let mut logs = Vec::new();
    for member in [first, second, third] {
        member.wait_for_gtids(&executed, LIMIT).await?;
        logs.push(Log::of(member).await?);
    }
    let mut compared = 0;
    let mut other_times = 0;
    for one in &logs {
        for other in &logs {
            for transaction in &one.transactions {
                let gtid = &transaction.event.gtid;
                let there = other.transaction(gtid).with_context(|| gtid.to_string())?;
                let verdict = same_transaction(facts(transaction), facts(there));
                assert_eq!(verdict, Ok(()), "{gtid}");
                compared += 1;
                let (a, b) = (&transaction.event, &there.event);
                other_times += usize::from(a.immediate_commit_micros != b.immediate_commit_micros);
            }
        }
    }
    assert!(compared > 9 * 20, "{compared}");
    assert!(other_times > compared / 2, "{other_times} of {compared}");
    // And each is told from all the others, so that the comparison sees something.
    let mut mistaken = Vec::new();
    for one in &logs[0].transactions {
        for other in &logs[1].transactions {
            let same = same_transaction(facts(one), facts(other)).is_ok();
            let empty = one.summary.tables.is_empty() && one.summary.statement.is_none();
            if one.event.gtid != other.event.gtid && same && !empty {
                mistaken.push((&one.event.gtid, &other.event.gtid));
            }
        }
    }
    assert_eq!(mistaken, []);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_went_apart_under_one_uuid_differ() -> Result<()> {
    let (one, other) = (Server::start().await?, Server::start().await?);
    let uuid = one.uuid().await?;
    other.stop().await?;
    std::fs::write(
        other.data_dir().join("auto.cnf"),
        format!("[auto]\nserver-uuid={uuid}\n"),
    )?;
    other.start_again().await?;
    let server_id = one.server_id();
    other
        .exec(&format!("SET GLOBAL server_id = {server_id}"))
        .await?;
    for server in [&one, &other] {
        for statement in [
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY)",
            "INSERT INTO d.t VALUES (1)",
        ] {
            server.exec(statement).await?;
        }
    }
    one.exec("INSERT INTO d.t VALUES (2)").await?;
    {
        use mysql_async::prelude::Queryable as _;
        let mut conn = other.conn().await?;
        for statement in [
            &format!("SET GTID_NEXT = '{uuid}:4'"),
            "BEGIN",
            "COMMIT",
            "SET GTID_NEXT = 'AUTOMATIC'",
        ] {
            conn.query_drop(statement).await?;
        }
        conn.disconnect().await?;
    }
    let (one, other) = (Log::of(&one).await?, Log::of(&other).await?);
    assert_eq!(one.gtids(), other.gtids());
    assert_eq!(one.transactions.len(), 4);
    for (index, transaction) in one.transactions.iter().enumerate() {
        let there = other
            .transaction(&transaction.event.gtid)
            .context("the same GTIDs")?;
        // The same words, and still not the same transaction.
        match same_transaction(facts(transaction), facts(there)) {
            Err(Difference::OriginalCommit { .. }) if index < 3 => {}
            Err(Difference::Tables { .. }) if index == 3 => {}
            verdict => panic!("{}: {verdict:?}", transaction.event.gtid),
        }
        assert_eq!(same_transaction(facts(there), facts(there)), Ok(()));
    }
    Ok(())
}
