//! Real servers as the sources of a stream: what they answer beside the dump, and for whom.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::Utc;
use mysql_async::prelude::Queryable as _;
use quillback::archive::repository::Repository;
use quillback::clock::SystemClock;
use quillback::error::{Class, Classified as _};
use quillback::gtid::GtidSet;
use quillback::mysql::ServerUrl;
use quillback::mysql::primary::PrimaryError;
use quillback::storage::MemoryStorage;
use quillback::stream::upstream::{Answer, DumpWish, Source, Upstream as _};
use quillback::stream::{self, FollowFrom, Servers, StreamEnd, StreamError, StreamOptions};
use quillback_harness::{Replicas, Server};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::url;

const LIMIT: Duration = Duration::from_secs(90);

fn wish() -> DumpWish {
    DumpWish {
        replica_uuid: Uuid::new_v4(),
        semi_sync: false,
    }
}

/// An address behind which there is now this server and now that one.
struct Service {
    address: SocketAddr,
    target: Arc<Mutex<String>>,
    _tasks: JoinSet<()>,
}

impl Service {
    async fn start(target: &Server) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let target = Arc::new(Mutex::new(target.address()));
        let mut tasks = JoinSet::new();
        let behind = Arc::clone(&target);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let target = behind.lock().expect("nobody panics with it").clone();
                connections.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(target).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Ok(Self {
            address,
            target,
            _tasks: tasks,
        })
    }

    fn turn_to(&self, target: &Server) {
        *self.target.lock().expect("nobody panics with it") = target.address();
    }

    fn url(&self, server: &Server) -> Result<ServerUrl> {
        let direct = server.url();
        Ok(direct
            .replace(&server.address(), &self.address.to_string())
            .parse()?)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_comes_from_the_server_that_was_checked() -> Result<()> {
    let (one, other) = (Server::start().await?, Server::start().await?);
    let service = Service::start(&one).await?;
    let mut servers = Servers::new(vec![service.url(&one)?], FollowFrom::Primary, false);
    let mut source = servers.find().await?;
    assert_eq!(source.info().uuid.to_string(), one.uuid().await?);
    source.dump(wish(), &GtidSet::new()).await?;
    // The next connection leads elsewhere.
    service.turn_to(&other);
    let refused = source.dump(wish(), &GtidSet::new()).await.err();
    let refused = refused.context("the other server's binlog was taken for the first one's")?;
    assert_eq!(refused.class(), Class::Transient, "{refused}");
    let StreamError::Moved {
        expected, found, ..
    } = refused
    else {
        panic!("{refused}");
    };
    assert_eq!(expected.to_string(), one.uuid().await?);
    assert_eq!(found, other.uuid().await?);
    // Looked for anew, the other one is as good.
    let mut source = servers.find().await?;
    source.dump(wish(), &GtidSet::new()).await?;
    assert_ne!(url(&one).address().to_string(), source.info().name);
    Ok(())
}

/// Removes every binlog file but an empty one; gives what is gone.
async fn purge(server: &Server) -> Result<GtidSet> {
    server.exec("FLUSH BINARY LOGS").await?;
    let files: Vec<(String, u64, String)> = server.query("SHOW BINARY LOGS").await?;
    let last = &files.last().context("a file")?.0;
    server
        .exec(&format!("PURGE BINARY LOGS TO '{last}'"))
        .await?;
    let purged: String = server.one("SELECT @@GLOBAL.gtid_purged").await?;
    Ok(purged.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_comes_only_from_a_server_that_has_nothing_else() -> Result<()> {
    let replicas = Replicas::start(2).await?;
    let [first, second] = replicas.replicas() else {
        anyhow::bail!("two were asked for")
    };
    replicas.source().exec("CREATE DATABASE d").await?;
    replicas.wait_caught_up().await?;
    let urls = [first, second, replicas.source()].map(url).to_vec();
    let mut servers = Servers::new(urls, FollowFrom::Primary, false);
    let mut source = servers.find().await?;
    assert_eq!(source.info().name, replicas.source().address());
    let held = GtidSet::new();
    let missing = purge(replicas.source()).await?;
    assert!(!missing.is_empty());
    let name = |holder: Option<Box<dyn Source>>| holder.map(|holder| holder.info().name.clone());
    let holder = servers.find_holder(&missing, &held, &mut *source).await?;
    // It has its own end, which says nothing of the primary's.
    let mut holder = holder.context("the first replica has it still")?;
    assert_eq!(holder.info().name, first.address());
    assert_eq!(holder.ask(false).await?.mark, None);
    assert_ne!(source.ask(false).await?.mark, None);

    // Somebody wrote to it: that would come along, and stand in the archive for ever.
    first.exec("SET GLOBAL super_read_only=OFF").await?;
    first.exec("CREATE DATABASE errant").await?;
    let holder = servers.find_holder(&missing, &held, &mut *source).await?;
    assert_eq!(name(holder), Some(second.address()));

    // What the other has purged, it cannot send either, whether or not it was asked for.
    let gone = purge(second).await?;
    replicas.source().exec("CREATE DATABASE e").await?;
    replicas.wait_caught_up().await?;
    let all: GtidSet = replicas.source().gtid_executed().await?.parse()?;
    let newest = all.subtract(&gone);
    assert!(!newest.is_empty());
    let holder = servers.find_holder(&newest, &held, &mut *source).await?;
    assert_eq!(name(holder), None);
    let holder = servers.find_holder(&newest, &gone, &mut *source).await?;
    assert_ne!(name(holder), None);
    Ok(())
}

/// Has a replica apply what it receives only after so many seconds.
async fn delay(replica: &Server, seconds: u32) -> Result<()> {
    replica.exec("STOP REPLICA SQL_THREAD").await?;
    replica
        .exec(&format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_DELAY={seconds}"
        ))
        .await?;
    replica.exec("START REPLICA SQL_THREAD").await
}

/// Asks until the answer has what is looked for.
async fn soon<T>(source: &mut Box<dyn Source>, pick: impl Fn(Answer) -> Option<T>) -> Result<T> {
    let asking = async {
        loop {
            if let Some(picked) = pick(source.ask(false).await?) {
                return Ok(picked);
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::time::timeout(LIMIT, asking).await?
}

async fn executed(server: &Server) -> Result<GtidSet> {
    Ok(server.gtid_executed().await?.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secondary_that_lags_is_caught_up_with_when_it_has_what_the_primary_had() -> Result<()> {
    let replicas = Replicas::start(1).await?;
    let (source, replica) = (replicas.source(), &replicas.replicas()[0]);
    source.exec("CREATE DATABASE d").await?;
    replicas.wait_caught_up().await?;
    delay(replica, 8).await?;
    let repository = Repository::init(Arc::new(MemoryStorage::new()), Utc::now()).await?;
    let options = StreamOptions {
        once: true,
        from: FollowFrom::Secondary,
        flush_interval: Duration::from_millis(200),
        ..StreamOptions::default()
    };
    let run = async || {
        let running = stream::run(
            repository.clone(),
            vec![url(source), url(replica)],
            options.clone(),
            Arc::new(SystemClock),
            Arc::new(|_| {}),
            CancellationToken::new(),
        );
        anyhow::Ok(tokio::time::timeout(LIMIT, running).await??)
    };
    run().await?;
    source.exec("CREATE DATABASE late").await?;
    let committed = Utc::now();
    let wanted = executed(source).await?;
    assert!(!wanted.is_subset(&executed(replica).await?), "it lags");
    let report = run().await?;
    assert_eq!(report.ended, StreamEnd::CaughtUp);
    let complete_to = report.complete_to.context("it is known")?;
    assert!(complete_to >= committed, "{complete_to} {committed}");
    assert!(wanted.is_subset(&report.gtid_set), "{report:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_primarys_word_nothing_is_claimed() -> Result<()> {
    let replicas = Replicas::start(1).await?;
    let (primary, replica) = (replicas.source(), &replicas.replicas()[0]);
    primary.exec("CREATE DATABASE d").await?;
    replicas.wait_caught_up().await?;
    delay(replica, 3_600).await?;
    let urls = vec![url(replica), url(primary)];
    let mut servers = Servers::new(urls, FollowFrom::Secondary, false);
    let mut source = servers.find().await?;
    assert_eq!(source.info().name, replica.address());
    primary.exec("CREATE DATABASE late").await?;
    let answer = source.ask(false).await?;
    assert_eq!((answer.unfit, answer.warning), (None, None));
    let mark = answer.mark.context("a mark")?;
    assert!(mark.complete_to.is_some());
    assert_eq!(mark.executed, Some(executed(primary).await?));

    // Somebody is committing there, perhaps for a long time: it may have its commit time already.
    let mut conn = primary.conn().await?;
    let gtid = format!("{}:7", Uuid::new_v4());
    conn.query_drop(format!("SET GTID_NEXT='{gtid}'")).await?;
    conn.query_drop("BEGIN").await?;
    let answer = source.ask(false).await?;
    assert_eq!(answer.mark.and_then(|mark| mark.complete_to), None);
    let warning = answer.warning.context("it is said")?;
    assert!(warning.contains("committing"), "{warning}");
    let answer = source.ask(false).await?;
    assert_eq!(answer.warning, None, "it was said");
    conn.query_drop("COMMIT").await?;
    let mark = source.ask(false).await?.mark.context("a mark")?;
    let known = mark.executed.context("the primary's set")?;
    assert!(gtid.parse::<GtidSet>()?.is_subset(&known));

    // It hangs.
    primary.pause()?;
    let answer = source.ask(false).await?;
    assert_eq!(answer.unfit, None);
    let mark = answer.mark.context("a mark")?;
    assert_eq!((mark.complete_to, mark.executed), (None, None));
    assert!(answer.warning.is_some());
    primary.resume()?;
    soon(&mut source, |answer| {
        answer.mark.and_then(|mark| mark.complete_to)
    })
    .await?;
    Ok(())
}

/// Makes a replica take writes, as somebody does to whom its source seems to be gone.
async fn promote(replica: &Server) -> Result<()> {
    for statement in [
        "STOP REPLICA",
        "RESET REPLICA ALL",
        "SET GLOBAL super_read_only=OFF",
        "SET GLOBAL read_only=OFF",
    ] {
        replica.exec(statement).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_given_up_and_does_not_know_it_is_noticed() -> Result<()> {
    let replicas = Replicas::start(1).await?;
    let (old, new) = (replicas.source(), &replicas.replicas()[0]);
    old.exec("CREATE DATABASE d").await?;
    replicas.wait_caught_up().await?;
    let urls = vec![url(old), url(new)];

    // Asked every few seconds, it says that it takes the writes, and nobody contradicts it.
    let mut servers = Servers::new(urls.clone(), FollowFrom::Primary, false);
    let mut source = servers.find().await?;
    assert_eq!(source.info().name, old.address());
    // The other one is away, which is no reason to leave a server that works.
    new.pause()?;
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_secs(45) {
        let answer = source.ask(false).await?;
        assert_eq!(answer.unfit, None);
        assert!(answer.mark.context("a mark")?.complete_to.is_some());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    new.resume()?;

    // It is promoted while the old one goes on: nobody may choose.
    promote(new).await?;
    let error = soon(&mut source, |answer| answer.unfit).await.err();
    let error = error.context("two take writes")?;
    let error = error.downcast::<StreamError>()?;
    assert_eq!(error.class(), Class::Refused, "{error}");
    assert!(
        matches!(error, StreamError::Primary(PrimaryError::SplitBrain { .. })),
        "{error}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_takes_no_writes_is_left_for_the_one_that_does() -> Result<()> {
    let replicas = Replicas::start(1).await?;
    let (old, new) = (replicas.source(), &replicas.replicas()[0]);
    old.exec("CREATE DATABASE d").await?;
    replicas.wait_caught_up().await?;
    old.exec("SET GLOBAL super_read_only=ON").await?;
    let urls = vec![url(old), url(new)];
    let mut servers = Servers::new(urls, FollowFrom::Primary, false);
    let mut source = servers.find().await?;
    assert_eq!(source.info().name, old.address());
    // Nobody else takes writes either, so it may speak for all of them; until the next look.
    let mark = source.ask(false).await?.mark.context("a mark")?;
    assert!(mark.complete_to.is_some());
    promote(new).await?;
    let mark = source.ask(false).await?.mark.context("a mark")?;
    assert_eq!(mark.complete_to, None);
    let unfit = soon(&mut source, |answer| answer.unfit).await?;
    assert!(unfit.starts_with(&new.address()), "{unfit}");
    assert_eq!(servers.find().await?.info().name, new.address());
    Ok(())
}
