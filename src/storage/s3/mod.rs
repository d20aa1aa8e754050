//! [`S3Storage`]: objects in a bucket of S3 or of a store that speaks its protocol.
//!
//! This folder is the only place that knows the AWS SDK. Invariants: every write carries
//! `If-None-Match: *`, an explicit SHA-256 and an id of its own as metadata. The SDK repeats
//! requests whose reply was lost, so a refusal may be due to one's own first attempt; the id of
//! the object that is there then tells own writes from foreign ones.

mod checksum;
mod config;
mod failure;
mod upload;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use tokio::sync::Semaphore;
use uuid::Uuid;

pub use self::config::{S3Config, S3Credentials};
use self::failure::Failure;
use super::{
    ListPage, ObjectMeta, ObjectWriter, Storage, StorageError, check_key, cut, is_valid_key,
};

/// The metadata with the id of the write that made an object.
const WRITE_ID: &str = "quillback-write";

/// A store in a bucket, below a prefix.
#[derive(Clone)]
pub struct S3Storage {
    client: Client,
    bucket: String,
    /// Empty or ending in `/`.
    prefix: String,
    page_size: i32,
    /// For the parts under way of all uploads.
    room: Arc<Semaphore>,
}

impl S3Storage {
    /// The same store, listing at most so many objects a page (1 to 1000).
    #[must_use]
    pub fn with_page_size(mut self, page_size: usize) -> Self {
        self.page_size = i32::try_from(page_size).map_or(1000, |size| size.clamp(1, 1000));
        self
    }

    fn full_key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn bucket_url(&self) -> String {
        format!("s3://{}", self.bucket)
    }

    /// Turns a failure to do `action` on `key` into the room's error.
    fn error(&self, failure: Failure, action: &'static str, key: &str) -> StorageError {
        failure.into_error(action, key, &self.bucket_url())
    }

    async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StorageError> {
        // A body that breaks off is not repeated by the SDK.
        let read = (|| self.read_once(key, range.clone()))
            .retry(repeats())
            .when(Failure::is_transient)
            .await;
        match read {
            Err(failure) if failure.is_beyond_end() => Ok(Bytes::new()),
            read => read.map_err(|failure| self.error(failure, "reading", key)),
        }
    }

