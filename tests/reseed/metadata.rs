//! Metadata made by hand is repaired, and the real Router then works by it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use quillback::mysql::{ServerUrl, Session};
use quillback::reseed::metadata::{
    Change, Leftovers, Metadata, NewGroup, NewMember, Note, Place, RecoveryAccount, Removal, Repair,
};
use quillback_harness::cluster_metadata::{self, CLUSTER_ID};
use quillback_harness::{Router, Server, ServerOptions, Trio, until};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(120);

async fn session(server: &Server) -> Session {
    let url: ServerUrl = server.url().parse().expect("the harness gives good URLs");
    Session::connect(&url).await.expect("a session")
}

async fn load(server: &Server) -> Option<Metadata> {
    let mut session = session(server).await;
    let metadata = Metadata::load(&mut session).await.expect("an answer");
    session.close().await;
    metadata
}

async fn group_of(name: Uuid, members: &[&Server]) -> NewGroup {
    let mut asked = Vec::new();
    for member in members {
        let mut session = session(member).await;
        asked.push(NewMember::load(&mut session).await.expect("a member"));
        session.close().await;
    }
    NewGroup {
        name,
        members: asked,
        recovery_account: Some(RecoveryAccount {
            user: "quillback_recovery".to_owned(),
            host: "%".to_owned(),
        }),
        view_change_uuid: None,
    }
}

/// Repairs on a server and tells what was done.
async fn repair(on: &Server, group: &NewGroup, change: Change) -> Repair {
    let metadata = load(on).await.expect("there is metadata");
    let repair = Repair::compute(&metadata, group, change, None).expect("it can be repaired");
    let mut session = session(on).await;
    repair.run(&mut session).await.expect("the statements work");
    session.close().await;
    let metadata = load(on).await.expect("there still is metadata");
    let again = Repair::compute(&metadata, group, change, None).expect("it can be repaired");
    assert_eq!(again.statements, Vec::<String>::new());
    repair
}

async fn exec_all(server: &Server, statements: &[&str]) -> Result<()> {
    for statement in statements {
        server.exec(statement).await?;
    }
    Ok(())
}

