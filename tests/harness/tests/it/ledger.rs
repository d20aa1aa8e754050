//! The ledger keeps its account through a failover, and notices every kind of difference.

use std::time::Duration;

use quillback_harness::ledger::{Cut, Outcome, fixed, primary_of};
use quillback_harness::{Ledger, Replicas, Trio};

const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_transfer_is_lost_by_a_failover() {
    let trio = Trio::start().await.expect("a group");
    let mut ledger = Ledger::start(primary_of(trio.finder()))
        .await
        .expect("a ledger");
    ledger
        .wait_acknowledged(100, LIMIT)
        .await
        .expect("transfers");
    let old = trio.primary().await.expect("a primary");
    old.kill9().await.expect("it ran");
    let new = trio.wait_failover(old).await.expect("another primary");
    ledger
        .wait_acknowledged(100, LIMIT)
        .await
        .expect("transfers on the new primary");
    ledger.stop().await;
    assert!(ledger.last_error().is_some(), "the failover was felt");
    let mut conn = new.conn().await.expect("a connection");
    let report = ledger
        .check(&mut conn, &Cut::Everything)
        .await
        .expect("all is there");
    assert!(report.present >= 200, "{report:?}");
    let set = new.gtid_executed().await.expect("its GTIDs");
    let by_set = ledger
        .check(&mut conn, &Cut::Gtids(set))
        .await
        .expect("all are in the set");
    assert!(
        by_set.present + 3 >= report.present && by_set.absent == 0,
        "{by_set:?} {report:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_is_told_from_a_loss_and_from_a_change() {
    let set = Replicas::start(1).await.expect("a source and a replica");
    let (source, replica) = (set.source(), &set.replicas()[0]);
    let mut ledger = Ledger::start(fixed(&source.url())).await.expect("a ledger");
    ledger
        .wait_acknowledged(50, LIMIT)
        .await
        .expect("transfers");
    let paused = ledger.pause().await;
    set.wait_caught_up().await.expect("the replica has it all");
    replica
        .exec("STOP REPLICA")
        .await
        .expect("the replica stays where it is");
    let cut = replica.gtid_executed().await.expect("its GTIDs");
    drop(paused);
    ledger
        .wait_acknowledged(50, LIMIT)
        .await
        .expect("transfers that the replica does not get");
    ledger.stop().await;
    let gtids: std::collections::HashSet<_> = ledger
        .transfers()
        .into_iter()
        .map(|transfer| transfer.outcome)
        .collect();
    assert_eq!(
        gtids.len(),
        ledger.transfers().len(),
        "each transfer has a GTID of its own"
    );

    let mut conn = replica.conn().await.expect("a connection");
    let report = ledger
        .check(&mut conn, &Cut::Gtids(cut.clone()))
        .await
        .expect("the replica is exactly at the cut");
    assert!(report.present >= 50 && report.absent >= 50, "{report:?}");
    let error = ledger
        .check(&mut conn, &Cut::Everything)
        .await
        .expect_err("it lacks the later ones");
    assert!(error.to_string().contains("are missing"), "{error}");

    let mut conn = source.conn().await.expect("a connection");
    ledger
        .check(&mut conn, &Cut::Everything)
        .await
        .expect("the source has everything");
    let error = ledger
        .check(&mut conn, &Cut::Gtids(cut))
        .await
        .expect_err("it is past the cut");
    assert!(error.to_string().contains("must not be"), "{error}");

    let first = ledger
        .transfers()
        .into_iter()
        .find(|transfer| transfer.outcome != Outcome::Failed)
        .expect("one")
        .id;
    for (damage, repair, complaint) in [
        (
            "UPDATE ledger.accounts SET balance = balance + 1 WHERE id = 1".to_owned(),
            "UPDATE ledger.accounts SET balance = balance - 1 WHERE id = 1",
            "add up to",
        ),
        (
            "UPDATE ledger.accounts SET balance = balance + IF(id = 1, 1, -1) WHERE id < 3"
                .to_owned(),
            "UPDATE ledger.accounts SET balance = balance - IF(id = 1, 1, -1) WHERE id < 3",
            "do not match the transfers",
        ),
        (
            "INSERT INTO ledger.transfers VALUES (999999, 1, 1, 5, 0)".to_owned(),
            "DELETE FROM ledger.transfers WHERE id = 999999",
            "never made",
        ),
        (
            format!("UPDATE ledger.transfers SET id = 999999 WHERE id = {first}"),
            "SELECT 1",
            "are missing",
        ),
    ] {
        source.exec(&damage).await.expect("the damage");
        let error = ledger
            .check(&mut conn, &Cut::Everything)
            .await
            .expect_err(&damage);
        assert!(error.to_string().contains(complaint), "{damage}: {error}");
        source.exec(repair).await.expect("the repair");
    }
}