    async fn read_once(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, Failure> {
        let output = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            // The header's range includes its end; the range is never empty here.
            .set_range(
                range
                    .as_ref()
                    .map(|r| format!("bytes={}-{}", r.start, r.end - 1)),
            )
            .send()
            .await?;
        let expected = output.content_length();
        let is_part = output.content_range().is_some();
        let bytes = output
            .body
            .collect()
            .await
            .map_err(|error| Failure::broken_body(&error))?
            .into_bytes();
        let length = bytes.len() as u64;
        if expected.and_then(|expected| u64::try_from(expected).ok()) != Some(length) {
            return Err(Failure::wrong_length(expected, length));
        }
        match range {
            Some(range) if is_part && length > range.end - range.start => {
                Err(Failure::wrong_length(None, length))
            }
            // A store that does not know ranges sends all.
            Some(range) if !is_part => Ok(cut(&bytes, &range)),
            _ => Ok(bytes),
        }
    }

    /// Writes the object in one request, under the id of this write.
    async fn put(&self, key: &str, id: &str, body: Bytes) -> Result<(), StorageError> {
        let checksum = checksum::sha256(&body);
        let put = (|| self.put_once(key, id, &checksum, body.clone()))
            .retry(repeats())
            .when(Failure::is_transient)
            .await;
        match put {
            Ok(()) => Ok(()),
            Err(failure) => self.settle(key, id, failure).await,
        }
    }

    async fn put_once(
        &self,
        key: &str,
        id: &str,
        checksum: &str,
        body: Bytes,
    ) -> Result<(), Failure> {
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .if_none_match("*")
            .metadata(WRITE_ID, id)
            .checksum_sha256(checksum)
            .body(ByteStream::from(body))
            .send()
            .await?;
        Ok(())
    }

    /// Finds out what became of a write that failed: its object may be there all the same.
    async fn settle(&self, key: &str, id: &str, failure: Failure) -> Result<(), StorageError> {
        if !failure.is_refusal_of_existing() && !failure.is_transient() {
            return Err(self.error(failure, "writing", key));
        }
        let exists = || StorageError::AlreadyExists {
            key: key.to_owned(),
        };
        match self.head(key).await {
            Ok(head) if head.write_id.as_deref() == Some(id) => Ok(()),
            Ok(_) => Err(exists()),
            // It was there and is gone: whoever made it, it is not to be made again.
            Err(head) if failure.is_refusal_of_existing() && head.is_not_found() => Err(exists()),
            // Nobody knows what the refusal was about, so the outcome is unknown.
            Err(head) if failure.is_refusal_of_existing() => Err(self.error(head, "reading", key)),
            Err(_) => Err(self.error(failure, "writing", key)),
        }
    }

    async fn head(&self, key: &str) -> Result<Head, Failure> {
        let output = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .send()
            .await?;
        let size = output
            .content_length()
            .and_then(|size| u64::try_from(size).ok())
            .ok_or_else(|| Failure::wrong_length(output.content_length(), 0))?;
        let write_id = output
            .metadata()
            .and_then(|metadata: &HashMap<_, _>| metadata.get(WRITE_ID))
            .cloned();
        Ok(Head { size, write_id })
    }

    async fn list_once(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        continuation: Option<String>,
    ) -> Result<(ListPage, Option<String>), Failure> {
        let output = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(self.full_key(prefix))
            .set_start_after(start_after.map(|after| self.full_key(after)))
            .set_continuation_token(continuation)
            .max_keys(self.page_size)
            .send()
            .await?;
        let found: Vec<ObjectMeta> = output
            .contents()
            .iter()
            .filter_map(|object| {
                let key = object.key()?.strip_prefix(&self.prefix)?;
                Some(ObjectMeta {
                    key: key.to_owned(),
                    size: object.size().and_then(|size| u64::try_from(size).ok())?,
                })
            })
            .collect();
        let more = output.is_truncated() == Some(true);
        let next = found.last().filter(|_| more).map(|last| last.key.clone());
        // Objects that are none of ours may share the bucket.
        let objects = found
            .into_iter()
            .filter(|object| is_valid_key(&object.key))
            .collect();
        let continuation = output.next_continuation_token.filter(|_| more);
        Ok((ListPage { objects, next }, continuation))
    }
}

/// What is known of an object without its body.
struct Head {
    size: u64,
    write_id: Option<String>,
}

/// How often and when something is tried again beyond what the SDK does.
fn repeats() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(1))
        .with_max_times(5)
        .with_jitter()
}

fn new_write_id() -> String {
    Uuid::new_v4().simple().to_string()
}

impl fmt::Debug for S3Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Storage({})", self.url())
    }
}

#[async_trait::async_trait]
impl Storage for S3Storage {
    fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix.trim_end_matches('/'))
            .trim_end_matches('/')
            .to_owned()
    }

    async fn get(&self, key: &str) -> Result<Bytes, StorageError> {
        check_key(key)?;
        self.read(key, None).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        check_key(key)?;
        if range.is_empty() {
            // No request can ask for nothing, but the object must be there.
            self.size(key).await?;
            return Ok(Bytes::new());
        }
        self.read(key, Some(range)).await
    }

    async fn size(&self, key: &str) -> Result<u64, StorageError> {
        check_key(key)?;
        match self.head(key).await {
            Ok(head) => Ok(head.size),
            Err(failure) => Err(self.error(failure, "reading", key)),
        }
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StorageError> {
        check_key(key)?;
        self.put(key, &new_write_id(), body).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn ObjectWriter>, StorageError> {
        check_key(key)?;
        Ok(Box::new(upload::S3Upload::new(self.clone(), key)))
    }

    fn upload_bytes(&self) -> usize {
        upload::PART
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
    ) -> Result<ListPage, StorageError> {
        let mut continuation = None;
        loop {
            let (page, more) = self
                .list_once(prefix, start_after, continuation)
                .await
                .map_err(|failure| self.error(failure, "listing", prefix))?;
            // A store may send an empty page although there are more.
            match more {
                Some(_) if page.next.is_none() => continuation = more,
                _ => return Ok(page),
            }
        }
    }

    async fn delete(&self, key: &str) -> Result<(), StorageError> {
        check_key(key)?;
        let deleted = self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .send()
            .await
            .map_err(Failure::from);
        match deleted {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_not_found() => Ok(()),
            Err(failure) => Err(self.error(failure, "deleting", key)),
        }
    }
}
