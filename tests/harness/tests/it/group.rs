//! A group comes up, fails over, takes members back, and starts again as a whole.

use quillback_harness::{Stack, Trio, TrioOptions};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_group_forms_on_mysqls_own_protocol_under_a_given_name() {
    let name = "5f0c1c5e-6f0e-4a52-9a3c-0d7d0a5f6e11";
    let options = TrioOptions::new().stack(Stack::MySql).group_name(name);
    let trio = Trio::start_with(options).await.expect("the group forms");
    let primary = trio.primary().await.expect("a primary");
    primary.exec("CREATE DATABASE d").await.expect("a write");
    let executed = primary.gtid_executed().await.expect("its GTIDs");
    assert!(executed.starts_with(name), "{executed}");
    let stack = "SELECT @@group_replication_communication_stack";
    assert_eq!(
        primary.one::<String>(stack).await.expect("a value"),
        "MYSQL"
    );
}
