//! A group comes up, fails over, takes members back, and starts again as a whole.

use quillback_harness::Trio;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_is_replaced_and_rejoins() {
    let trio = Trio::start().await.expect("the group forms");
    let old = trio.primary().await.expect("a primary");
    old.exec("CREATE DATABASE d")
        .await
        .expect("the primary takes writes");
    old.exec("CREATE TABLE d.t (a INT PRIMARY KEY)")
        .await
        .expect("a table");
    old.kill9().await.expect("it ran");
    let new = trio.wait_failover(old).await.expect("another takes over");
    assert_ne!(new.port(), old.port());
    new.exec("INSERT INTO d.t VALUES (1)")
        .await
        .expect("the new primary takes writes");
    trio.rejoin(old, 3).await.expect("the old one is back");
    assert_eq!(trio.secondaries().await.expect("a view").len(), 2);
    let set = new.gtid_executed().await.expect("its GTIDs");
    old.wait_for_gtids(&set, std::time::Duration::from_secs(30))
        .await
        .expect("the old one catches up");
    assert_eq!(
        old.one::<u32>("SELECT COUNT(*) FROM d.t")
            .await
            .expect("a count"),
        1
    );

    trio.set_primary(old).await.expect("a planned switch");
    trio.restart_all()
        .await
        .expect("the whole group starts again");
    assert_eq!(
        trio.primary()
            .await
            .expect("a primary")
            .one::<u32>("SELECT COUNT(*) FROM d.t")
            .await
            .expect("a count"),
        1
    );
}
