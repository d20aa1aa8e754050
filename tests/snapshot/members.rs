//! Which server is read: found from any member, never a primary by accident.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use quillback::error::{Class, Classified as _};
use quillback::mysql::discover;
use quillback::mysql::topology::{ChooseError, MemberState, Role, TopologyKind};
use quillback::snapshot::{OnLag, SnapshotError, SnapshotOptions, load_facts};
use quillback::storage::Storage;
use quillback_harness::{Replicas, Server, Trio, until};

use crate::gate::Gate;
use crate::support::{exec_all, manifest, manifests, memory, on_primary, snapshot, url};

const LIMIT: Duration = Duration::from_secs(60);

fn on_secondary() -> SnapshotOptions {
    SnapshotOptions {
        allow_primary: false,
        ..on_primary()
    }
}

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

/// A source and two replicas that have its one row.
async fn two_replicas() -> Result<Replicas> {
    let replicas = Replicas::start(2).await?;
    exec_all(
        replicas.source(),
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY)",
            "INSERT INTO d.t VALUES (1)",
        ],
    )
    .await?;
    replicas.wait_caught_up().await?;
    Ok(replicas)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replica_that_lacks_least_is_read() -> Result<()> {
    let replicas = two_replicas().await?;
    let source = replicas.source();
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

/// Holds what a replica applies back by so many seconds.
async fn delay(replica: &Server, seconds: u32) -> Result<()> {
    exec_all(
        replica,
        &[
            "STOP REPLICA SQL_THREAD",
            &format!("CHANGE REPLICATION SOURCE TO SOURCE_DELAY = {seconds}"),
            "START REPLICA SQL_THREAD",
        ],
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_behind_is_passed_over_or_given_up() -> Result<()> {
    let replicas = Replicas::start(1).await?;
    let (source, replica) = (replicas.source(), &replicas.replicas()[0]);
    exec_all(
        source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY)",
            "INSERT INTO d.t VALUES (NULL)",
        ],
    )
    .await?;
    replicas.wait_caught_up().await?;
    let servers = [url(source), url(replica)];
    let options = SnapshotOptions {
        max_lag: Duration::from_secs(3),
        ..on_secondary()
    };
    // Behind while it is read: the rows are sound, but whether they are wanted is asked.
    for on_lag in [OnLag::Continue, OnLag::Fail] {
        // The backup lock forbids to stop an applier, so it is held back before.
        delay(replica, 0).await?;
        replicas.wait_caught_up().await?;
        delay(replica, 3600).await?;
        let inner = memory();
        let gate = Gate::new(Arc::clone(&inner), "data/d/t/");
        let storage: Arc<dyn Storage> = gate.clone();
        let options = SnapshotOptions {
            on_lag,
            ..options.clone()
        };
        let lagging = gate.meanwhile(async || {
            source.exec("INSERT INTO d.t VALUES (NULL)").await?;
            // Seen at three looks in a row, five seconds apart, once it is three seconds old.
            tokio::time::sleep(Duration::from_secs(25)).await;
            Ok(())
        });
        let (taken, lagged) = tokio::join!(snapshot(&servers, &options, &storage), lagging);
        lagged?;
        match on_lag {
            OnLag::Continue => {
                let report = taken?;
                let told = |w: &String| w.contains("behind its source, more than --max-lag");
                ensure!(report.warnings.iter().any(told), "{:?}", report.warnings);
                assert_eq!(manifest(&*inner, &report).await?.tables[0].rows, 1);
            }
            OnLag::Fail => {
                let error = taken.expect_err("it is behind");
                ensure!(matches!(error, SnapshotError::FellOut { .. }), "{error:?}");
                assert_eq!(error.class(), Class::Transient);
                assert!(manifests(&*inner).await?.is_empty());
            }
        }
    }
    // Behind before anything is read.
    let error = snapshot(&servers, &options, &memory())
        .await
        .expect_err("it is behind");
    ensure!(
        matches!(error, SnapshotError::Choose(ChooseError::Behind { .. })),
        "{error:?}"
    );
    ensure!(
        error
            .to_string()
            .contains("more than --max-lag allows (3 s)"),
        "{error}"
    );
    assert_eq!(error.class(), Class::Transient);
    // Who may read the primary reads it then.
    let allowed = SnapshotOptions {
        allow_primary: true,
        ..options.clone()
    };
    let report = snapshot(&servers, &allowed, &memory()).await?;
    assert_eq!(report.server.to_string(), source.address());
    // Stopped is no better.
    replica.exec("STOP REPLICA SQL_THREAD").await?;
    let error = snapshot(&servers, &options, &memory())
        .await
        .expect_err("it does not follow");
    ensure!(
        error
            .to_string()
            .contains("is STOPPED: its receiver or its applier does not run"),
        "{error}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_transactions_of_its_own_is_not_read() -> Result<()> {
    let replicas = two_replicas().await?;
    let source = replicas.source();
    let [first, second] = replicas.replicas() else {
        panic!("two replicas were asked for");
    };
    let servers = [url(source), url(first), url(second)];
    let errant = async |replica: &Server| {
        exec_all(
            replica,
            &[
                "SET GLOBAL super_read_only = OFF",
                "CREATE DATABASE IF NOT EXISTS errant",
                "SET GLOBAL super_read_only = ON",
            ],
        )
        .await
    };
    errant(first).await?;
    let report = snapshot(&servers, &on_secondary(), &memory()).await?;
    assert_eq!(report.server.to_string(), second.address());
    let own = format!("{}:1", first.uuid().await?);
    let why = format!(
        "{} has transactions that the primary lacks: {own}",
        first.address()
    );
    ensure!(report.reasons.contains(&why), "{:?}", report.reasons);

    // One that comes between the choice and the view is seen at the end.
    let (facts, source_of) = load_facts(&servers, &on_secondary()).await?;
    let plan =
        quillback::snapshot::SnapshotPlan::compute(&facts, &on_secondary(), chrono::Utc::now(), 7)?;
    errant(second).await?;
    let storage = memory();
    let error = quillback::snapshot::run(
        &plan,
        &source_of,
        Arc::clone(&storage),
        Arc::new(quillback::clock::SystemClock),
        Arc::default(),
        &tokio_util::sync::CancellationToken::new(),
    )
    .await
    .expect_err("it has its own history");
    ensure!(matches!(error, SnapshotError::Errant { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Refused);
    assert!(manifests(&*storage).await?.is_empty());

    // Nobody is left, and it does not pass by itself.
    let error = snapshot(&servers, &on_secondary(), &storage)
        .await
        .expect_err("nobody is left");
    assert_eq!(error.class(), Class::Refused, "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secondary_that_leaves_its_group_is_given_up_or_read_to_the_end() -> Result<()> {
    let trio = Trio::start().await?;
    let primary = trio.primary().await?;
    exec_all(
        primary,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY)",
            "INSERT INTO d.t VALUES (1)",
        ],
    )
    .await?;
    let executed = primary.gtid_executed().await?;
    for member in trio.members() {
        member.wait_for_gtids(&executed, LIMIT).await?;
    }
    let servers: Vec<_> = trio.members().iter().map(url).collect();
    for on_lag in [OnLag::Continue, OnLag::Fail] {
        trio.wait_online(3).await?;
        let options = SnapshotOptions {
            on_lag,
            // In a group the threads of replication run for ever, and are in nobody's way.
            lock: quillback::snapshot::LockMode::Flush,
            ..on_secondary()
        };
        let inner = memory();
        let gate = Gate::new(Arc::clone(&inner), "data/d/t/");
        let storage: Arc<dyn Storage> = gate.clone();
        let leaving = gate.meanwhile(async || {
            let left = until("the server that is read to be known", LIMIT, async || {
                for member in trio.secondaries().await? {
                    let locks: u64 = member
                        .one(
                            "SELECT COUNT(*) FROM performance_schema.metadata_locks \
                             WHERE OBJECT_TYPE = 'BACKUP LOCK'",
                        )
                        .await?;
                    if locks > 0 {
                        return Ok(Some(member));
                    }
                }
                Ok(None)
            })
            .await?;
            left.exec("STOP GROUP_REPLICATION").await?;
            tokio::time::sleep(Duration::from_secs(22)).await;
            Ok(left)
        });
        let (taken, left) = tokio::join!(snapshot(&servers, &options, &storage), leaving);
        let left = left?;
        match on_lag {
            OnLag::Continue => {
                let report = taken?;
                assert_eq!(report.server.to_string(), left.address());
                let told = |w: &String| w.contains("was OFFLINE in its group");
                ensure!(report.warnings.iter().any(told), "{:?}", report.warnings);
            }
            OnLag::Fail => {
                let error = taken.expect_err("it has left");
                ensure!(
                    matches!(error, SnapshotError::FellOut { .. })
                        && error.to_string().contains("was OFFLINE in its group"),
                    "{error:?}"
                );
                assert!(manifests(&*inner).await?.is_empty());
            }
        }
        left.exec("START GROUP_REPLICATION").await?;
    }
    Ok(())
}
