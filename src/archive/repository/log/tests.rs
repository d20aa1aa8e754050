//! Listings that are no picture of one moment, and objects that cannot be read.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::archive::catalog::Problem;
use crate::archive::testing::{Writer, set};
use crate::error::{Class, Classified as _};
use crate::gtid::GtidSet;
use crate::storage::{ListPage, MemoryStorage, ObjectWriter, Storage, StorageError};

/// A store in which something happens before each page of a listing: what stands in the list.
#[derive(Debug)]
struct Eventful {
    inner: MemoryStorage,
    /// An object that is put, and those that are deleted then.
    happenings: Vec<Happening>,
    next: AtomicUsize,
    /// How many of them happen at each page.
    pace: usize,
    /// Objects that are listed although they are gone.
    ghosts: Vec<(String, u64)>,
}

#[derive(Debug, Clone)]
enum Happening {
    Put(String, Bytes),
    Delete(String),
}

#[async_trait::async_trait]
impl Storage for Eventful {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn get(&self, key: &str) -> Result<Bytes, StorageError> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.inner.get_range(key, range).await
    }

    async fn size(&self, key: &str) -> Result<u64, StorageError> {
        self.inner.size(key).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StorageError> {
        self.inner.put_if_absent(key, body).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn ObjectWriter>, StorageError> {
        self.inner.upload(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
    ) -> Result<ListPage, StorageError> {
        if prefix.starts_with("log/") {
            for _ in 0..self.pace {
                let number = self.next.fetch_add(1, Ordering::SeqCst);
                match self.happenings.get(number) {
                    Some(Happening::Put(key, body)) => {
                        self.inner.put_if_absent(key, body.clone()).await?;
                    }
                    Some(Happening::Delete(key)) => self.inner.delete(key).await?,
                    None => {}
                }
            }
        }
        let mut page = self.inner.list(prefix, start_after).await?;
        if start_after.is_none() {
            for (key, size) in self
                .ghosts
                .iter()
                .filter(|(key, _)| key.starts_with(prefix))
            {
                let (key, size) = (key.clone(), *size);
                page.objects.push(crate::storage::ObjectMeta { key, size });
            }
        }
        Ok(page)
    }

    async fn delete(&self, key: &str) -> Result<(), StorageError> {
        self.inner.delete(key).await
    }
}

/// A log of 14 segments, and its objects.
async fn log(page: usize) -> (MemoryStorage, Writer) {
    let storage = MemoryStorage::new().with_page_size(page);
    let mut writer = Writer::new(Arc::new(storage.clone())).await;
    for _ in 0..10 {
        writer.segment(1).await;
    }
    writer.claim().await;
    for _ in 0..4 {
        writer.segment(1).await;
    }
    (storage, writer)
}

/// What compactions of these runs put and delete, in that order, on a copy of the log.
async fn compactions(runs: &[Range<usize>]) -> Vec<Happening> {
    let (storage, writer) = log(1000).await;
    let mut happenings = Vec::new();
    let mut before = objects(&storage).await;
    for run in runs {
        writer.compact(run.clone()).await;
        let after = objects(&storage).await;
        for (key, body) in &after {
            if !before.contains_key(key) {
                happenings.push(Happening::Put(key.clone(), body.clone()));
            }
        }
        for key in before.keys().filter(|key| !after.contains_key(*key)) {
            happenings.push(Happening::Delete(key.clone()));
        }
        before = after;
    }
    happenings
}

async fn objects(storage: &MemoryStorage) -> BTreeMap<String, Bytes> {
    let mut objects = BTreeMap::new();
    for object in list_all(storage, "log/", None).await.expect("lists") {
        let body = storage.get(&object.key).await.expect("an object");
        objects.insert(object.key, body);
    }
    objects
}

async fn chain_of(storage: Eventful) -> Result<Chain, ArchiveError> {
    let repository = Repository::open(Arc::new(storage)).await.expect("opens");
    repository.chain(BranchNumber(1)).await
}

fn held(chain: &Chain) -> GtidSet {
    assert_eq!(chain.problems, []);
    chain.held()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_hole_is_seen_however_pages_and_compaction_interleave(
        page in 1..6_usize,
        pace in 1..5_usize,
        runs in proptest::collection::vec((0..6_usize, 2..6_usize), 1..4),
        backwards in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (storage, _) = log(page).await;
            let mut left = 14_usize;
            let mut valid = Vec::new();
            for (at, count) in runs {
                let count = count.min(left.saturating_sub(at));
                if count > 1 {
                    valid.push(at..at + count);
                    left -= count - 1;
                }
            }
            let mut happenings = compactions(&valid).await;
            if backwards {
                // Deletions of a run in the opposite order.
                let is_put = |h: &Happening| matches!(h, Happening::Put(..));
                let mut ordered: Vec<Happening> = Vec::new();
                for chunk in happenings.chunk_by(|a, b| is_put(a) == is_put(b)) {
                    ordered.extend(chunk.iter().rev().cloned());
                }
                happenings = ordered;
            }
            let storage = Eventful {
                inner: storage,
                happenings,
                next: AtomicUsize::new(0),
                pace,
                ghosts: Vec::new(),
            };
            let chain = chain_of(storage).await.expect("a chain");
            assert_eq!(held(&chain), set("1-14"));
        });
    }
}

