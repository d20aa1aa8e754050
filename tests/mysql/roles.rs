//! Who takes the writes, before and after promotions, elections and mistakes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use quillback::error::{Class, Classified as _};
use quillback::gtid::GtidSet;
use quillback::mysql::primary::{FoundPrimary, PrimaryError, find_primary};
use quillback::mysql::purge::{PurgeFacts, Survey, Wanted};
use quillback::mysql::replicas::registered_dumps;
use quillback::mysql::role::{RoleNow, role_now};
use quillback::mysql::topology::{MemberState, TopologyKind};
use quillback::mysql::wire::{BinlogDump, DumpOptions, DumpPacket};
use quillback::mysql::{ServerFacts, ServerUrl, Session, discover};
use quillback_harness::{Replicas, Server, ServerOptions, Trio, until};
use uuid::Uuid;

use crate::support::{connect, url};

const LIMIT: Duration = Duration::from_secs(90);

async fn role(server: &Server, kind: TopologyKind) -> Result<RoleNow> {
    role_at(&url(server), kind).await
}

async fn role_at(url: &ServerUrl, kind: TopologyKind) -> Result<RoleNow> {
    let mut session = Session::connect(url).await?;
    let facts = ServerFacts::load(&mut session).await?;
    let role = role_now(&mut session, &facts.version, kind).await?;
    session.close().await;
    Ok(role)
}

async fn primary_of(servers: &[&Server]) -> Result<FoundPrimary, PrimaryError> {
    let urls: Vec<ServerUrl> = servers.iter().map(|server| url(server)).collect();
    find_primary(&urls).await
}

