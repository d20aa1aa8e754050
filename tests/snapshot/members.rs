//! Which server is read: found from any member, never a primary by accident.

use anyhow::Result;
use quillback::error::{Class, Classified as _};
use quillback::mysql::discover;
use quillback::mysql::topology::{MemberState, Role, TopologyKind};
use quillback::snapshot::load_facts;
use quillback_harness::{Replicas, Server, Trio};

use crate::support::{exec_all, manifest, memory, on_primary, snapshot, url};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_server_is_read_only_on_demand() -> Result<()> {
    let server = Server::start().await?;
    let topology = discover(&[url(&server)]).await?;
    assert_eq!(topology.kind, TopologyKind::Single);
    let mut options = on_primary();
    options.allow_primary = false;
    let error = load_facts(&[url(&server)], &options)
        .await
        .expect_err("not allowed");
    assert_eq!(error.class(), Class::Refused);
    assert!(error.to_string().contains("--allow-primary"), "{error}");

    // Every privilege without which objects would be missing in silence is asked for by name.
    for missing in ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"] {
        let all = "SELECT, SHOW VIEW, TRIGGER, EVENT, RELOAD, BACKUP_ADMIN, PROCESS";
        let user = format!("no_{}", missing.to_lowercase().replace(' ', "_"));
        let fewer = all.replace(&format!("{missing}, "), "");
        server
            .exec(&format!("CREATE USER {user} IDENTIFIED BY 'pw'"))
            .await?;
        server
            .exec(&format!("GRANT {fewer} ON *.* TO {user}"))
            .await?;
        let login = server.url_for(&user, "pw").parse()?;
        let error = snapshot(&[login], &on_primary(), &memory())
            .await
            .expect_err(missing);
        assert_eq!(error.class(), Class::Authentication, "{error}");
    }
    let wrong = server.url_for("root", "wrong").parse()?;
    let error = discover(&[wrong]).await.expect_err("a wrong password");
    assert_eq!(error.class(), Class::Authentication, "{error:?}");
    assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replica_that_lacks_least_is_read() -> Result<()> {
    let replicas = Replicas::start(2).await?;
    let source = replicas.source();
    exec_all(
        source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY)",
            "INSERT INTO d.t VALUES (1)",
        ],
    )
    .await?;
    replicas.wait_caught_up().await?;
    let [first, second] = replicas.replicas() else {
        panic!("two replicas were asked for");
    };
    // One falls behind: it goes on receiving, but applies nothing.
    first.exec("STOP REPLICA SQL_THREAD").await?;
    for asked in [source, first, second] {
        let servers = [url(asked), url(first), url(second)];
        let topology = discover(&servers).await?;
        assert_eq!(topology.kind, TopologyKind::Replication, "{topology:?}");
        assert_eq!(topology.members.len(), 3, "{topology:?}");
        assert_eq!(
            topology.primary().map(|m| m.address.to_string()),
            Some(source.address())
        );
        let choice = topology.choose_secondary(false)?;
        assert_eq!(
            choice.member.address.to_string(),
            second.address(),
            "{choice:?}"
        );
    }
    first.exec("START REPLICA SQL_THREAD").await?;

    // A server that is down is passed over.
    second.kill9().await?;
    let topology = discover(&[url(second), url(source), url(first)]).await?;
    assert!(!topology.notes.is_empty(), "{topology:?}");
    let choice = topology.choose_secondary(false)?;
    assert_eq!(choice.member.address.to_string(), first.address());
    let storage = memory();
    let mut options = on_primary();
    options.allow_primary = false;
    let report = snapshot(&[url(second), url(source), url(first)], &options, &storage).await?;
    let manifest = manifest(&*storage, &report).await?;
    assert_eq!(manifest.server.role, Role::Secondary);
    assert_eq!(manifest.server.address.to_string(), first.address());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_found_from_any_member_and_a_secondary_read() -> Result<()> {
    let trio = Trio::start().await?;
    let primary = trio.primary().await?.address();
    for member in trio.members() {
        let topology = discover(&[url(member)]).await?;
        assert_eq!(topology.kind, TopologyKind::GroupReplication);
        assert_eq!(
            topology.primary().map(|m| m.address.to_string()),
            Some(primary.clone())
        );
        assert_eq!(
            topology
                .members
                .iter()
                .filter(|m| m.is_online_secondary())
                .count(),
            2
        );
    }
    let storage = memory();
    let mut options = on_primary();
    options.allow_primary = false;
    let all: Vec<_> = trio.members().iter().map(url).collect();
    let report = snapshot(&all[..1], &options, &storage).await?;
    assert_ne!(report.server.to_string(), primary);

    // A member that is gone: the others say so, whoever is asked first.
    let gone = trio
        .members()
        .iter()
        .find(|member| member.address() != primary)
        .expect("two secondaries");
    gone.kill9().await?;
    let topology = discover(&[&[url(gone)], &all[..]].concat()).await?;
    let state = topology
        .members
        .iter()
        .find(|member| member.address.to_string() == gone.address())
        .map(|member| member.state);
    assert!(
        matches!(
            state,
            None | Some(MemberState::Unreachable | MemberState::Silent)
        ),
        "{topology:?}"
    );
    let choice = topology.choose_secondary(false)?;
    assert_ne!(choice.member.address.to_string(), gone.address());
    Ok(())
}
