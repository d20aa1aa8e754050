//! What a failed request means, and how it is told.
//!
//! The SDK's errors print whole requests and replies in their `Debug`. Only the store's code and
//! message are kept, which hold no secret.

use std::error::Error;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStreamError;

use super::super::StorageError;

/// A failed request.
#[derive(Debug)]
pub(super) struct Failure {
    /// The HTTP status, if there was a reply.
    status: Option<u16>,
    /// The store's code, such as `NoSuchBucket`.
    code: Option<String>,
    text: String,
}

impl<E: Error + ProvideErrorMetadata + 'static> From<SdkError<E>> for Failure {
    fn from(error: SdkError<E>) -> Self {
        let status = error.raw_response().map(|raw| raw.status().as_u16());
        let code = error.code().map(ToOwned::to_owned);
        let text = match (&error, status) {
            (SdkError::ServiceError(_), Some(status)) => {
                let code = code.as_deref().unwrap_or("no code");
                match error.message() {
                    Some(message) => format!("HTTP {status}, {code}: {message}"),
                    None => format!("HTTP {status}, {code}"),
                }
            }
            (_, Some(status)) => format!("HTTP {status}: {}", chain(&error)),
            (_, None) => chain(&error),
        };
        Self { status, code, text }
    }
}

impl Failure {
    pub(super) fn broken_body(error: &ByteStreamError) -> Self {
        Self::transient(format!("the body broke off: {}", chain(error)))
    }

    pub(super) fn wrong_length(expected: Option<i64>, length: u64) -> Self {
        Self::transient(match expected {
            Some(expected) => format!("{length} bytes came where {expected} were announced"),
            None => format!("{length} bytes came, which were not asked for"),
        })
    }

    /// An upload that cannot go on for what happened before.
    pub(super) fn transient(text: String) -> Self {
        Self {
            status: None,
            code: None,
            text,
        }
    }

    fn code_is(&self, codes: &[&str]) -> bool {
        self.code
            .as_deref()
            .is_some_and(|code| codes.contains(&code))
    }

    /// The condition does not hold: there is an object.
    pub(super) fn is_refusal_of_existing(&self) -> bool {
        self.status == Some(412) || self.code_is(&["PreconditionFailed"])
    }

    /// Another write of the same key was under way, which says nothing of who wins.
    fn is_conflict(&self) -> bool {
        self.status == Some(409) && !self.code_is(&["OperationAborted"])
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.code_is(&["NoSuchKey"])
            || self.status == Some(404) && !self.code_is(&["NoSuchBucket", "NoSuchUpload"])
    }

    /// The multipart upload is not there: completed, given up or forgotten.
    pub(super) fn is_lost_upload(&self) -> bool {
        self.code_is(&["NoSuchUpload"])
    }

    /// The range begins behind the object's last byte.
    pub(super) fn is_beyond_end(&self) -> bool {
        self.status == Some(416) || self.code_is(&["InvalidRange"])
    }

    /// No reply, or one that says nothing of the request itself: it may have been done, and may
    /// be tried again.
    pub(super) fn is_transient(&self) -> bool {
        self.is_conflict()
            // Status 400, but said of the connection: the bytes did not arrive as they were sent.
            || self.code_is(&[
                "BadDigest",
                "IncompleteBody",
                "RequestTimeout",
                "XAmzContentChecksumMismatch",
                "XAmzContentSHA256Mismatch",
            ])
            || match self.status {
                None => true,
                Some(501) => false,
                Some(status) => !(400..500).contains(&status) || matches!(status, 408 | 425 | 429),
            }
    }

    pub(super) fn into_error(
        self,
        action: &'static str,
        key: &str,
        bucket_url: &str,
    ) -> StorageError {
        let (key, url) = (key.to_owned(), bucket_url.to_owned());
        if self.code_is(&["NoSuchBucket"]) {
            return StorageError::NoSuchPlace { url };
        }
        if self.is_refusal_of_existing() {
            return StorageError::AlreadyExists { key };
        }
        if self.is_not_found() {
            return StorageError::NotFound { key };
        }
        if self.status == Some(501) && action == "writing" {
            return StorageError::UnconditionalWrites {
                url,
                evidence: self.text,
            };
        }
        let wrong_place = matches!(self.status, Some(301 | 307 | 308))
            || self.code_is(&[
                "AuthorizationHeaderMalformed",
                "InvalidBucketName",
                "PermanentRedirect",
            ]);
        if wrong_place {
            return StorageError::InvalidUrl {
                url,
                reason: format!(
                    "the bucket is not at this endpoint or in this region ({}); see AWS_REGION and AWS_ENDPOINT_URL",
                    self.text
                ),
            };
        }
        let denied = matches!(self.status, Some(401 | 403))
            || self.code_is(&[
                "ExpiredToken",
                "InvalidAccessKeyId",
                "InvalidToken",
                "SignatureDoesNotMatch",
                "TokenRefreshRequired",
            ]);
        let source = self.text.into();
        if denied {
            StorageError::Denied {
                action,
                key,
                source,
            }
        } else {
            StorageError::Unavailable {
                action,
                key,
                source,
            }
        }
    }
}

/// An error with its causes, each told once.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
