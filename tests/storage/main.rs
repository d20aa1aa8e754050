//! The storage room on real stores: one contract for all of them, and what is each one's own.
//!
//! MinIO is a real server, found on PATH or by `tests/setup`; without it these tests fail.

mod contract;
mod faulty;
mod liar;
mod local;
mod minio;
mod s3;
mod slow;

use std::sync::Arc;

use quillback::storage::{LocalStorage, MemoryStorage, Storage};

use contract::CASES;

/// Listings of the contract come in pages of this size.
const PAGE: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    for case in CASES {
        run(case, Arc::new(MemoryStorage::new().with_page_size(PAGE))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_keeps_the_contract() {
    for case in CASES {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("archive");
        run(case, Arc::new(LocalStorage::new(path).with_page_size(PAGE))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minio_keeps_the_contract() {
    let minio = minio::Minio::start().await;
    for case in CASES {
        let storage = minio.storage(case.name).await.with_page_size(PAGE);
        run(case, Arc::new(storage)).await;
    }
}

#[expect(clippy::print_stderr, reason = "names the case that fails")]
async fn run(case: &contract::Case, storage: Arc<dyn Storage>) {
    let url = storage.url();
    eprintln!("{} on {url}", case.name);
    (case.run)(storage).await;
}
