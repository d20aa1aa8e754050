//! What every store must do, as a table of cases; each gets an empty store.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use quillback::storage::{Storage, StorageError, list_all, probe_conditional_writes};

type Run = fn(Arc<dyn Storage>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One promise of the trait.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: Run,
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// The contract.
        pub(crate) const CASES: &[Case] = &[
            $(Case { name: stringify!($name), run: |storage| Box::pin($name(storage)) }),*
        ];
    };
}

cases![
    objects_are_read_whole_and_in_ranges,
    empty_objects_are_objects,
    what_is_not_there_is_not_found,
    invalid_keys_are_refused,
    nothing_is_overwritten,
    one_of_many_racers_wins,
    deleting_is_idempotent,
    a_small_upload_becomes_an_object,
    a_large_upload_becomes_an_object,
    an_upload_shows_nothing_before_its_commit,
    an_aborted_or_dropped_upload_leaves_nothing,
    an_upload_overwrites_nothing,
    one_of_many_uploads_wins,
    listing_is_in_the_order_of_bytes,
    listing_an_empty_store_gives_nothing,
    the_probe_passes_and_cleans_up,
];

pub(crate) fn is_not_found<T>(result: &Result<T, StorageError>) -> bool {
    matches!(result, Err(StorageError::NotFound { .. }))
}

pub(crate) fn already_exists(result: &Result<(), StorageError>) -> bool {
    matches!(result, Err(StorageError::AlreadyExists { .. }))
}

/// Bytes that differ from part to part.
pub(crate) fn pattern(length: usize, seed: u64) -> Bytes {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

/// The keys and sizes of all that is there.
async fn listed(storage: &dyn Storage) -> Vec<(String, u64)> {
    list_all(storage, "", None)
        .await
        .expect("lists")
        .into_iter()
        .map(|object| (object.key, object.size))
        .collect()
}

async fn objects_are_read_whole_and_in_ranges(storage: Arc<dyn Storage>) {
    let body = Bytes::from_static(b"0123456789");
    let key = "log/0001/a-1_2.binlog.zst";
    storage
        .put_if_absent(key, body.clone())
        .await
        .expect("puts");
    assert_eq!(storage.get(key).await.expect("gets"), body);
    assert_eq!(storage.size(key).await.expect("has a size"), 10);
    #[expect(
        clippy::reversed_empty_ranges,
        reason = "an empty range may be asked for"
    )]
    let ranges = [
        (0..10, "0123456789"),
        (0..1, "0"),
        (3..5, "34"),
        (9..10, "9"),
        (8..99, "89"),
        (0..u64::MAX, "0123456789"),
        (10..11, ""),
        (99..100, ""),
        (4..4, ""),
        (0..0, ""),
        (5..3, ""),
    ];
    for (range, expected) in ranges {
        let part = storage.get_range(key, range.clone()).await.expect("gets");
        assert_eq!(part, expected, "{range:?}");
    }
}

async fn empty_objects_are_objects(storage: Arc<dyn Storage>) {
    storage
        .put_if_absent("empty", Bytes::new())
        .await
        .expect("puts");
    assert_eq!(storage.get("empty").await.expect("gets"), "");
    assert_eq!(storage.get_range("empty", 0..5).await.expect("gets"), "");
    assert_eq!(storage.size("empty").await.expect("has a size"), 0);
    assert!(already_exists(
        &storage.put_if_absent("empty", Bytes::new()).await
    ));
    let upload = storage.upload("empty-upload").await.expect("starts");
    upload.commit().await.expect("commits");
    let expected = [("empty".to_owned(), 0), ("empty-upload".to_owned(), 0)];
    assert_eq!(listed(&*storage).await, expected);
}

async fn what_is_not_there_is_not_found(storage: Arc<dyn Storage>) {
    storage
        .put_if_absent("a/b", Bytes::from_static(b"x"))
        .await
        .expect("puts");
    for key in ["b", "a", "a/c", "a/b/c", "x/y/z"] {
        assert!(is_not_found(&storage.get(key).await), "{key}");
        assert!(is_not_found(&storage.get_range(key, 0..1).await), "{key}");
        assert!(is_not_found(&storage.get_range(key, 0..0).await), "{key}");
        assert!(is_not_found(&storage.size(key).await), "{key}");
    }
}

async fn invalid_keys_are_refused(storage: Arc<dyn Storage>) {
    let long = "x".repeat(901);
    for key in [
        "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a b", "é", "a\\b", "a\0",
        "#tmp/a", &long,
    ] {
        let invalid = |error: StorageError| {
            assert!(
                matches!(error, StorageError::InvalidKey { .. }),
                "{key:?}: {error:?}"
            );
        };
        invalid(storage.get(key).await.expect_err(key));
        invalid(storage.get_range(key, 0..1).await.expect_err(key));
        invalid(storage.size(key).await.expect_err(key));
        invalid(
            storage
                .put_if_absent(key, Bytes::new())
                .await
                .expect_err(key),
        );
        invalid(storage.delete(key).await.expect_err(key));
        invalid(storage.upload(key).await.err().expect("is refused"));
    }
}

