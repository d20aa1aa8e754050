//! [`S3Upload`]: an object in parts.
//!
//! A small object becomes a single request after all. Parts are sent a few at a time; the
//! object appears with CompleteMultipartUpload, which has the same condition and is settled by
//! the same id as a single write. Dropping an upload stops its requests but cannot tell the
//! store: parts that were sent stay there as an incomplete upload, invisible, until they are
//! cleaned up.
//!
//! Memory is bounded: an upload holds at most one part that is being filled, and the parts under way
//! of all uploads of a store share [`UNDER_WAY`].

use std::sync::Arc;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use backon::Retryable as _;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::{ObjectWriter, StorageError};
use super::failure::Failure;
use super::{S3Storage, WRITE_ID, checksum, new_write_id, repeats};

/// Parts of one object that are under way at a time.
const CONCURRENT: usize = 4;

/// The first parts' size in bytes.
pub(super) const PART: usize = 8 << 20;

/// Bytes of parts under way, of all uploads together.
const UNDER_WAY: usize = 48 << 20;

/// The unit in which they are counted.
const UNIT: usize = 1 << 10;

/// What a part begins with.
const BEGINNING: usize = 64 << 10;

/// S3 takes 10,000 parts of one object, so that their size doubles after so many: 293 GiB in all.
const PARTS_OF_A_SIZE: usize = 2500;

/// Room for the parts under way of all uploads of a store.
pub(super) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(UNDER_WAY / UNIT))
}

pub(super) struct S3Upload {
    storage: S3Storage,
    key: String,
    write_id: String,
    /// What makes no whole part yet.
    pending: Vec<u8>,
    /// The store's name of the upload, once there is a whole part.
    upload_id: Option<String>,
    sending: JoinSet<Result<CompletedPart, Failure>>,
    sent: Vec<CompletedPart>,
    /// Parts begun so far.
    begun: usize,
    /// A part is missing, so that the object can never be completed.
    failed: bool,
}

impl S3Upload {
    pub(super) fn new(storage: S3Storage, key: &str) -> Self {
        Self {
            storage,
            key: key.to_owned(),
            write_id: new_write_id(),
            pending: Vec::new(),
            upload_id: None,
            sending: JoinSet::new(),
            sent: Vec::new(),
            begun: 0,
            failed: false,
        }
    }

    /// The size of the part that is being filled.
    fn part_size(&self) -> usize {
        PART << (self.begun / PARTS_OF_A_SIZE).min(3)
    }

