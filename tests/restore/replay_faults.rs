//! Replays that are interrupted: by us, the server, the network, an operator.

use std::time::Duration;

use anyhow::{Result, ensure};
use quillback::error::{Class, Classified as _};
use quillback::restore::replay::{CHANNEL, ReplayError, ReplayKind};
use quillback_harness::{Port, Proxy, ServerOptions, until};
use tokio::sync::OnceCell;

use crate::replay_support::{Gate, How, KINDS, Log, Replaying, a_moment, no_trace, settings};
use crate::support::{LIMIT, chain, exec_all, full};

/// Small transactions with a gate in the middle, over several segments.
async fn gated() -> Result<&'static Log> {
    static GATED: OnceCell<Log> = OnceCell::const_new();
    GATED
        .get_or_try_init(|| {
            Log::write(ServerOptions::new(), async |server, archive| {
                exec_all(
                    server,
                    &[
                        "CREATE DATABASE d",
                        "CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, a VARCHAR(100), b BLOB)",
                    ],
                )
                .await?;
                for round in 0..4 {
                    let insert = format!("INSERT INTO d.t (a, b) VALUES ('round {round}', RANDOM_BYTES(900))");
                    let many = vec![insert.as_str(); 60];
                    exec_all(server, &many).await?;
                    exec_all(
                        server,
                        &[
                            "INSERT INTO gate.keeper VALUES ()",
                            "UPDATE d.t SET a = CONCAT(a, '!') WHERE id % 3 = 0",
                            "FLUSH BINARY LOGS",
                        ],
                    )
                    .await?;
                    crate::support::stream_once(&archive.repository, server).await?;
                }
                Ok(())
            })
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replay_goes_on_where_it_was() -> Result<()> {
    let log = gated().await?;
    for kind in KINDS {
        let target = log.target(ServerOptions::new()).await?;
        let before = settings(&target).await?;
        let gate = Gate::close(&target).await?;
        let replaying = Replaying::start(log, &target, kind, How::default());
        Gate::wait(&target).await?;
        replaying.kill().await;
        gate.open().await?;
        a_moment().await;
        // What the killed run had changed is the caller's to know: its journal has it.
        for (name, value) in &before {
            let value = match value.parse::<u64>() {
                Ok(number) => number.to_string(),
                Err(_) => format!("'{value}'"),
            };
            exec_all(&target, &[&format!("SET GLOBAL {name} = {value}")]).await?;
        }
        log.replay(&target, kind).await?;
    }
    Ok(())
}

async fn open_soon(gate: Gate) -> Result<()> {
    tokio::time::sleep(Duration::from_millis(500)).await;
    gate.open().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_given_up_leaves_nothing() -> Result<()> {
    let log = gated().await?;
    for kind in KINDS {
        let target = log.target(ServerOptions::new()).await?;
        let before = settings(&target).await?;
        let gate = Gate::close(&target).await?;
        let replaying = Replaying::start(log, &target, kind, How::default());
        Gate::wait(&target).await?;
        replaying.cancel.cancel();
        // An applier that waits for a lock is stopped only when it has it.
        let (outcome, opened) = tokio::join!(replaying.join(), open_soon(gate));
        opened?;
        let error = outcome.expect_err("it was cancelled");
        match error {
            ReplayError::Cancelled => no_trace(&target).await?,
            // A machine with much to do may not come to it in time; then the next run tidies up.
            ReplayError::StillApplying { .. } => {}
            error => anyhow::bail!("{kind:?}: {error}"),
        }
        assert_eq!(settings(&target).await?, before, "{kind:?}");
        log.replay(&target, kind).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_goes_on_when_it_is_back() -> Result<()> {
    let log = gated().await?;
    for kind in KINDS {
        let target = log.target(ServerOptions::new()).await?;
        let gate = Gate::close(&target).await?;
        let replaying = Replaying::start(log, &target, kind, How::default());
        Gate::wait(&target).await?;
        target.kill9().await?;
        let error = replaying.join().await.expect_err("the server is gone");
        assert_eq!(error.class(), Class::Transient, "{kind:?}: {error}");
        drop(gate);
        target.start_again().await?;
        log.replay(&target, kind).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_network_is_found_again() -> Result<()> {
    let log = gated().await?;
    let target = log.target(ServerOptions::new()).await?;
    let port = Port::reserve()?;
    let proxy = Proxy::start(&format!("127.0.0.1:{}", port.number())).await?;
    let how = How {
        listen: Some(format!("127.0.0.1:{}", port.number()).parse()?),
        advertise: Some(proxy.address().parse().map_err(anyhow::Error::msg)?),
    };
    // Slow, so that what is cut is under way.
    proxy.throttle(Some(100_000));
    let replaying = Replaying::start(log, &target, ReplayKind::Replication, how);
    for cut in 1..=3_u64 {
        until("something to come through", LIMIT, async || {
            ensure!(!replaying.is_finished(), "too early");
            Ok((proxy.passed_bytes() > cut * 40_000).then_some(()))
        })
        .await?;
        proxy.reset_connections().await;
    }
    proxy.throttle(None);
    replaying.join().await?;
    ensure!(proxy.connections() >= 4, "{}", proxy.connections());
    log.check(&target).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_may_stop_and_start_it() -> Result<()> {
    let log = gated().await?;
    let target = log.target(ServerOptions::new()).await?;
    let gate = Gate::close(&target).await?;
    let replaying = Replaying::start(log, &target, ReplayKind::Replication, How::default());
    Gate::wait(&target).await?;
    let mut gate = gate;
    for what in ["", "IO_THREAD", "SQL_THREAD"] {
        let on = |verb: &str| format!("{verb} REPLICA {what} FOR CHANNEL '{CHANNEL}'");
        let stop = on("STOP");
        if what == "IO_THREAD" {
            exec_all(&target, &[&stop]).await?;
        } else {
            // An applier that waits for a lock is stopped only when it has it.
            let stop = [stop.as_str()];
            let (stopped, opened) = tokio::join!(exec_all(&target, &stop), open_soon(gate));
            stopped?;
            opened?;
            gate = Gate::close(&target).await?;
        }
        a_moment().await;
        ensure!(!replaying.is_finished(), "stopped by {what}");
        exec_all(&target, &[&on("START")]).await?;
        Gate::wait(&target).await?;
    }
    let applied = replaying.applied();
    ensure!(applied < u64::try_from(log.set().count())?, "{applied}");
    gate.open().await?;
    replaying.join().await?;
    log.check(&target).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_reach_us_is_told() -> Result<()> {
    let log = gated().await?;
    let target = log.target(ServerOptions::new()).await?;
    let before = settings(&target).await?;
    let port = Port::reserve()?;
    let how = How {
        listen: None,
        advertise: Some(
            format!("127.0.0.1:{}", port.number())
                .parse()
                .map_err(anyhow::Error::msg)?,
        ),
    };
    let error = Replaying::start(log, &target, ReplayKind::Replication, how)
        .join()
        .await
        .expect_err("nobody is there");
    ensure!(matches!(error, ReplayError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    ensure!(text.contains(&port.number().to_string()), "{text}");
    no_trace(&target).await?;
    assert_eq!(settings(&target).await?, before);
    log.replay(&target, ReplayKind::Replication).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_segment_ends_both_kinds_with_its_name() -> Result<()> {
    let log = gated().await?;
    let chain = chain(&log.archive.repository).await?;
    let segment = *full(&chain).last().expect("there are segments");
    let key = segment.name.key();
    for kind in KINDS {
        let target = log.target(ServerOptions::new()).await?;
        let before = settings(&target).await?;
        let archive = log.archive.copy().await?;
        let path = archive.file(&key);
        let mut bytes = std::fs::read(&path)?;
        let at = bytes.len() - segment.index.body_bytes as usize + 40;
        bytes[at] ^= 1;
        std::fs::remove_file(&path)?;
        std::fs::write(&path, bytes)?;
        let server = crate::support::url(&target);
        let error = Replaying::of(&archive.repository, log.set(), server, kind, How::default())
            .join()
            .await
            .expect_err("a byte is changed");
        assert_eq!(error.class(), Class::Integrity, "{kind:?}: {error}");
        ensure!(error.to_string().contains(&key), "{kind:?}: {error}");
        no_trace(&target).await?;
        assert_eq!(settings(&target).await?, before, "{kind:?}");
        log.replay(&target, kind).await?;
    }
    Ok(())
}

/// The network is cut without either side hearing of it: the connection that replays stays open on
/// the server, with its locks and its GTID, and the next run ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_left_open_is_ended() -> Result<()> {
    let log = gated().await?;
    let target = log.target(ServerOptions::new()).await?;
    let proxy = Proxy::start(&target.address()).await?;
    let through = proxy.url(&target.url()).parse()?;
    let gate = Gate::close(&target).await?;
    let repository = &log.archive.repository;
    let kind = ReplayKind::Sql;
    let replaying = Replaying::of(repository, log.set(), through, kind, How::default());
    Gate::wait(&target).await?;
    proxy.black_hole().await;
    // What it waited for comes; it cannot be told, and waits with an open transaction.
    gate.open().await?;
    until("an open transaction", LIMIT, async || {
        let open: u64 = target
            .one("SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_rows_modified > 0")
            .await?;
        Ok((open > 0).then_some(()))
    })
    .await?;
    Replaying::start(log, &target, kind, How::default())
        .join()
        .await?;
    replaying.kill().await;
    log.check(&target).await
}
