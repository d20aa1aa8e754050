//! Sources of the old and of the new history, and what becomes of streams on either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::archive::identity::NewBranch;
use crate::archive::repository::Fencer;
use crate::archive::testing::{ORIGIN, Writer, at, set};
use crate::clock::SystemClock;
use crate::mysql::facts::Pending;
use crate::mysql::wire::WireError;
use crate::storage::MemoryStorage;
use crate::stream::liveness::wait_for_turn;
use crate::stream::start::Start;
use crate::stream::upstream::{Answer, Dump, DumpWish};
use crate::stream::{StreamEvent, StreamOptions, run_from};

const OLD_GROUP: Uuid = Uuid::from_u128(0xAA);
const GROUP: Uuid = Uuid::from_u128(0xBB);
const SERVER: Uuid = Uuid::from_u128(0xCC);
const OTHER: Uuid = Uuid::from_u128(0xDD);

/// Transactions of the new group.
fn new(gnos: &str) -> GtidSet {
    format!("{GROUP}:{gnos}").parse().expect("a GTID set")
}

/// A server that answers questions and sends nothing.
#[derive(Debug, Clone)]
struct Fake {
    info: SourceInfo,
    history: History,
}

impl Fake {
    fn new(uuid: Uuid, group: Option<Uuid>, executed: GtidSet) -> Self {
        Self {
            info: SourceInfo {
                name: format!("db{:x}:3306", uuid.as_u128()),
                uuid,
                group,
                version: "8.4.6".to_owned(),
                topology: "made up".to_owned(),
                may_lag: false,
                warnings: Vec::new(),
                until: None,
            },
            history: History {
                executed,
                ..History::default()
            },
        }
    }

    fn purged(mut self, purged: GtidSet) -> Self {
        self.history.purged = purged;
        self
    }
}

#[async_trait::async_trait]
impl Source for Fake {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    async fn history(&mut self) -> Result<History, StreamError> {
        Ok(self.history.clone())
    }

    async fn dump(&mut self, _: DumpWish, _: &GtidSet) -> Result<Box<dyn Dump>, StreamError> {
        let address = self.info.name.clone();
        Err(WireError::Closed { address }.into())
    }

    async fn ask(&mut self, _: bool) -> Result<Answer, StreamError> {
        let address = self.info.name.clone();
        Err(WireError::Closed { address }.into())
    }
}

/// Servers of which the first is found, unless all are gone.
#[derive(Debug, Default)]
struct Fakes {
    servers: Vec<Fake>,
    gone: Arc<AtomicBool>,
}

impl Fakes {
    fn of(servers: impl Into<Vec<Fake>>) -> Self {
        Self {
            servers: servers.into(),
            ..Self::default()
        }
    }
}

#[async_trait::async_trait]
impl Upstream for Fakes {
    async fn find(&mut self) -> Result<Box<dyn Source>, StreamError> {
        match self.servers.first() {
            Some(first) if !self.gone.load(Ordering::Relaxed) => Ok(Box::new(first.clone())),
            _ => Err(StreamError::NoPrimary {
                reason: "all are gone".to_owned(),
            }),
        }
    }

    async fn find_that(
        &mut self,
        wanted: &(dyn for<'i> Fn(&'i SourceInfo) -> bool + Sync),
    ) -> Result<Option<Box<dyn Source>>, StreamError> {
        let found = self.servers.iter().find(|server| wanted(&server.info));
        Ok(found.map(|server| Box::new(server.clone()) as Box<dyn Source>))
    }

    async fn find_holder(
        &mut self,
        _: &GtidSet,
        _: &GtidSet,
        _: &mut dyn Source,
    ) -> Result<Option<Box<dyn Source>>, StreamError> {
        Ok(None)
    }

    async fn is_registered(&mut self, _: Uuid) -> Result<bool, StreamError> {
        Ok(false)
    }
}

/// An archive with the transactions 1 to 9.
async fn archive() -> Writer {
    let mut writer = Writer::new(Arc::new(MemoryStorage::new())).await;
    writer.segment(6).await;
    writer.segment(3).await;
    writer
}