/// Ends the group and forms it again under another name: `first` takes the writes, `others` join.
async fn form_anew(trio: &Trio, name: Uuid, first: &Server, others: &[&Server]) -> Result<()> {
    // `first` ends last: a Router writes into the metadata whenever it finds another primary, and who were primary after
    // `first` would have a transaction that it lacks.
    let before = trio
        .members()
        .iter()
        .filter(|one| one.port() != first.port());
    for server in before.chain([first]) {
        exec_all(
            server,
            &[
                "STOP GROUP_REPLICATION",
                &format!("SET PERSIST group_replication_group_name = '{name}'"),
            ],
        )
        .await?;
        let channels: u64 = server
            .one(
                "SELECT COUNT(*) FROM performance_schema.replication_connection_configuration \
                 WHERE CHANNEL_NAME = 'group_replication_applier'",
            )
            .await?;
        if channels > 0 {
            server
                .exec("RESET REPLICA ALL FOR CHANNEL 'group_replication_applier'")
                .await?;
        }
    }
    exec_all(
        first,
        &[
            "SET GLOBAL group_replication_bootstrap_group = ON",
            "START GROUP_REPLICATION",
            "SET GLOBAL group_replication_bootstrap_group = OFF",
        ],
    )
    .await?;
    for other in others {
        other
            .exec("START GROUP_REPLICATION")
            .await
            .with_context(|| other.log_tail())?;
    }
    trio.wait_online(1 + others.len()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_works_again_after_the_repair_for_a_group_of_another_name() {
    let mut trio = Trio::start().await.expect("a group");
    cluster_metadata::lay_out(&trio, "shop")
        .await
        .expect("the metadata");
    trio.add_server().await.expect("a fresh server");
    let [a, b, c, d] = trio.members() else {
        panic!("three members and a fresh server")
    };
    let router = Router::bootstrap(a).await.expect("a Router");
    router.wait_routes(a, &[b, c]).await.expect("the old group");

    // The first member is lost, a fresh server takes its place.
    let name = Uuid::new_v4();
    form_anew(&trio, name, b, &[c, d])
        .await
        .expect("a new group");
    // Router only compares its state file with the metadata: as long as nobody repairs that, it goes on with the members
    // that the metadata has, and passes over the fresh one.
    router.wait_routes(b, &[c]).await.expect("the new group");

    let group = group_of(name, &[b, c, d]).await;
    let done = repair(b, &group, Change::Formed).await;
    assert_eq!(done.cluster, "shop");
    assert_eq!(
        done.changes,
        [
            format!("the group's name: {name} instead of {}", trio.group_name()),
            format!("{} is no member any more", a.address()),
            format!("{} is a new member", d.address()),
        ]
    );
    let [Note::BootstrapRouter { host, rw_port, .. }] = done.notes.as_slice() else {
        panic!("{:?}", done.notes)
    };
    assert_eq!(host, "127.0.0.1");
    assert!(router.rw_url().ends_with(rw_port.as_ref().expect("a port")));

    // What the note says of the old Router is so.
    router.wait_closed().await.expect("it has lost its cluster");
    router.restart().await.expect("it starts");
    tokio::time::sleep(Duration::from_secs(3)).await;
    router.wait_closed().await.expect("a restart is not enough");
    let refused = router
        .configure_again(c)
        .await
        .expect_err("without --force");
    assert!(
        format!("{refused:#}").contains("already configured for a cluster"),
        "{refused:#}"
    );

    router.bootstrap_again(c).await.expect("with --force");
    assert_eq!(router.group_name().expect("its state"), name.to_string());
    router.wait_routes(b, &[c, d]).await.expect("the new group");
    let fresh = Router::bootstrap(d).await.expect("another Router");
    fresh.wait_routes(b, &[c, d]).await.expect("the new group");
    let registered: u64 = b
        .one("SELECT COUNT(*) FROM mysql_innodb_cluster_metadata.routers")
        .await
        .expect("a count");
    assert_eq!(registered, 2, "the old Router has kept its row");

    b.kill9().await.expect("it ran");
    let primary = trio.wait_failover(b).await.expect("a new primary");
    let other = if primary.port() == c.port() { d } else { c };
    for router in [&router, &fresh] {
        router
            .wait_routes(primary, &[other])
            .await
            .expect("after the failover");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_repair_a_new_router_finds_nothing() {
    let trio = Trio::start().await.expect("a group");
    cluster_metadata::lay_out(&trio, "shop")
        .await
        .expect("the metadata");
    let [a, b, c] = trio.members() else {
        panic!("three members")
    };
    let name = Uuid::new_v4();
    form_anew(&trio, name, a, &[b, c])
        .await
        .expect("a new group");
    let router = Router::bootstrap_idle(b)
        .await
        .expect("it takes the group's own name");
    assert_eq!(router.group_name().expect("its state"), name.to_string());
    router.restart().await.expect("it starts");
    tokio::time::sleep(Duration::from_secs(3)).await;
    router
        .wait_closed()
        .await
        .expect("the metadata has another name");
    let group = group_of(name, &[a, b, c]).await;
    repair(a, &group, Change::Formed).await;
    router
        .wait_routes(a, &[b, c])
        .await
        .expect("now it has the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_of_a_cluster_set_works_with_the_cluster_alone() {
    let trio = Trio::start().await.expect("a group");
    cluster_metadata::lay_out(&trio, "shop")
        .await
        .expect("the metadata");
    let [a, b, c] = trio.members() else {
        panic!("three members")
    };
    cluster_metadata::add_cluster_set(a)
        .await
        .expect("a ClusterSet");
    let router = Router::bootstrap(a).await.expect("a Router");
    router.group_name().expect_err("it knows the ClusterSet");

    let name = Uuid::new_v4();
    form_anew(&trio, name, b, &[a, c])
        .await
        .expect("a new group");
    let group = group_of(name, &[a, b, c]).await;
    repair(b, &group, Change::Formed).await;
    router
        .wait_closed()
        .await
        .expect("it has lost its ClusterSet");
    router.bootstrap_again(a).await.expect("with --force");
    assert_eq!(router.group_name().expect("its state"), name.to_string());
    router
        .wait_routes(b, &[a, c])
        .await
        .expect("the cluster alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cluster_set_left_is_removed() {
    let server = Server::start_with(
        ServerOptions::new()
            .line("plugin_load_add=group_replication.so")
            .line("group_replication_local_address=127.0.0.1:1")
            .line("group_replication_start_on_boot=OFF"),
    )
    .await
    .expect("a server");
    assert!(load(&server).await.is_none(), "a server without metadata");
    let old = Uuid::new_v4();
    cluster_metadata::lay_out_on(&server, "shop", &old.to_string(), &[&server])
        .await
        .expect("the metadata");
    cluster_metadata::add_cluster_set(&server)
        .await
        .expect("a ClusterSet");
    let group = group_of(Uuid::new_v4(), &[&server]).await;

    // A member that came or went is no reason to leave a ClusterSet.
    let kept = NewGroup {
        name: old,
        ..group.clone()
    };
    let only_members = repair(&server, &kept, Change::Members).await;
    assert!(only_members.notes.is_empty(), "{only_members:?}");
    let sets: u64 = server
        .one("SELECT COUNT(*) FROM mysql_innodb_cluster_metadata.v2_cs_members")
        .await
        .expect("a count");
    assert_eq!(sets, 2);

    let done = repair(&server, &group, Change::Formed).await;
    assert_eq!(
        done.notes,
        [
            Note::BootstrapRouter {
                router_id: 1,
                host: "app1".to_owned(),
                name: "front".to_owned(),
                rw_port: Some("6446".to_owned()),
            },
            Note::LeftClusterSet {
                domain: "world".to_owned(),
                others: vec!["elsewhere".to_owned()],
            },
            Note::ReadReplica {
                address: "replica.invalid:3306".to_owned(),
            },
        ]
    );
    let metadata = load(&server).await.expect("there is metadata");
    assert!(metadata.cluster_sets.is_empty(), "{metadata:?}");
    assert_eq!(metadata.clusters.len(), 1);
    assert_eq!(metadata.instances.len(), 1);
    let cluster = &metadata.clusters[0];
    assert_eq!(cluster.group_name(), Some(group.name));
    assert_eq!(cluster.attributes.get("replicationAccountUser"), None);
    assert_eq!(cluster.attributes.get("default"), Some(&true.into()));
    let options = cluster.router_options.as_ref().expect("it has some");
    assert_eq!(options.get("read_only_targets"), Some(&"all".into()));
    assert_eq!(options.get("target_cluster"), None);
    assert_eq!(metadata.routers[0].cluster.as_deref(), Some(CLUSTER_ID));
    assert_eq!(metadata.routers[0].cluster_set, None);
    let account = metadata.recovery_accounts();
    assert_eq!(
        account.into_iter().collect::<Vec<_>>(),
        Vec::from_iter(group.recovery_account)
    );

    let removal = Removal::compute(&metadata, None, None);
    assert_eq!(
        removal.adopt,
        "dba.createCluster('shop', {adoptFromGR: true})"
    );
    server
        .exec(&removal.statement)
        .await
        .expect("it is dropped");
    assert!(load(&server).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_channel_of_a_cluster_set_is_removed_from_each_member() {
    let trio = Trio::start().await.expect("a group");
    let [a, b, c] = trio.members() else {
        panic!("three members")
    };
    for member in [a, b, c] {
        let clean = leftovers(member).await.expect("an answer");
        assert!(clean.is_empty(), "{clean:?}");
        member
            .exec(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = 1, SOURCE_USER = 'u', \
                 SOURCE_AUTO_POSITION = 1, SOURCE_CONNECTION_AUTO_FAILOVER = 1 FOR CHANNEL 'clusterset_replication'",
            )
            .await
            .expect("a channel");
    }
    exec_all(
        a,
        &[
            "SELECT asynchronous_connection_failover_add_managed('clusterset_replication', 'GroupReplication', \
             '5f0b1c9a-37d2-4a3e-9c55-7d1f000000ff', '127.0.0.1', 1, '', 80, 60)",
            "SELECT group_replication_disable_member_action('mysql_disable_super_read_only_if_primary', \
             'AFTER_PRIMARY_ELECTION')",
        ],
    )
    .await
    .expect("as a replica cluster has it");
    for (member, place) in [
        (a, Place::Primary),
        (b, Place::Secondary),
        (c, Place::Secondary),
    ] {
        let left = until("the group's settings to arrive", LIMIT, async || {
            let left = leftovers(member).await?;
            Ok((left.disabled_actions.len() == 1 || place == Place::Secondary).then_some(left))
        })
        .await
        .expect("what is left");
        assert!(left.channel, "{left:?}");
        assert_eq!(left.followed.len(), usize::from(place == Place::Primary));
        for statement in left.statements(place) {
            member
                .exec(&statement)
                .await
                .expect("it works in a running group");
        }
    }
    for member in [a, b, c] {
        until("nothing to be left", LIMIT, async || {
            let left = leftovers(member).await?;
            anyhow::ensure!(left.is_empty(), "{left:?}");
            Ok(Some(()))
        })
        .await
        .expect("nothing is left");
    }
}

async fn leftovers(server: &Server) -> Result<Leftovers> {
    let mut session = Session::connect(&server.url().parse()?).await?;
    let left = Leftovers::load(&mut session).await?;
    session.close().await;
    Ok(left)
}
