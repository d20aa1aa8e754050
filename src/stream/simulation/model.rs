//! What must hold: the archive against the transactions that were committed.
//!
//! The model knows three things only: what the cluster committed and did not lose, what somebody
//! was told to be safe, and what an operator has decided.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cluster::Transaction;
use super::picture::{Picture, Read};
use super::source::Network;
use super::store::{Contents, FarStorage, Weather};
use super::world::{Gate, World};
use crate::archive::repository::{ArchiveError, Repository};
use crate::error::{Class, Classified as _, with_causes};
use crate::gtid::GtidSet;
use crate::storage::{MemoryStorage, Storage, StorageError};
use crate::stream::StreamEvent;

/// A reader that finds the log changed starts anew so often.
const READINGS: u32 = 40;

/// Everything of one history that is no process.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) network: Arc<Network>,
    pub(super) storage: MemoryStorage,
    pub(super) weather: Arc<Mutex<Weather>>,
    pub(super) contents: Contents,
    told: Mutex<Told>,
}

/// What was said and decided.
#[derive(Debug, Default)]
struct Told {
    /// What somebody was told to be in the archive.
    promised: GtidSet,
    accept_gap: Option<GtidSet>,
    new_branch: Option<GtidSet>,
    /// All that was ever accepted as lost.
    accepted: GtidSet,
    /// A streamer has refused a server that gave GTIDs again, which no decision can mend.
    stuck: bool,
}

/// What must be there already when a reader begins.
#[derive(Debug, Clone)]
pub(super) struct Promise {
    pub(super) promised: GtidSet,
    acknowledged: GtidSet,
}

