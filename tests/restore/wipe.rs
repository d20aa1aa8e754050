//! A server with a past: refused, and emptied only when it is named.

use anyhow::{Result, ensure};
use quillback::error::{Class, Classified as _};
use quillback::mysql::HostPort;
use quillback::restore::target::Target;
use quillback::restore::{RestoreReport, RestoreRequest, prepare};
use quillback_harness::{Replicas, Server, Trio};

use crate::program;
use crate::support::{
    Archive, State, assert_restored, exec_all, executed, on_primary, request, restore, snapshot,
    state, stream_once, url,
};

/// A past with whatever a load could stumble over.
const PAST: &[&str] = &[
    "CREATE DATABASE precious",
    "CREATE TABLE precious.parent (id INT PRIMARY KEY)",
    "CREATE TABLE precious.child (id INT PRIMARY KEY, \
     FOREIGN KEY (id) REFERENCES precious.parent (id))",
    "INSERT INTO precious.parent VALUES (1), (2)",
    "CREATE DATABASE `d`",
    "CREATE TABLE d.t (id INT PRIMARY KEY, other TEXT)",
    "CREATE DATABASE locked",
    "CREATE TABLE locked.t (id INT)",
    "ALTER DATABASE locked READ ONLY = 1",
    "CREATE DATABASE `odd ``name`",
    "CREATE TABLESPACE old ADD DATAFILE 'old.ibd'",
    "CREATE TABLE precious.spaced (id INT) TABLESPACE old",
    "CREATE SERVER far FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', HOST 'h')",
    "CREATE RESOURCE GROUP slow TYPE = USER",
    "CREATE USER old IDENTIFIED BY 'old-for-tests'",
    "CREATE ROLE elder",
    "GRANT elder TO old",
    "CREATE FUNCTION service_get_read_locks RETURNS INT SONAME 'locking_service.so'",
    "CREATE EVENT precious.ticking ON SCHEDULE EVERY 1 SECOND DO \
     INSERT IGNORE INTO precious.parent VALUES (RAND() * 1000000)",
    "XA START 'left'",
    "INSERT INTO precious.parent VALUES (3)",
    "XA END 'left'",
    "XA PREPARE 'left'",
];

async fn small() -> Result<(Archive, State)> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY)",
            "CREATE TABLESPACE old ADD DATAFILE 'old.ibd'",
            "CREATE TABLE d.spaced (id INT PRIMARY KEY) TABLESPACE old",
            "CREATE RESOURCE GROUP slow TYPE = USER",
            "CREATE SERVER far FOREIGN DATA WRAPPER mysql OPTIONS (USER 'v', HOST 'i')",
            "INSERT INTO d.t VALUES (1)",
            "CREATE EVENT d.daily ON SCHEDULE EVERY 1 DAY DO SELECT 1",
        ],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    exec_all(&source, &["INSERT INTO d.t VALUES (2)"]).await?;
    stream_once(&archive.repository, &source).await?;
    let end = state(&source).await?;
    Ok((archive, end))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_server_is_emptied_and_filled() -> Result<()> {
    let (archive, end) = small().await?;
    let server = Server::start().await?;
    exec_all(&server, PAST).await?;
    let before = executed(&server).await?;
    let address = server.address();

    // Not without its name, not by another's, and not by half of it.
    let until = ["--until", "latest"];
    let said = program::restore(&archive, &server, &until, &[]).await?;
    said.ended(&[23])?;
    for held in [
        "precious (3 tables",
        "locked (1 table",
        "odd `name",
        "1 prepared XA",
    ] {
        ensure!(said.err().contains(held), "{held}: {}", said.err());
    }
    ensure!(
        said.err().contains(&format!("--wipe {address}")),
        "{}",
        said.err()
    );
    let wrong = ["--until", "latest", "--wipe", "db9.example:3306"];
    let said = program::restore(&archive, &server, &wrong, &[]).await?;
    said.ended(&[23])?;
    ensure!(said.err().contains("db9.example:3306"), "{}", said.err());
    let half = ["--until", "latest", "--wipe", "127.0.0.1"];
    let said = program::restore(&archive, &server, &half, &[]).await?;
    said.ended(&[2])?;

    // What would be lost is shown, and a dry run loses nothing.
    let wipe = ["--until", "latest", "--wipe", &address, "--dry-run"];
    let said = program::restore(&archive, &server, &wipe, &[]).await?;
    said.ended(&[0])?;
    for held in [
        "schema precious (3 tables",
        "account",
        "elder@%",
        "old@%",
        "for ever",
    ] {
        ensure!(said.out().contains(held), "{held}: {}", said.out());
    }
    ensure!(
        executed(&server).await?.is_superset(&before),
        "its GTIDs are gone"
    );
    let rows: u64 = server.one("SELECT COUNT(*) FROM precious.parent").await?;
    ensure!(rows >= 2, "it lost rows");

    let asked = RestoreRequest {
        wipe: Some(address.parse::<HostPort>()?),
        ..request(Target::Latest, &server)
    };
    let report = restore(&archive.repository, asked.clone()).await?;
    ensure!(report.wiped, "{report:?}");
    let scheduler = "SET GLOBAL event_scheduler = ON".to_owned();
    let told = |report: &RestoreReport| report.notes.iter().any(|note| note.contains(&scheduler));
    ensure!(
        report.open_with.contains(&scheduler) && !told(&report),
        "{report:?}"
    );

    // Once more, without opening it between: that its events ran once is forgotten, and said.
    let report = restore(&archive.repository, asked).await?;
    ensure!(told(&report), "{:?}", report.notes);
    exec_all(&server, &[&scheduler]).await?;
    assert_restored(&server, &report, &end).await?;
    let left: Vec<String> = server
        .query("SELECT User FROM mysql.user WHERE User IN ('old', 'elder')")
        .await?;
    assert_eq!(left, [""; 0]);
    let functions: Vec<String> = server.query("SELECT name FROM mysql.func").await?;
    assert_eq!(functions, [""; 0]);
    Ok(())
}