#[tokio::test]
async fn an_object_that_is_listed_and_never_there_is_damage_unless_it_was_replaced() {
    let (storage, writer) = log(1000).await;
    let chain = writer.repository.chain(BranchNumber(1)).await;
    let victim = chain.expect("a chain").segments[3].clone();
    let ghost = (victim.name.key(), victim.size);
    storage.delete(&ghost.0).await.expect("deleted");
    let eventful = |inner: MemoryStorage| Eventful {
        inner,
        happenings: Vec::new(),
        next: AtomicUsize::new(0),
        pace: 0,
        ghosts: vec![ghost.clone()],
    };
    let chain = chain_of(eventful(storage)).await.expect("a chain");
    let is_told =
        |p: &Problem| matches!(p, Problem::Unreadable { segment, .. } if *segment == ghost.0);
    assert!(chain.problems.iter().any(is_told), "{:?}", chain.problems);
    // A store that still lists what was compacted away.
    let (storage, writer) = log(1000).await;
    writer.compact(2..6).await;
    let chain = chain_of(eventful(storage)).await.expect("a chain");
    assert_eq!(held(&chain), set("1-14"));
}

#[tokio::test]
async fn a_damaged_index_is_a_problem_for_the_chain_and_an_error_for_all_segments() {
    let (storage, writer) = log(1000).await;
    let objects = objects(&storage).await;
    for (number, (key, body)) in objects.iter().enumerate() {
        let mut changed = body.to_vec();
        changed[60] ^= 1;
        storage.delete(key).await.expect("deleted");
        let put = storage.put_if_absent(key, changed.into()).await;
        put.expect("put");
        let chain = writer.repository.chain(BranchNumber(1)).await;
        let chain = chain.expect("a chain");
        let is_told =
            |p: &Problem| matches!(p, Problem::Unreadable { segment, .. } if segment == key);
        assert!(
            chain.problems.iter().any(is_told),
            "{number}: {:?}",
            chain.problems
        );
        let error = writer.repository.segments(BranchNumber(1)).await;
        let error = error.expect_err("one is damaged");
        assert_eq!(error.class(), Class::Integrity);
        assert!(error.to_string().contains(key.as_str()), "{error}");
        storage.delete(key).await.expect("deleted");
        let put = storage.put_if_absent(key, body.clone()).await;
        put.expect("put");
    }
}

#[tokio::test]
async fn a_store_that_fails_is_not_taken_for_a_hole() {
    let (storage, _) = log(4).await;
    let faulty = crate::storage::FaultyStorage::new(Arc::new(storage)).with_random_errors(7, 3);
    let mut failures = 0;
    let opened = loop {
        if let Ok(repository) = Repository::open(Arc::new(faulty.clone())).await {
            break repository;
        }
    };
    for _ in 0..100 {
        match opened.chain(BranchNumber(1)).await {
            Ok(chain) => assert_eq!(held(&chain), set("1-14")),
            Err(error) => {
                assert_eq!(error.class(), Class::Transient);
                failures += 1;
            }
        }
    }
    assert!(failures > 50);
}