/// A reseed that goes on from 1 to 7.
async fn reseed(repository: &Repository, group: Option<Uuid>) -> Branch {
    let reseeded = NewBranch {
        group,
        server: Some(SERVER),
        ..NewBranch::failover(BranchNumber(1), set("1-7"), set("8-9"), "an accident")
    };
    let branch = repository
        .new_branch(reseeded, at(50))
        .await
        .expect("begun");
    let by = Fencer {
        source: SERVER,
        address: "db4:3306".to_owned(),
        host: "ops".to_owned(),
        now: at(51),
    };
    let fence = repository.fence_for(&branch, &by).await;
    assert!(fence.expect("put").is_some());
    branch
}

fn judged(home: &Home, have: &GtidSet, server: &Fake) -> Option<Stranger> {
    home.judge(&server.info, have, &server.history)
}

#[tokio::test]
async fn only_servers_of_the_new_group_s_history_are_followed() {
    let writer = archive().await;
    reseed(&writer.repository, Some(GROUP)).await;
    let branches = writer.repository.branches().await.expect("two");
    let home = Home::of(&branches, BranchNumber(2)).expect("a reseed");
    let fork = set("1-7");
    let own = fork.union(&new("1-5"));
    let alone = Stranger::OtherServer;
    let lost = |gnos| Some(Stranger::Lost(set(gnos)));
    for (have, uuid, group, executed, expected) in [
        // The new group, from its first moment on.
        (&fork, SERVER, Some(GROUP), fork.clone(), None),
        (&fork, OTHER, Some(GROUP), own.clone(), None),
        (&own, OTHER, Some(GROUP), own.clone(), None),
        // The restored server before it is in the group.
        (&fork, SERVER, None, fork.clone(), None),
        // The old group, whether it has what was lost or not.
        (
            &fork,
            OTHER,
            Some(OLD_GROUP),
            fork.clone(),
            Some(Stranger::OtherGroup(OLD_GROUP)),
        ),
        (&fork, OTHER, Some(OLD_GROUP), set("1-12"), lost("8-9")),
        (&own, OTHER, Some(OLD_GROUP), set("1-8"), lost("8")),
        // One that left the old group.
        (&fork, OTHER, None, fork.clone(), Some(alone(OTHER))),
        (&own, OTHER, None, fork.clone(), Some(alone(OTHER))),
        // One that got away with a transaction that was lost and joined the new group.
        (&own, OTHER, Some(GROUP), own.union(&set("9")), lost("9")),
        // The restored server joined to another group than the reseed's.
        (
            &fork,
            SERVER,
            Some(OLD_GROUP),
            fork.clone(),
            Some(Stranger::OtherGroup(OLD_GROUP)),
        ),
        // Another cluster that has it all from the group: of a ClusterSet, formed anew, a replica.
        (&own, OTHER, Some(OLD_GROUP), own.clone(), None),
        (&own, OTHER, None, own.clone(), None),
    ] {
        let server = Fake::new(uuid, group, executed.clone());
        let told = judged(&home, have, &server);
        assert_eq!(told, expected, "{group:?} {executed:#}");
    }
    // A GTID that was lost and has come again in the new history's own log.
    let have = fork.union(&set("8"));
    let again = Fake::new(OTHER, Some(GROUP), have.clone());
    assert_eq!(judged(&home, &have, &again), None);
    // What a channel of the old group once received is not there.
    let mut channel = Fake::new(SERVER, Some(GROUP), fork.clone());
    channel.history.pending = Pending {
        queued: set("8-9"),
        ..Pending::default()
    };
    assert_eq!(judged(&home, &fork, &channel), None);
}

#[tokio::test]
async fn a_single_server_s_history_is_known_by_the_server_and_then_by_its_log() {
    let writer = archive().await;
    reseed(&writer.repository, None).await;
    let branches = writer.repository.branches().await.expect("two");
    let home = Home::of(&branches, BranchNumber(2)).expect("a reseed");
    let fork = set("1-7");
    let first = GtidSet::from_iter([format!("{SERVER}:1").parse().expect("a GTID")]);
    let own = fork.union(&first);
    let old = Fake::new(OTHER, Some(OLD_GROUP), set("1-12"));
    let replica = Fake::new(OTHER, None, own.clone());
    let restored = Fake::new(SERVER, None, own.clone());
    for have in [&fork, &own] {
        assert_eq!(judged(&home, have, &restored), None);
        assert!(judged(&home, have, &old).is_some());
    }
    // A replica that was promoted is known once the archive holds what it must have.
    assert!(judged(&home, &fork, &replica).is_some());
    assert_eq!(judged(&home, &own, &replica), None);
}

