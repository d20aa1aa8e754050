//! Who is who, asked of any member, with members down, and with our own streams about.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quillback::archive::repository::Repository;
use quillback::clock::{Clock as _, SystemClock};
use quillback::error::{Class, Classified as _};
use quillback::mysql::discover;
use quillback::mysql::primary::find_primary;
use quillback::mysql::topology::{MemberState, Role, TopologyKind};
use quillback::storage::MemoryStorage;
use quillback::stream::{self, StreamOptions};
use quillback_harness::{Proxy, Replicas, Server, Trio, until};
use tokio_util::sync::CancellationToken;

use crate::support::url;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_stream_is_no_replica() -> Result<()> {
    let server = Server::start().await?;
    let repository = Repository::init(Arc::new(MemoryStorage::new()), SystemClock.now()).await?;
    let cancel = CancellationToken::new();
    let streaming = tokio::spawn(stream::run(
        repository,
        vec![url(&server)],
        StreamOptions::default(),
        Arc::new(SystemClock),
        Arc::new(|_| {}),
        cancel.clone(),
    ));
    until(
        "the server to list the stream",
        Duration::from_secs(60),
        async || {
            let listed: Vec<mysql_async::Row> = server.query("SHOW REPLICAS").await?;
            Ok((listed.len() == 1).then_some(()))
        },
    )
    .await?;
    let topology = discover(&[url(&server)]).await?;
    assert_eq!(topology.kind, TopologyKind::Single, "{topology:?}");
    assert_eq!(topology.members.len(), 1);
    assert_eq!(topology.notes, [""; 0]);
    cancel.cancel();
    streaming.await??;

    server.kill9().await?;
    let error = discover(&[url(&server)]).await.expect_err("it is down");
    assert_eq!(error.class(), Class::Transient);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_is_found_from_any_of_its_servers() -> Result<()> {
    let replicas = Replicas::start(2).await?;
    replicas.source().exec("CREATE DATABASE d").await?;
    replicas.wait_caught_up().await?;
    let all = [
        replicas.source(),
        &replicas.replicas()[0],
        &replicas.replicas()[1],
    ];
    for asked in all {
        let topology = discover(&[url(asked)]).await?;
        assert_eq!(topology.kind, TopologyKind::Replication, "{topology:?}");
        assert_eq!(topology.asked.to_string(), asked.address());
        for (server, role) in all
            .iter()
            .zip([Role::Primary, Role::Secondary, Role::Secondary])
        {
            let member = topology
                .members
                .iter()
                .find(|member| member.address.to_string() == server.address())
                .with_context(|| format!("{topology:?}"))?;
            assert_eq!((member.role, member.state), (role, MemberState::Online));
        }
        assert_eq!(topology.members.len(), 3, "{topology:?}");
    }

    // One is down, and it is the one that is asked first.
    let [_, first, second] = all;
    first.kill9().await?;
    let topology = discover(&[url(first), url(second)]).await?;
    assert_eq!(topology.asked.to_string(), second.address());
    assert!(
        topology
            .notes
            .iter()
            .any(|note| note.contains(&first.address())),
        "{topology:?}"
    );
    assert_eq!(
        topology.primary().map(|member| member.address.to_string()),
        Some(replicas.source().address())
    );
    // The source itself.
    replicas.source().kill9().await?;
    let topology = discover(&[url(replicas.source()), url(second)]).await?;
    assert!(topology.primary().is_none(), "{topology:?}");
    let choice = topology.choose_secondary(false);
    assert!(
        choice.is_err() || choice.is_ok_and(|c| c.member.address.to_string() == second.address())
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_found_while_a_member_is_down() -> Result<()> {
    let trio = Trio::start().await?;
    let primary = trio.primary().await?;
    let secondaries = trio.secondaries().await?;
    let (gone, left) = (secondaries[0], secondaries[1]);
    gone.kill9().await?;
    for asked in [primary, left] {
        let topology = discover(&[url(gone), url(asked)]).await?;
        assert_eq!(topology.kind, TopologyKind::GroupReplication);
        assert_eq!(
            topology.primary().map(|member| member.address.to_string()),
            Some(primary.address())
        );
        assert!(
            topology
                .notes
                .iter()
                .any(|note| note.contains(&gone.address())),
            "{topology:?}"
        );
    }
    // A member that left by itself still answers, but does not know the group any more.
    left.exec("STOP GROUP_REPLICATION").await?;
    let topology = discover(&[url(left), url(primary)]).await?;
    assert_eq!(
        topology.asked.to_string(),
        primary.address(),
        "{topology:?}"
    );
    assert_eq!(topology.kind, TopologyKind::GroupReplication);
    Ok(())
}

/// The members know each other by addresses that we may be unable to reach.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_group_is_found_through_the_only_member_that_we_reach() -> Result<()> {
    let trio = Trio::start().await?;
    let primary = trio.primary().await?;
    let mut servers = Vec::new();
    let mut proxies = Vec::new();
    for member in trio.secondaries().await? {
        let proxy = Proxy::start(&member.address()).await?;
        member.stop().await?;
        let port = format!("--report-port={}", proxy.port());
        member.start_again_with(&[&port]).await?;
        trio.wait_online(3).await?;
        servers.push(proxy.url(&member.url()).parse()?);
        proxies.push(proxy);
    }
    servers.push(url(primary));
    let found = find_primary(&servers).await?;
    assert_eq!(found.met().count(), 3);
    for proxy in &proxies {
        proxy.cut().await;
    }
    for _ in 0..2 {
        let found = find_primary(&servers).await?;
        assert_eq!(found.member.address.to_string(), primary.address());
        servers.rotate_left(1);
    }
    trio.wait_online(3).await
}