async fn follow(
    replica: &Server,
    source: &Server,
    user: (&str, &str),
    channel: &str,
) -> Result<()> {
    let (user, password) = user;
    replica
        .exec(&format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={}, \
             SOURCE_USER='{user}', SOURCE_PASSWORD='{password}', SOURCE_AUTO_POSITION=1, \
             GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=10000 {channel}",
            source.port()
        ))
        .await?;
    replica.exec(&format!("START REPLICA {channel}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_is_found_and_two_sources_are_refused() -> Result<()> {
    let replicas = Replicas::start(2).await?;
    replicas.source().exec("CREATE DATABASE d").await?;
    replicas.wait_caught_up().await?;
    let old = replicas.source();
    let [new, other] = replicas.replicas() else {
        anyhow::bail!("two were asked for")
    };
    let kind = TopologyKind::Replication;
    assert_eq!(role(old, kind).await?, RoleNow::Primary);
    let follows = |running| RoleNow::Replica {
        source: old.address().parse().expect("an address"),
        running,
    };
    until("the replica to run", LIMIT, async || {
        Ok((role(new, kind).await? == follows(true)).then_some(()))
    })
    .await?;
    let found = primary_of(&[other]).await?;
    assert_eq!(found.member.address.to_string(), old.address());
    assert!(!found.read_only);
    assert_eq!(found.met().count(), 3);

    // A planned promotion, step by step.
    old.exec("SET GLOBAL super_read_only=ON").await?;
    assert_eq!(role(old, kind).await?, RoleNow::ReadOnly);
    let found = primary_of(&[other]).await?;
    assert_eq!(found.member.address.to_string(), old.address());
    assert!(found.read_only, "all follow it still");
    new.exec("STOP REPLICA").await?;
    assert_eq!(role(new, kind).await?, follows(false));
    new.exec("RESET REPLICA ALL").await?;
    let error = primary_of(&[old, new, other]).await.err();
    let error = error.context("nobody can be written to, and two have no source")?;
    assert_eq!(error.class(), Class::Transient, "{error}");
    new.exec("RESET PERSIST super_read_only").await?;
    new.exec("SET GLOBAL super_read_only=OFF").await?;
    new.exec("SET GLOBAL read_only=OFF").await?;
    assert_eq!(role(new, kind).await?, RoleNow::Primary);
    for asked in [[old, new, other], [other, new, old], [new, old, other]] {
        let found = primary_of(&asked).await?;
        assert_eq!(found.member.address.to_string(), new.address());
        assert!(!found.read_only);
    }

    // The old one is writable again: nobody may choose, whoever is asked first.
    new.exec("CREATE DATABASE e").await?;
    old.exec("SET GLOBAL super_read_only=OFF").await?;
    old.exec("SET GLOBAL read_only=OFF").await?;
    for asked in [[old, new, other], [other, new, old], [new, old, other]] {
        match primary_of(&asked).await {
            Err(PrimaryError::SplitBrain { servers }) => {
                let mut found: Vec<_> = servers.iter().map(ToString::to_string).collect();
                let mut expected = [old.address(), new.address()];
                found.sort();
                expected.sort();
                assert_eq!(found, expected);
            }
            other => panic!("{other:?}"),
        }
    }
    // It becomes a replica of the new one; that it is writable then is no matter.
    new.create_account(&quillback_harness::Account {
        user: "again".to_owned(),
        password: "again-for-tests".to_owned(),
        grants: vec!["REPLICATION SLAVE ON *.*".to_owned()],
    })
    .await?;
    follow(old, new, ("again", "again-for-tests"), "").await?;
    let found = primary_of(&[old, new, other]).await?;
    assert_eq!(found.member.address.to_string(), new.address());
    assert!(matches!(role(old, kind).await?, RoleNow::Replica { .. }));

    // The new source dies: the other two cannot tell.
    new.kill9().await?;
    let error = primary_of(&[old, new, other]).await.err();
    let error = error.context("the source is gone")?;
    assert_eq!(error.class(), Class::Transient, "{error}");
    assert!(error.to_string().contains("replicates from"), "{error}");
    Ok(())
}

/// What the documentation says that a streamer needs is enough for every question here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamers_privileges_are_enough() -> Result<()> {
    let grants = [
        "REPLICATION SLAVE, REPLICATION CLIENT ON *.*",
        "SELECT ON performance_schema.replication_group_members",
        "SELECT ON performance_schema.replication_group_member_stats",
    ];
    let options = ServerOptions::new()
        .account("streamer", "s-for-tests", &grants)
        .line("binlog_expire_logs_seconds=1234");
    let server = Server::start_with(options).await?;
    server.exec("CREATE DATABASE d").await?;
    let url: ServerUrl = server.url_for("streamer", "s-for-tests").parse()?;
    let found = find_primary(std::slice::from_ref(&url)).await?;
    assert_eq!(found.topology.kind, TopologyKind::Single);
    assert_eq!(found.topology.notes, [""; 0]);
    for kind in [TopologyKind::Single, TopologyKind::Replication] {
        assert_eq!(role_at(&url, kind).await?, RoleNow::Primary);
    }
    let out = RoleNow::OutOfGroup {
        state: MemberState::Offline,
    };
    assert_eq!(role_at(&url, TopologyKind::GroupReplication).await?, out);

    let mut session = Session::connect(&url).await?;
    let facts = PurgeFacts::load(&mut session).await?;
    assert_eq!(facts.expire_seconds, Some(1234));
    assert_eq!(facts.space_limit, None);
    let status: (String, u64) = server
        .one::<(String, u64, String, String, String)>("SHOW BINARY LOG STATUS")
        .await
        .map(|row| (row.0, row.1))?;
    let last = facts.binlog_files.last().context("a binlog")?;
    assert_eq!((last.name.clone(), last.bytes), status);
    assert_eq!(facts.waiting_bytes(&status.0, 4), Some(status.1 - 4));
    let age = chrono::Utc::now() - facts.time;
    assert!(age.num_seconds().abs() < 60, "{age}");
    for (statement, expected) in [
        ("SET GLOBAL binlog_expire_logs_auto_purge=OFF", None),
        ("SET GLOBAL binlog_expire_logs_auto_purge=ON", Some(1234)),
        ("SET GLOBAL binlog_expire_logs_seconds=0", None),
    ] {
        server.exec(statement).await?;
        let facts = PurgeFacts::load(&mut session).await?;
        assert_eq!(facts.expire_seconds, expected, "{statement}");
    }

    // Somebody works on it, and lets only administrators in: that passes.
    server.exec("SET GLOBAL offline_mode=ON").await?;
    let error = find_primary(std::slice::from_ref(&url)).await.err();
    let error = error.context("the server is offline")?;
    assert_eq!(error.class(), Class::Transient, "{error}");
    let error = connect(&url).await.err().context("the same by packets")?;
    assert_eq!(error.server_code(), Some(3032), "{error}");
    assert_eq!(error.class(), Class::Transient, "{error}");
    server.exec("SET GLOBAL offline_mode=OFF").await?;
    let mut session = Session::connect(&url).await?;

    // A dump shows in the list under its UUID, and goes with its connection.
    let version = ServerFacts::load(&mut session).await?.version;
    assert_eq!(registered_dumps(&mut session, &version).await?, []);
    let replica_uuid = Uuid::new_v4();
    let options = DumpOptions {
        server_id: 0xF000_0009,
        replica_uuid,
        heartbeat: Duration::from_millis(200),
        semi_sync: false,
    };
    let mut dump = BinlogDump::start(connect(&url).await?, &options, &GtidSet::new()).await?;
    assert!(matches!(dump.next().await?, DumpPacket::Event { .. }));
    let listed = registered_dumps(&mut session, &version).await?;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].replica_uuid, replica_uuid);
    assert_eq!(
        (listed[0].server_id, listed[0].streamer),
        (0xF000_0009, true)
    );
    drop(dump);
    until("the dump to be forgotten", LIMIT, async || {
        let mut session = Session::connect(&url).await?;
        let left = registered_dumps(&mut session, &version).await?;
        session.close().await;
        Ok(left.is_empty().then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_group_know_their_roles_and_what_they_still_have() -> Result<()> {
    let trio = Trio::start().await?;
    let kind = TopologyKind::GroupReplication;
    let primary = trio.primary().await?;
    let secondaries = trio.secondaries().await?;
    let (first, second) = (secondaries[0], secondaries[1]);
    primary.exec("CREATE DATABASE d").await?;
    let wanted: GtidSet = primary.gtid_executed().await?.parse()?;
    for member in [first, second] {
        member.wait_for_gtids(&wanted.to_string(), LIMIT).await?;
    }
    assert_eq!(role(primary, kind).await?, RoleNow::Primary);
    assert_eq!(role(first, kind).await?, RoleNow::Secondary);

    // One purges, one is down, one still has everything.
    primary.exec("FLUSH BINARY LOGS").await?;
    let file: String = primary
        .one::<(String, u64, String, String, String)>("SHOW BINARY LOG STATUS")
        .await?
        .0;
    primary
        .exec(&format!("PURGE BINARY LOGS TO '{file}'"))
        .await?;
    let purged: GtidSet = primary
        .one::<String>("SELECT REPLACE(@@GLOBAL.gtid_purged, '\n', '')")
        .await?
        .parse()?;
    assert!(!purged.is_empty());
    let urls: Vec<ServerUrl> = trio.members().iter().map(url).collect();
    let executed: GtidSet = primary.gtid_executed().await?.parse()?;
    let survey = Survey::of(&urls).await;
    let found = survey.holders(Wanted {
        missing: &purged,
        held: &GtidSet::new(),
        executed: &executed,
    });
    let mut holders: Vec<_> = found.holders.iter().map(ToString::to_string).collect();
    holders.sort();
    let mut expected = [first.address(), second.address()];
    expected.sort();
    assert_eq!(holders, expected);
    assert_eq!(found.others.len(), 1);
    assert!(found.others[0].1.contains("has purged"), "{found:?}");
    let never: GtidSet = format!("{}:1-3", Uuid::new_v4()).parse()?;
    let found = survey.holders(Wanted {
        missing: &never,
        held: &GtidSet::new(),
        executed: &executed,
    });
    assert_eq!(found.holders, []);

    second.exec("STOP GROUP_REPLICATION").await?;
    let offline = RoleNow::OutOfGroup {
        state: MemberState::Offline,
    };
    assert_eq!(role(second, kind).await?, offline);
    second.exec("START GROUP_REPLICATION").await?;
    trio.wait_online(3).await?;

    // The primary alone, cut off from both others, cannot commit and is none to follow.
    first.pause()?;
    second.pause()?;
    until("the primary to lose its majority", LIMIT, async || {
        let role = role(primary, kind).await?;
        Ok((role == RoleNow::NoMajority).then_some(()))
    })
    .await?;
    let error = primary_of(&[primary]).await.err().context("no majority")?;
    assert_eq!(error.class(), Class::Transient, "{error}");
    first.resume()?;
    second.resume()?;
    Ok(())
}

/// A group of one member, which is all that a ClusterSet needs to be one.
async fn lone_group() -> Result<Server> {
    let account = "REPLICATION SLAVE, BACKUP_ADMIN, CONNECTION_ADMIN, GROUP_REPLICATION_STREAM";
    let options = ServerOptions::new()
        .line("plugin_load_add=group_replication.so")
        .line(format!("group_replication_group_name={}", Uuid::new_v4()))
        .line("loose-group_replication_communication_stack=MYSQL")
        .line("group_replication_start_on_boot=OFF")
        .line("group_replication_single_primary_mode=ON")
        .line("group_replication_message_cache_size=134217728")
        .account("follower", "f-for-tests", &[&format!("{account} ON *.*")]);
    let server = Server::start_with(options).await?;
    server
        .exec(&format!(
            "SET GLOBAL group_replication_local_address='{}'",
            server.address()
        ))
        .await?;
    server
        .exec("SET GLOBAL group_replication_bootstrap_group=ON")
        .await?;
    server
        .exec("START GROUP_REPLICATION USER='follower', PASSWORD='f-for-tests'")
        .await?;
    until("the group of one", LIMIT, async || {
        let role = role(&server, TopologyKind::GroupReplication).await?;
        Ok((role == RoleNow::Primary).then_some(()))
    })
    .await?;
    Ok(server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_set_leads_to_its_primary_cluster() -> Result<()> {
    const CHANNEL: &str = "FOR CHANNEL 'clusterset_replication'";
    let (top, below) = (lone_group().await?, lone_group().await?);
    let kind = TopologyKind::GroupReplication;
    let login = ("follower", "f-for-tests");
    follow(&below, &top, login, CHANNEL).await?;
    let follows = RoleNow::ReplicaCluster {
        source: top.address().parse()?,
    };
    for kind in [kind, TopologyKind::ClusterSet] {
        assert_eq!(role(&below, kind).await?, follows);
        assert_eq!(role(&top, kind).await?, RoleNow::Primary);
    }
    let found = primary_of(&[&below]).await?;
    assert_eq!(found.member.address.to_string(), top.address());
    assert_eq!(found.topology.kind, TopologyKind::ClusterSet);
    assert_eq!(found.through.len(), 1);
    assert_eq!(found.met().count(), 2);

    // A snapshot stays below, where nobody writes.
    let topology = discover(&[url(&below)]).await?;
    assert_eq!(topology.kind, TopologyKind::ClusterSet);
    let choice = topology.choose_secondary(false)?;
    assert_eq!(choice.member.address.to_string(), below.address());
    // It does not see us through: the primary cluster is an ordinary group to who asks only it.
    let topology = discover(&[url(&top)]).await?;
    assert_eq!(topology.kind, kind);
    assert!(topology.choose_secondary(false).is_err());

    // The primary cluster does not answer: that is said, and a snapshot is taken all the same.
    top.pause()?;
    let error = primary_of(&[&below]).await.err().context("it hangs")?;
    assert!(
        matches!(error, PrimaryError::PrimaryCluster { .. }),
        "{error}"
    );
    assert_eq!(error.class(), Class::Transient);
    assert!(error.to_string().contains(&top.address()), "{error}");
    discover(&[url(&below)]).await?.choose_secondary(false)?;
    top.resume()?;

    // A switchover done by halves.
    follow(&top, &below, login, CHANNEL).await?;
    let error = primary_of(&[&below]).await.err().context("a ring")?;
    assert!(matches!(error, PrimaryError::Ring { .. }), "{error}");
    assert_eq!(error.class(), Class::Refused);
    // Done in full: the old primary cluster says by itself that it is none any more.
    below.exec(&format!("STOP REPLICA {CHANNEL}")).await?;
    below.exec(&format!("RESET REPLICA ALL {CHANNEL}")).await?;
    assert!(matches!(
        role(&top, kind).await?,
        RoleNow::ReplicaCluster { .. }
    ));
    for asked in [&top, &below] {
        let found = primary_of(&[asked]).await?;
        assert_eq!(found.member.address.to_string(), below.address());
    }

    // An emergency failover back, of which the cluster that was given up does not know.
    top.exec(&format!("STOP REPLICA {CHANNEL}")).await?;
    top.exec(&format!("RESET REPLICA ALL {CHANNEL}")).await?;
    for asked in [[&top, &below], [&below, &top]] {
        let error = primary_of(&asked).await.err().context("both take writes")?;
        assert!(matches!(error, PrimaryError::SplitBrain { .. }), "{error}");
    }
    // Once that is fenced, nobody asks it for its transactions.
    below.exec("SET GLOBAL super_read_only=ON").await?;
    for asked in [[&top, &below], [&below, &top]] {
        let found = primary_of(&asked).await?;
        assert_eq!(found.member.address.to_string(), top.address());
    }
    Ok(())
}