async fn start(repository: &Repository, upstream: &mut Fakes) -> Result<Start, StreamError> {
    let options = StreamOptions::default();
    let uuid = Uuid::new_v4();
    Start::find(repository, upstream, &options, &SystemClock, &[], uuid).await
}

#[tokio::test]
async fn a_stream_on_the_new_primary_goes_on_by_itself_and_one_on_the_old_does_not() {
    let writer = archive().await;
    let repository = &writer.repository;
    let old = Fake::new(OTHER, Some(OLD_GROUP), set("1-12"));
    // Before the reseed the old one is the right one.
    start(repository, &mut Fakes::of([old.clone()]))
        .await
        .expect("the archive's");
    reseed(repository, Some(GROUP)).await;

    // A restored server has purged what its snapshot held, which the archive has.
    let restored = Fake::new(SERVER, Some(GROUP), set("1-7")).purged(set("1-4"));
    let begun = start(repository, &mut Fakes::of([restored.clone()])).await;
    let begun = begun.expect("no flag is needed");
    assert_eq!((begun.branch, begun.have), (BranchNumber(2), set("1-7")));
    assert!(begun.accepted_gap.is_empty() && begun.left_behind.is_none());

    let error = start(repository, &mut Fakes::of([old.clone()])).await;
    let error = error.err().expect("the old history");
    assert_eq!(error.class(), Class::Refused);
    assert_eq!(
        error.to_string(),
        format!(
            "dbdd:3306 is not of the history that the archive goes on with: it has what was left \
             behind: {ORIGIN}:8-9, and a reseed began branch 2, begun at {} (an accident), which \
             goes on in the group {GROUP}",
            rfc3339(at(50))
        )
    );
    // Of servers of both the new one is followed, whichever is found first.
    for servers in [[old.clone(), restored.clone()], [restored.clone(), old]] {
        let begun = start(repository, &mut Fakes::of(servers)).await;
        let begun = begun.expect("one of them is the right one");
        assert_eq!(begun.source.info().uuid, SERVER);
    }
    assert_eq!(repository.branches().await.expect("two").len(), 2);
}