async fn nothing_is_overwritten(storage: Arc<dyn Storage>) {
    let first = Bytes::from_static(b"first");
    storage
        .put_if_absent("a/key", first.clone())
        .await
        .expect("puts");
    for body in [first.clone(), Bytes::from_static(b"second"), Bytes::new()] {
        assert!(already_exists(&storage.put_if_absent("a/key", body).await));
        assert_eq!(storage.get("a/key").await.expect("gets"), first);
    }
    storage
        .put_if_absent("a/key2", Bytes::new())
        .await
        .expect("another key is free");
}

async fn one_of_many_racers_wins(storage: Arc<dyn Storage>) {
    for round in 0..10 {
        let key = format!("race/{round}/key");
        let mut racers = tokio::task::JoinSet::new();
        for racer in 0..16_u64 {
            let (storage, key) = (Arc::clone(&storage), key.clone());
            racers.spawn(async move {
                let body = pattern(10_000, racer);
                let put = storage.put_if_absent(&key, body.clone()).await;
                assert!(put.is_ok() || already_exists(&put), "{put:?}");
                put.ok().map(|()| body)
            });
        }
        let winners: Vec<Bytes> = racers.join_all().await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(storage.get(&key).await.expect("gets"), winners[0]);
    }
    assert_eq!(listed(&*storage).await.len(), 10);
}

async fn deleting_is_idempotent(storage: Arc<dyn Storage>) {
    for key in ["a/b/c", "a/b/d", "e"] {
        storage
            .put_if_absent(key, Bytes::from_static(b"x"))
            .await
            .expect("puts");
    }
    for _ in 0..2 {
        storage.delete("a/b/c").await.expect("deletes");
    }
    for key in ["never/was/there", "a/b", "e/f"] {
        storage
            .delete(key)
            .await
            .expect("deletes what is not there");
    }
    assert!(is_not_found(&storage.get("a/b/c").await));
    let left = [("a/b/d".to_owned(), 1), ("e".to_owned(), 1)];
    assert_eq!(listed(&*storage).await, left);
    storage
        .put_if_absent("a/b/c", Bytes::new())
        .await
        .expect("the key is free again");
    for key in ["a/b/c", "a/b/d", "e"] {
        storage.delete(key).await.expect("deletes");
    }
    assert_eq!(listed(&*storage).await, []);
    storage
        .put_if_absent("a/b", Bytes::new())
        .await
        .expect("a folder is no obstacle");
}

async fn upload(
    storage: &dyn Storage,
    key: &str,
    body: &Bytes,
    piece: usize,
) -> Result<(), StorageError> {
    let mut writer = storage.upload(key).await?;
    for start in (0..body.len()).step_by(piece) {
        writer
            .write(body.slice(start..body.len().min(start + piece)))
            .await?;
    }
    writer.commit().await
}

async fn a_small_upload_becomes_an_object(storage: Arc<dyn Storage>) {
    let body = pattern(100_000, 1);
    upload(&*storage, "up/small", &body, 999)
        .await
        .expect("uploads");
    assert_eq!(storage.get("up/small").await.expect("gets"), body);
}

async fn a_large_upload_becomes_an_object(storage: Arc<dyn Storage>) {
    // Three parts and a bit, in pieces that fit no part; then exactly two parts in one piece.
    for (key, length, piece) in [
        ("up/large", 25 << 20, 777_777),
        ("up/even", 16 << 20, 16 << 20),
    ] {
        let body = pattern(length, 2);
        upload(&*storage, key, &body, piece).await.expect("uploads");
        assert_eq!(
            storage.size(key).await.expect("has a size"),
            body.len() as u64
        );
        assert!(
            storage.get(key).await.expect("gets") == body,
            "{key} differs"
        );
        // Across the border of two parts.
        let range = (8 << 20) - 10..(8 << 20) + 10;
        let part = storage.get_range(key, range.clone()).await.expect("gets");
        assert_eq!(part, body.slice(range.start as usize..range.end as usize));
    }
}

async fn an_upload_shows_nothing_before_its_commit(storage: Arc<dyn Storage>) {
    let mut writer = storage.upload("up/slow").await.expect("starts");
    for _ in 0..3 {
        writer.write(pattern(9 << 20, 3)).await.expect("writes");
        assert!(is_not_found(&storage.get("up/slow").await));
        assert_eq!(listed(&*storage).await, []);
    }
    writer.commit().await.expect("commits");
    assert_eq!(listed(&*storage).await, [("up/slow".to_owned(), 27 << 20)]);
}