impl Model {
    pub(super) fn new(network: Arc<Network>, storage: MemoryStorage) -> Self {
        Self {
            network,
            storage,
            weather: Arc::new(Mutex::new(Weather::fine())),
            contents: Contents::default(),
            told: Mutex::default(),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn world(&self) -> &World {
        &self.network.world
    }

    /// A streamer tells what happens.
    pub(super) fn hear(&self, who: &str, event: &StreamEvent) {
        match event {
            StreamEvent::Segment { key, .. } => {
                let contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
                match contents.get(key) {
                    Some(added) => self.told().promised.extend_from(added),
                    None => self
                        .world()
                        .fail(format_args!("{who} tells of {key}, which nobody put")),
                }
                self.world().tell(format_args!("{who}: {key} is durable"));
            }
            StreamEvent::Alive | StreamEvent::Warning { .. } => {}
            event => {
                // Its UUID is another one in each run of the same seed.
                self.world().tell(format_args!("{who}: {event:?}"));
            }
        }
    }

    /// What streamers are to be started with.
    pub(super) fn decisions(&self) -> (Option<GtidSet>, Option<GtidSet>) {
        let told = self.told();
        (told.accept_gap.clone(), told.new_branch.clone())
    }

    /// Somebody reads the refusal and accepts the gap, if it is one.
    pub(super) fn decide_gap(&self, server: &str, missing: &GtidSet) {
        let mut told = self.told();
        let again = missing.intersect(&told.promised);
        if !again.is_empty() && !self.network.cluster().reuses_gtids() {
            self.world()
                .fail(format_args!("{server}: a gap of what is safe: {again:#}"));
        }
        told.accepted.extend_from(missing);
        told.accept_gap = Some(missing.clone());
    }

    /// Somebody reads the refusal and leaves behind what was lost, if it was.
    pub(super) fn decide_fork(&self, server: &str, missing: &GtidSet) {
        let cluster = self.network.cluster();
        let there: GtidSet = cluster.lineage.iter().map(|t| t.gtid.clone()).collect();
        let invented = missing.intersect(&there);
        if !invented.is_empty() && !cluster.reuses_gtids() {
            self.world()
                .fail(format_args!("{server}: a fork at {invented:#}, not lost"));
        }
        self.told().new_branch = Some(missing.clone());
    }

    /// The words do not fit any more: the next refusal says what to name.
    pub(super) fn decide_anew(&self) {
        let mut told = self.told();
        (told.accept_gap, told.new_branch) = (None, None);
    }

    pub(super) fn note_other_payload(&self, who: &str) {
        let cluster = self.network.cluster();
        if !cluster.reuses_gtids() || cluster.former.is_empty() {
            self.world().fail(format_args!(
                "{who} sees another payload where there is none"
            ));
        }
        self.told().stuck = true;
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.told().stuck
    }

    pub(super) fn promise(&self) -> Promise {
        let cluster = self.network.cluster();
        let all = cluster.former.iter().flatten().chain(&cluster.lineage);
        Promise {
            promised: self.told().promised.clone(),
            acknowledged: all
                .filter(|t| cluster.acknowledged.contains(&t.id))
                .map(|t| t.gtid.clone())
                .collect(),
        }
    }

    /// Reads the archive as it is at this moment.
    pub(super) async fn look(&self) -> Option<Picture> {
        let storage: Arc<dyn Storage> = Arc::new(self.storage.clone());
        let promise = self.promise();
        let picture = match Repository::open(storage).await {
            Ok(repository) => Picture::take(&repository).await,
            Err(error) => Err(error),
        };
        match picture {
            Ok(picture) => {
                self.judge("a look", &picture, &promise);
                Some(picture)
            }
            Err(error) => {
                let error = with_causes(&error);
                self.world().fail(format_args!("cannot read: {error}"));
                None
            }
        }
    }

    /// Reads the archive over the network while it changes.
    pub(super) async fn read(self: Arc<Self>) {
        let storage = FarStorage {
            world: Arc::clone(&self.network.world),
            inner: self.storage.clone(),
            weather: Arc::new(Mutex::new(Weather::fine())),
            gate: Gate::new(),
            who: "reader".to_owned(),
            contents: Contents::default(),
        };
        let promise = self.promise();
        let Ok(repository) = Repository::open(Arc::new(storage)).await else {
            return self.world().fail("a reader finds no archive");
        };
        for _ in 0..READINGS {
            match Picture::take(&repository).await {
                Ok(picture) => return self.judge("a reader", &picture, &promise),
                Err(error) if may_pass(&error) => {}
                Err(error) => {
                    let error = with_causes(&error);
                    return self.world().fail(format_args!("a reader fails: {error}"));
                }
            }
        }
        self.world()
            .tell("a reader gave up, the log changes so fast");
    }

    /// Holds what was read against what was committed.
    fn judge(&self, who: &str, picture: &Picture, promise: &Promise) {
        if let Err(what) = self.compare(picture, promise) {
            self.world().fail(format_args!("{who}: {what}"));
        }
    }

    fn compare(&self, picture: &Picture, promise: &Promise) -> Result<(), String> {
        if let Some(problem) = picture.problems.first() {
            return Err(format!("the log is not whole: {problem}"));
        }
        let held = picture.held();
        if held.count() != picture.transactions.len() as u128 {
            return Err("a transaction is there twice".to_owned());
        }
        let undecided = picture.accepted.subtract(&self.told().accepted);
        if !undecided.is_empty() {
            return Err(format!("nobody has accepted the gap {undecided:#}"));
        }
        let start = picture.start.clone().unwrap_or_default();
        let known = held.union(&start).union(&picture.lost);
        let gone = promise.promised.subtract(&known);
        if !gone.is_empty() {
            return Err(format!("what was durable is gone: {gone:#}"));
        }
        let known = known.union(&picture.accepted);
        let gone = promise.acknowledged.subtract(&known);
        if !gone.is_empty() && picture.start.is_some() {
            return Err(format!("what was acknowledged is gone: {gone:#}"));
        }
        let cluster = self.network.cluster();
        let found = identify(picture, |read| {
            cluster.identify(read.source, &read.gtid, &read.bytes)
        })?;
        let lineages = std::iter::once(&cluster.lineage).chain(cluster.former.iter().rev());
        let mut failure = Ok(());
        for lineage in lineages {
            match follows(picture, &start, &found, lineage) {
                Ok(()) => return Ok(()),
                Err(what) if failure.is_ok() => failure = Err(what),
                Err(_) => {}
            }
        }
        failure
    }

    /// Whether the archive has everything that the cluster has.
    pub(super) fn has_all(&self, picture: &Picture) -> bool {
        let cluster = self.network.cluster();
        let all: GtidSet = cluster.lineage.iter().map(|t| t.gtid.clone()).collect();
        let start = picture.start.clone().unwrap_or_default();
        let has = picture.held().union(&start).union(&picture.accepted);
        let found = identify(picture, |read| {
            cluster.identify(read.source, &read.gtid, &read.bytes)
        });
        picture.start.is_some()
            && all.is_subset(&has)
            && found.is_ok_and(|found| follows(picture, &start, &found, &cluster.lineage).is_ok())
    }
}

fn may_pass(error: &ArchiveError) -> bool {
    error.class() == Class::Transient
        || matches!(error, ArchiveError::Storage(StorageError::NotFound { .. }))
}

fn identify(
    picture: &Picture,
    name: impl Fn(&Read) -> Option<usize>,
) -> Result<Vec<usize>, String> {
    let ids = picture
        .transactions
        .iter()
        .map(|read| name(read).ok_or_else(|| format!("no server has written {} so", read.gtid)));
    ids.collect()
}

/// Whether the archive holds a beginning of the lineage, in its order.
fn follows(
    picture: &Picture,
    start: &GtidSet,
    found: &[usize],
    lineage: &[Arc<Transaction>],
) -> Result<(), String> {
    let mut left = lineage
        .iter()
        .filter(|t| !start.contains(&t.gtid) && !picture.accepted.contains(&t.gtid));
    for id in found {
        match left.next() {
            Some(next) if next.id == *id => {}
            Some(next) => {
                return Err(format!(
                    "branch {}: number {id} stands where {} (number {}) was committed",
                    picture.branch, next.gtid, next.id
                ));
            }
            None => return Err(format!("number {id} was not committed here")),
        }
    }
    Ok(())
}