#[tokio::test]
async fn the_old_history_goes_on_only_by_a_decision_and_once() {
    let writer = archive().await;
    let repository = &writer.repository;
    reseed(repository, Some(GROUP)).await;
    let mut old = Fakes::of([Fake::new(OTHER, Some(OLD_GROUP), set("1-12"))]);
    let options = StreamOptions {
        back_to: Some(BranchNumber(1)),
        ..StreamOptions::default()
    };
    let uuid = Uuid::new_v4();
    for run in 0..2 {
        let begun = Start::find(repository, &mut old, &options, &SystemClock, &[], uuid).await;
        let mut begun = begun.expect("it is decided");
        let made = begun.make_branch(repository, &options, at(60)).await;
        made.expect("made");
        assert_eq!(
            (begun.branch, begun.have),
            (BranchNumber(3), set("1-9")),
            "{run}"
        );
    }
    let branches = repository.branches().await.expect("three");
    let third = branches.last().expect("three");
    assert_eq!(
        (
            third.parent,
            &third.fork,
            third.lost.is_empty(),
            third.is_reseed()
        ),
        (Some(BranchNumber(1)), &set("1-9"), true, false)
    );
    assert_eq!(third.reason, "branch 1 goes on after all and not 2");
    // Without the flag too, from now on; and the new group's streams do not.
    start(repository, &mut old).await.expect("it goes on");
    let restored = Fake::new(SERVER, Some(GROUP), set("1-7"));
    let error = start(repository, &mut Fakes::of([restored])).await.err();
    assert!(matches!(error, Some(StreamError::Fork { .. })));
    // A flag that was left decides nothing anew, and there is no history that never was.
    let options = StreamOptions {
        back_to: Some(BranchNumber(7)),
        ..StreamOptions::default()
    };
    let begun = Start::find(repository, &mut old, &options, &SystemClock, &[], uuid).await;
    let error = begun.err().expect("none");
    assert_eq!(error.to_string(), "the archive has no branch 7");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_fence() {
    let writer = archive().await;
    reseed(&writer.repository, Some(GROUP)).await;
    for standby in [false, true] {
        let options = StreamOptions {
            standby,
            ..StreamOptions::default()
        };
        let observer: crate::stream::Observer = Arc::new(|event| panic!("{event:?}"));
        let before = tokio::time::Instant::now();
        let (mut nobody, cancel) = (Fakes::default(), CancellationToken::new());
        let turn = wait_for_turn(
            &writer.repository,
            &mut nobody,
            &options,
            &SystemClock,
            &observer,
            &cancel,
        );
        assert!(turn.await.expect("its turn"));
        assert_eq!(before.elapsed(), std::time::Duration::ZERO);
    }
}

/// A stream that looks in vain for its old source notices what has begun meanwhile.
#[tokio::test(start_paused = true)]
async fn a_stream_whose_cluster_is_gone_says_that_a_new_history_has_begun() {
    let writer = archive().await;
    let repository = writer.repository.clone();
    let mut upstream = Fakes::of([Fake::new(OTHER, Some(OLD_GROUP), set("1-9"))]);
    let interruptions = Arc::new(AtomicBool::new(false));
    let (gone, told) = (Arc::clone(&upstream.gone), Arc::clone(&interruptions));
    let (tell, interrupted) = tokio::sync::oneshot::channel();
    let tell = std::sync::Mutex::new(Some(tell));
    let observer: crate::stream::Observer = Arc::new(move |event| {
        if matches!(event, StreamEvent::Interrupted { .. }) {
            gone.store(true, Ordering::Relaxed);
            told.store(true, Ordering::Relaxed);
            if let Some(tell) = tell.lock().expect("not poisoned").take() {
                let _ = tell.send(());
            }
        }
    });
    let disaster = async {
        interrupted.await.expect("the source was lost");
        reseed(&repository, Some(GROUP)).await
    };
    let options = StreamOptions {
        idle_interval: std::time::Duration::from_secs(3600),
        jitter_seed: Some(1),
        ..StreamOptions::default()
    };
    let running = run_from(
        repository.clone(),
        &mut upstream,
        options,
        Arc::new(SystemClock),
        observer,
        CancellationToken::new(),
    );
    let limit = std::time::Duration::from_secs(600);
    let (ended, branch) = tokio::join!(tokio::time::timeout(limit, running), disaster);
    let error = ended.expect("it ends").expect_err("it does not go on");
    assert_eq!(error.class(), Class::Refused);
    let StreamError::LeftBehind { own, history } = &error else {
        panic!("{error}");
    };
    assert_eq!(
        (*own, &**history),
        (BranchNumber(1), &NewHistory::from(&branch))
    );
    assert!(interruptions.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_takeover_within_one_history_is_told_as_ever() {
    let mut writer = archive().await;
    let fenced = || StreamError::Fenced { own: 1, newer: 2 };
    writer.claim().await;
    let told = explain(&writer.repository, BranchNumber(1), fenced()).await;
    assert!(matches!(told, StreamError::Fenced { .. }), "{told}");
    reseed(&writer.repository, Some(GROUP)).await;
    let told = explain(&writer.repository, BranchNumber(1), fenced()).await;
    assert!(matches!(told, StreamError::LeftBehind { .. }), "{told}");
    let told = explain(&writer.repository, BranchNumber(2), fenced()).await;
    assert!(matches!(told, StreamError::Fenced { .. }), "{told}");
    // What has another cause is not covered by it.
    let away = StreamError::Stopped;
    let told = explain(&writer.repository, BranchNumber(1), away).await;
    assert!(matches!(told, StreamError::Stopped), "{told}");
}