async fn an_aborted_or_dropped_upload_leaves_nothing(storage: Arc<dyn Storage>) {
    for length in [0, 10, 20 << 20] {
        let mut writer = storage.upload("up/aborted").await.expect("starts");
        writer.write(pattern(length, 4)).await.expect("writes");
        writer.abort().await;
        let mut writer = storage.upload("up/dropped").await.expect("starts");
        writer.write(pattern(length, 4)).await.expect("writes");
        drop(writer);
        assert_eq!(listed(&*storage).await, []);
    }
    storage
        .put_if_absent("up/aborted", Bytes::new())
        .await
        .expect("the key is free");
}

async fn an_upload_overwrites_nothing(storage: Arc<dyn Storage>) {
    let first = Bytes::from_static(b"first");
    storage
        .put_if_absent("up/taken", first.clone())
        .await
        .expect("puts");
    for length in [0, 1000, 20 << 20] {
        let second = pattern(length, 5);
        assert!(
            already_exists(&upload(&*storage, "up/taken", &second, 1 << 20).await),
            "{length}"
        );
        assert_eq!(storage.get("up/taken").await.expect("gets"), first);
    }
    assert_eq!(listed(&*storage).await.len(), 1);
}

async fn one_of_many_uploads_wins(storage: Arc<dyn Storage>) {
    let mut racers = tokio::task::JoinSet::new();
    for racer in 0..4_u64 {
        let storage = Arc::clone(&storage);
        racers.spawn(async move {
            let body = pattern((9 << 20) + 1, racer);
            let result = upload(&*storage, "up/race", &body, 1 << 20).await;
            assert!(result.is_ok() || already_exists(&result), "{result:?}");
            result.ok().map(|()| body)
        });
    }
    let winners: Vec<Bytes> = racers.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert!(
        storage.get("up/race").await.expect("gets") == winners[0],
        "another's bytes"
    );
}

async fn listing_is_in_the_order_of_bytes(storage: Arc<dyn Storage>) {
    // Around `/` (0x2f) stand `-` and `.` before, digits and letters after it.
    let keys: BTreeSet<String> = [
        "a-b",
        "a.b",
        "a/b",
        "a/b-c",
        "a/b.d/e",
        "a/b0",
        "a0",
        "a0/1",
        "A",
        "aa",
        "a=b/c",
        "a~",
        "b/-",
        "b/0/1",
        "b/0-",
        "b/0.",
        "log/0001/00000001-000000000009-x",
        "log/0001/00000001-000000000010-x",
        "log/0001/00000002-000000000001-x",
        "log/0002/00000001-000000000001-x",
        "z/z/z/z",
    ]
    .into_iter()
    // A folder cannot hold an object and another one below it.
    .filter(|key| !["a/b", "a0"].contains(key))
    .map(ToOwned::to_owned)
    .collect();
    for key in &keys {
        storage
            .put_if_absent(key, Bytes::from(key.clone()))
            .await
            .expect("puts");
    }
    let prefixes = [
        "",
        "a",
        "a/",
        "a/b",
        "a/b.",
        "b/0",
        "log/",
        "log/0001/00000001-",
        "nothing",
        "z/z/z/z",
        "z/z/z/z/",
    ];
    let afters = [
        None,
        Some("!"),
        Some("a-b"),
        Some("a/"),
        Some("a/b.d/"),
        Some("a/b.d/e"),
        Some("b/0"),
        Some("log/0001/00000001-000000000009-x"),
        Some("log/0001/5"),
        Some("log/00"),
        Some("z/z/z/z"),
        Some("~"),
    ];
    for prefix in prefixes {
        for after in afters {
            let expected: Vec<(String, u64)> = keys
                .iter()
                .filter(|key| {
                    key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
                })
                .map(|key| (key.clone(), key.len() as u64))
                .collect();
            let mut found = Vec::new();
            let mut start = after.map(ToOwned::to_owned);
            loop {
                let page = storage.list(prefix, start.as_deref()).await.expect("lists");
                assert!(
                    page.objects.len() <= super::PAGE,
                    "{prefix:?} after {start:?}: a page too long"
                );
                found.extend(
                    page.objects
                        .into_iter()
                        .map(|object| (object.key, object.size)),
                );
                match page.next {
                    Some(next) => start = Some(next),
                    None => break,
                }
            }
            assert_eq!(found, expected, "{prefix:?} after {after:?}");
        }
    }
}

async fn listing_an_empty_store_gives_nothing(storage: Arc<dyn Storage>) {
    // A folder is made by the first write, as a bucket is by its owner.
    storage
        .put_if_absent("a", Bytes::new())
        .await
        .expect("puts");
    storage.delete("a").await.expect("deletes");
    let page = storage.list("", None).await.expect("lists");
    assert!(page.objects.is_empty() && page.next.is_none(), "{page:?}");
}

async fn the_probe_passes_and_cleans_up(storage: Arc<dyn Storage>) {
    probe_conditional_writes(&*storage).await.expect("passes");
    assert_eq!(listed(&*storage).await, []);
}
