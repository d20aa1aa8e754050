//! [`S3Upload`]: an object in parts.
//!
//! A small object becomes a single request after all. Parts are sent a few at a time; the
//! object appears with CompleteMultipartUpload, which has the same condition and is settled by
//! the same id as a single write. Dropping an upload stops its requests but cannot tell the
//! store: parts that were sent stay there as an incomplete upload, invisible, until they are
//! cleaned up.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use backon::Retryable as _;
use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use super::super::{ObjectWriter, StorageError};
use super::failure::Failure;
use super::{S3Storage, WRITE_ID, checksum, new_write_id, repeats};

/// Parts under way at a time.
const CONCURRENT: usize = 4;

/// The first parts' size in bytes.
const PART: usize = 8 << 20;

/// S3 takes 10,000 parts of one object, so that their size doubles after so many: 293 GiB in all.
const PARTS_OF_A_SIZE: usize = 2500;

pub(super) struct S3Upload {
    storage: S3Storage,
    key: String,
    write_id: String,
    /// What makes no whole part yet.
    pending: BytesMut,
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
            pending: BytesMut::new(),
            upload_id: None,
            sending: JoinSet::new(),
            sent: Vec::new(),
            begun: 0,
            failed: false,
        }
    }

    async fn send_full_parts(&mut self) -> Result<(), Failure> {
        loop {
            let size = PART << (self.begun / PARTS_OF_A_SIZE).min(3);
            if self.pending.len() < size {
                return Ok(());
            }
            let body = self.pending.split_to(size).freeze();
            self.send_part(body).await?;
        }
    }

    async fn send_part(&mut self, body: Bytes) -> Result<(), Failure> {
        let upload_id = match &self.upload_id {
            Some(id) => id.clone(),
            None => self.begin().await?,
        };
        while self.sending.len() >= CONCURRENT {
            self.wait_for_part().await?;
        }
        self.begun += 1;
        let number = i32::try_from(self.begun)
            .map_err(|_| Failure::transient("the object has too many parts".to_owned()))?;
        let (storage, key) = (self.storage.clone(), self.storage.full_key(&self.key));
        self.sending.spawn(async move {
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
            let rest = self.pending.split().freeze();
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
        self.pending.extend_from_slice(&bytes);
        // Also when this future is dropped half-way.
        let failed = std::mem::replace(&mut self.failed, true);
        self.send_full_parts()
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
            let body = self.pending.split().freeze();
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