    /// Fills parts, and sends those that are full.
    async fn fill(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let size = self.part_size();
            let (now, later) = bytes.split_at(bytes.len().min(size - self.pending.len()));
            bytes = later;
            // Grown by hand: to double once too often would hold two parts for one.
            let needed = self.pending.len() + now.len();
            if needed > self.pending.capacity() {
                let wished = (self.pending.capacity() * 2).clamp(BEGINNING.min(size), size);
                let more = wished.max(needed) - self.pending.len();
                self.pending.reserve_exact(more);
            }
            self.pending.extend_from_slice(now);
            if self.pending.len() == size {
                let body = Bytes::from(std::mem::take(&mut self.pending));
                self.send_part(body).await?;
            }
        }
        Ok(())
    }

    async fn send_part(&mut self, body: Bytes) -> Result<(), Failure> {
        let upload_id = match &self.upload_id {
            Some(id) => id.clone(),
            None => self.begin().await?,
        };
        while self.sending.len() >= CONCURRENT {
            self.wait_for_part().await?;
        }
        // None of them waits for anything but the store, so that there is room again.
        let units = (body.len() / UNIT).clamp(1, UNDER_WAY / UNIT);
        let room = Arc::clone(&self.storage.room)
            .acquire_many_owned(u32::try_from(units).expect("the room is smaller"))
            .await
            .expect("the room is never closed");
        self.begun += 1;
        let number = i32::try_from(self.begun)
            .map_err(|_| Failure::transient("the object has too many parts".to_owned()))?;
        let (storage, key) = (self.storage.clone(), self.storage.full_key(&self.key));
        self.sending.spawn(async move {
            let _room = room;
            let checksum = checksum::sha256(&body);
            let output = (|| async {
                storage
                    .client
                    .upload_part()
                    .bucket(&storage.bucket)
                    .key(&key)
                    .upload_id(&upload_id)
                    .part_number(number)
                    .checksum_sha256(&checksum)
                    .body(ByteStream::from(body.clone()))
                    .send()
                    .await
                    .map_err(Failure::from)
            })
            .retry(repeats())
            .when(Failure::is_transient)
            .await?;
            Ok(CompletedPart::builder()
                .part_number(number)
                .set_e_tag(output.e_tag)
                .checksum_sha256(checksum)
                .build())
        });
        Ok(())
    }

    async fn begin(&mut self) -> Result<String, Failure> {
        let output = self
            .storage
            .client
            .create_multipart_upload()
            .bucket(&self.storage.bucket)
            .key(self.storage.full_key(&self.key))
            .metadata(WRITE_ID, &self.write_id)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .send()
            .await?;
        let id = output
            .upload_id
            .ok_or_else(|| Failure::transient("the store named no upload".to_owned()))?;
        self.upload_id = Some(id.clone());
        Ok(id)
    }

    /// Waits for one of the parts under way; `false` if there is none.
    async fn wait_for_part(&mut self) -> Result<bool, Failure> {
        match self.sending.join_next().await {
            None => Ok(false),
            Some(Ok(part)) => {
                self.sent.push(part?);
                Ok(true)
            }
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(Failure::transient(error.to_string())),
            },
        }
    }

    /// Sends what is left and makes the object of the parts.
    async fn complete(&mut self, upload_id: &str) -> Result<(), Failure> {
        if !self.pending.is_empty() {
            let rest = Bytes::from(std::mem::take(&mut self.pending));
            self.send_part(rest).await?;
        }
        while self.wait_for_part().await? {}
        self.sent.sort_unstable_by_key(CompletedPart::part_number);
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(self.sent.clone()))
            .build();
        (|| async {
            self.storage
                .client
                .complete_multipart_upload()
                .bucket(&self.storage.bucket)
                .key(self.storage.full_key(&self.key))
                .upload_id(upload_id)
                .if_none_match("*")
                .multipart_upload(parts.clone())
                .send()
                .await?;
            Ok(())
        })
        .retry(repeats())
        .when(Failure::is_transient)
        .await
    }

    /// Tells the store to forget the parts. What it does not hear is cleaned up later.
    async fn discard(&mut self, upload_id: &str) {
        self.sending.shutdown().await;
        let discarded = self
            .storage
            .client
            .abort_multipart_upload()
            .bucket(&self.storage.bucket)
            .key(self.storage.full_key(&self.key))
            .upload_id(upload_id)
            .send()
            .await
            .map_err(Failure::from);
        if let Err(failure) = discarded {
            tracing::debug!(
                key = self.key,
                ?failure,
                "an incomplete upload stays behind"
            );
        }
    }
}

#[async_trait::async_trait]
impl ObjectWriter for S3Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        // Also when this future is dropped half-way.
        let failed = std::mem::replace(&mut self.failed, true);
        self.fill(&bytes)
            .await
            .map_err(|failure| self.storage.error(failure, "writing", &self.key))?;
        self.failed = failed;
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<(), StorageError> {
        let Some(upload_id) = self.upload_id.clone() else {
            if self.failed {
                let failure = Failure::transient("an earlier write of it failed".to_owned());
                return Err(self.storage.error(failure, "writing", &self.key));
            }
            let body = Bytes::from(std::mem::take(&mut self.pending));
            return self.storage.put(&self.key, &self.write_id, body).await;
        };
        let completed = if self.failed {
            Err(Failure::transient(
                "an earlier part of it failed".to_owned(),
            ))
        } else {
            self.complete(&upload_id).await
        };
        let Err(failure) = completed else {
            return Ok(());
        };
        // After this the object is there or can no longer appear.
        self.discard(&upload_id).await;
        let failure = if failure.is_lost_upload() {
            Failure::transient("the store no longer knows the upload".to_owned())
        } else {
            failure
        };
        self.storage
            .settle(&self.key, &self.write_id, failure)
            .await
    }

    async fn abort(mut self: Box<Self>) {
        if let Some(upload_id) = self.upload_id.clone() {
            self.discard(&upload_id).await;
        }
    }
}
