//! What is the folder's own: temporary files, vanished folders, half-written objects.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use quillback::storage::{LocalStorage, Storage, StorageError, list_all};

use crate::contract::{is_not_found, pattern};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("reads")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn no_temporary_file_stays_behind_or_is_listed() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = LocalStorage::new(folder.path());
    let temporary = folder.path().join("#tmp");
    storage
        .put_if_absent("a/b", Bytes::new())
        .await
        .expect("puts");
    storage
        .put_if_absent("a/b", Bytes::new())
        .await
        .expect_err("exists");
    let mut upload = storage.upload("c").await.expect("starts");
    upload
        .write(Bytes::from_static(b"x"))
        .await
        .expect("writes");
    assert_eq!(names(&temporary).len(), 1);
    let listed = list_all(&storage, "", None).await.expect("lists");
    assert_eq!(listed.len(), 1, "{listed:?}");
    drop(upload);
    assert_eq!(names(&temporary), [""; 0]);
    storage.delete("a/b").await.expect("deletes");
    assert_eq!(names(folder.path()), ["#tmp"], "empty folders go");
}

#[tokio::test]
async fn what_a_crash_left_is_swept_a_day_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let temporary = folder.path().join("#tmp");
    fs::create_dir(&temporary).expect("makes");
    let hours = |hours: u64| SystemTime::now() - Duration::from_secs(hours * 3600);
    for (name, modified) in [("old", hours(25)), ("recent", hours(23))] {
        let file = File::create(temporary.join(name)).expect("makes");
        file.set_modified(modified).expect("sets the time");
    }
    let storage = LocalStorage::new(folder.path());
    storage
        .put_if_absent("a", Bytes::new())
        .await
        .expect("puts");
    assert_eq!(names(&temporary), ["recent"]);
}

#[tokio::test]
async fn a_folder_that_vanished_is_not_made_anew() {
    let parent = tempfile::tempdir().expect("a folder");
    let path = parent.path().join("deep/archive");
    let storage = LocalStorage::new(&path);
    let no_place = |error: StorageError| {
        assert!(
            matches!(error, StorageError::NoSuchPlace { .. }),
            "{error:?}"
        )
    };
    no_place(storage.list("", None).await.expect_err("no folder"));
    no_place(storage.get("a").await.expect_err("no folder"));
    no_place(storage.delete("a").await.expect_err("no folder"));
    storage
        .put_if_absent("a", Bytes::new())
        .await
        .expect("the first write makes it");
    fs::rename(&path, parent.path().join("elsewhere")).expect("moves");
    for storage in [storage.clone(), storage] {
        no_place(
            storage
                .put_if_absent("b", Bytes::new())
                .await
                .expect_err("no folder"),
        );
        no_place(storage.upload("b").await.err().expect("no folder"));
        no_place(storage.get("a").await.expect_err("no folder"));
    }
    assert!(!path.exists());
}

#[tokio::test]
async fn foreign_files_are_no_objects() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = LocalStorage::new(folder.path());
    storage
        .put_if_absent("log/1", Bytes::from_static(b"x"))
        .await
        .expect("puts");
    fs::write(folder.path().join("a b"), "").expect("writes");
    fs::write(folder.path().join("log/ü"), "").expect("writes");
    fs::create_dir_all(folder.path().join("empty/folder")).expect("makes");
    fs::create_dir(folder.path().join("lost+found")).expect("makes");
    std::os::unix::fs::symlink("nowhere", folder.path().join("dangling")).expect("links");
    let moved = tempfile::tempdir().expect("a folder");
    fs::write(moved.path().join("2"), "yy").expect("writes");
    std::os::unix::fs::symlink(moved.path(), folder.path().join("marks")).expect("links");
    let listed = list_all(&storage, "", None).await.expect("lists");
    let listed: Vec<_> = listed
        .iter()
        .map(|object| (object.key.as_str(), object.size))
        .collect();
    assert_eq!(listed, [("log/1", 1), ("marks/2", 2)]);
    for key in ["log/1/2", "log"] {
        let error = storage
            .put_if_absent(key, Bytes::new())
            .await
            .expect_err(key);
        assert!(
            matches!(error, StorageError::InvalidKey { .. }),
            "{key}: {error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_never_see_half_an_object() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = LocalStorage::new(folder.path());
    let body = pattern(4 << 20, 1);
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (storage, body, done) = (storage.clone(), body.clone(), Arc::clone(&done));
        async move {
            let mut seen = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let found = storage.get("key").await;
                if is_not_found(&found) {
                    seen.0 += 1;
                } else {
                    assert!(found.expect("gets") == body, "half an object");
                    seen.1 += 1;
                }
            }
            seen
        }
    });
    for _ in 0..10 {
        storage
            .put_if_absent("key", body.clone())
            .await
            .expect("puts");
        assert!(
            storage.get("key").await.expect("gets") == body,
            "half an object"
        );
        storage.delete("key").await.expect("deletes");
    }
    done.store(true, Ordering::Relaxed);
    let (absent, whole) = reader.await.expect("reads");
    assert!(
        absent > 0 && whole > 0,
        "{absent} absent, {whole} whole: nothing was raced"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_survive_deletes_that_remove_their_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = LocalStorage::new(folder.path());
    let task = |name: &'static str| {
        let storage = storage.clone();
        tokio::spawn(async move {
            for n in 0..150 {
                let key = format!("a/b/c/{name}-{n}");
                storage
                    .put_if_absent(&key, Bytes::from_static(b"x"))
                    .await
                    .expect("puts");
                storage.get(&key).await.expect("what was put is there");
                storage.delete(&key).await.expect("deletes");
            }
        })
    };
    let tasks = [task("x"), task("y"), task("z")];
    for task in tasks {
        task.await.expect("runs");
    }
    assert_eq!(names(folder.path()), ["#tmp"]);
}