/// Somebody depends on it: not even its name helps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_others_follow_is_not_emptied() -> Result<()> {
    let (archive, _) = small().await?;
    let refused = async |server: &Server, word: &str| {
        let before = executed(server).await?;
        let asked = RestoreRequest {
            wipe: Some(server.address().parse::<HostPort>()?),
            ..request(Target::Latest, server)
        };
        let error = prepare(archive.repository.clone(), asked)
            .await
            .expect_err("others depend on it");
        ensure!(error.class() == Class::Refused, "{error}");
        ensure!(error.to_string().contains(word), "{error}");
        ensure!(
            executed(server).await?.is_superset(&before),
            "it lost GTIDs"
        );
        anyhow::Ok(())
    };
    let replicas = Replicas::start(1).await?;
    exec_all(replicas.source(), &["CREATE DATABASE precious"]).await?;
    refused(replicas.source(), "read its binlog").await?;
    refused(&replicas.replicas()[0], "a replication channel runs").await?;
    drop(replicas);
    let trio = Trio::start().await?;
    refused(trio.primary().await?, "ONLINE").await?;
    refused(trio.secondaries().await?[0], "ONLINE").await
}

/// It was a member of a group once: what that has left on it is removed, and what is restored is
/// not in the way of a new group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_member_of_a_group_is_emptied() -> Result<()> {
    let (archive, end) = small().await?;
    let trio = Trio::start().await?;
    let member = trio.secondaries().await?[0];
    exec_all(member, &["STOP GROUP_REPLICATION"]).await?;
    let channels = "SELECT CHANNEL_NAME FROM performance_schema.replication_connection_configuration \
                    WHERE CHANNEL_NAME LIKE 'group\\_replication%'";
    let left: Vec<String> = member.query(channels).await?;
    ensure!(!left.is_empty(), "the group has left no channel");
    let asked = RestoreRequest {
        wipe: Some(member.address().parse::<HostPort>()?),
        ..request(Target::Latest, member)
    };
    let report = restore(&archive.repository, asked).await?;
    ensure!(report.wiped, "{report:?}");
    let left: Vec<String> = member.query(channels).await?;
    assert_eq!(left, [""; 0]);
    assert_eq!(executed(member).await?, end.set);
    exec_all(
        member,
        &[
            "SET GLOBAL super_read_only = OFF",
            "SET GLOBAL read_only = OFF",
        ],
    )
    .await?;
    let found = state(member).await?;
    assert_eq!(found.tables, end.tables);
    // The group itself has not felt it.
    exec_all(trio.primary().await?, &["CREATE DATABASE still_here"]).await
}
