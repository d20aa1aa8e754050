//! [`LocalStorage`]: objects as files below a folder.
//!
//! Invariant: a reader never sees a half-written object, and nothing is ever overwritten. An
//! object is written to a temporary file, synced, and then given its name by `link(2)`, which
//! fails if the name is taken; then the folders are synced. A file system without hard links
//! cannot do that and is refused as [`StorageError::UnconditionalWrites`].
//!
//! Temporary files live in one folder whose name no key can have, so that no listing shows them;
//! those that a crash left are removed a day later. A folder that was there when the store was
//! opened is never made anew: if it vanishes (an unmounted disk), writing fails rather than
//! filling whatever lies beneath. Calls block and so run on the blocking pool.

mod files;
mod list;

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use self::files::Root;
use super::{ListPage, ObjectWriter, Storage, StorageError, check_key};

/// A store in a folder of this machine.
#[derive(Clone)]
pub struct LocalStorage {
    root: Arc<Root>,
    page_size: usize,
}

impl LocalStorage {
    /// The store below this folder, which must be an absolute path; the first write makes it if
    /// it is not there yet.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: Arc::new(Root::new(root.into())),
            page_size: 10_000,
        }
    }

    /// The same store, listing at most so many objects a page.
    #[must_use]
    pub fn with_page_size(mut self, page_size: usize) -> Self {
        self.page_size = page_size.max(1);
        self
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Runs `call` where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Root) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let root = Arc::clone(&self.root);
        run(move || call(&root)).await
    }
}

/// Runs `call` on the blocking pool; a panic goes on in the caller.
async fn run<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Blocking calls are cancelled only when the runtime goes down, and we with it.
            Err(_) => std::future::pending().await,
        },
    }
}

impl fmt::Debug for LocalStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalStorage({})", self.url())
    }
}

#[async_trait::async_trait]
impl Storage for LocalStorage {
    fn url(&self) -> String {
        self.root.url()
    }

    async fn get(&self, key: &str) -> Result<Bytes, StorageError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking(move |root| root.read(&key, None)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking(move |root| root.read(&key, Some(range)))
            .await
    }

    async fn size(&self, key: &str) -> Result<u64, StorageError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking(move |root| root.size(&key)).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StorageError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking(move |root| {
            let (temporary, mut file) = root.temporary(&key)?;
            file.write_all(&body)
                .map_err(|error| root.failure("writing", &key, error))?;
            root.publish(&key, temporary, &file)
        })
        .await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn ObjectWriter>, StorageError> {
        check_key(key)?;
        let key = key.to_owned();
        let storage = self.clone();
        let opened = key.clone();
        let (temporary, file) = self.blocking(move |root| root.temporary(&opened)).await?;
        Ok(Box::new(LocalUpload {
            storage,
            key,
            temporary,
            file: Arc::new(file),
            failed: false,
        }))
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
    ) -> Result<ListPage, StorageError> {
        let (prefix, after) = (prefix.to_owned(), start_after.map(ToOwned::to_owned));
        let page_size = self.page_size;
        self.blocking(move |root| list::page(root, &prefix, after.as_deref(), page_size))
            .await
    }

    async fn delete(&self, key: &str) -> Result<(), StorageError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking(move |root| root.remove(&key)).await
    }
}

struct LocalUpload {
    storage: LocalStorage,
    key: String,
    /// Removes its file when it is dropped.
    temporary: files::Temporary,
    file: Arc<File>,
    /// A write may have been cut short, so that the bytes are not those that were given.
    failed: bool,
}

#[async_trait::async_trait]
impl ObjectWriter for LocalUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        let file = Arc::clone(&self.file);
        // Also when this future is dropped half-way.
        let failed = std::mem::replace(&mut self.failed, true);
        run(move || (&*file).write_all(&bytes))
            .await
            .map_err(|error| self.storage.root.failure("writing", &self.key, error))?;
        self.failed = failed;
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), StorageError> {
        let Self {
            storage,
            key,
            temporary,
            file,
            failed,
        } = *self;
        if failed {
            let error = std::io::Error::other("an earlier write of this upload failed");
            return Err(storage.root.failure("writing", &key, error));
        }
        storage
            .blocking(move |root| root.publish(&key, temporary, &file))
            .await
    }

    async fn abort(self: Box<Self>) {
        // Dropping the temporary file removes it.
    }
}
