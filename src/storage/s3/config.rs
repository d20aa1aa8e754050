//! How to reach a bucket.

use std::fmt;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, ProvideCredentials as _, Region, RequestChecksumCalculation,
};

use super::super::StorageError;
use super::S3Storage;
use super::failure::chain;

/// Every store takes this region where an endpoint is given and no region.
const DEFAULT_REGION: &str = "us-east-1";

/// A bucket and, where they shall not come from the standard AWS places (environment, profile,
/// the machine's role), the ways to it.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// The bucket's name.
    pub bucket: String,
    /// What all keys start with, without `/` at either end; may be empty.
    pub prefix: String,
    /// The store's URL, if it is not AWS; `AWS_ENDPOINT_URL` else. Where there is one, buckets are
    /// addressed by path.
    pub endpoint: Option<String>,
    /// The region; `AWS_REGION` and so on else.
    pub region: Option<String>,
    /// The credentials; `AWS_ACCESS_KEY_ID` and so on else.
    pub credentials: Option<S3Credentials>,
}

impl S3Config {
    /// This bucket, reached by the standard AWS configuration.
    #[must_use]
    pub fn new(bucket: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: prefix.into(),
            endpoint: None,
            region: None,
            credentials: None,
        }
    }
}

/// A key of a store.
#[derive(Clone)]
pub struct S3Credentials {
    /// The key's name.
    pub access_key_id: String,
    /// The secret.
    pub secret_access_key: String,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials").finish_non_exhaustive()
    }
}

impl S3Storage {
    /// The store in this bucket. Only credentials are looked up; the bucket is not asked yet.
    ///
    /// # Errors
    ///
    /// [`StorageError::Denied`] if there are no credentials.
    pub async fn connect(config: S3Config) -> Result<Self, StorageError> {
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            // Lost replies are told from refusals by the write's id, so repeating is safe.
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(10))
                    // From the request to the reply's start: a slow line needs time for a part.
                    .read_timeout(Duration::from_secs(180))
                    .build(),
            );
        if let Some(endpoint) = config.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(region) = config.region {
            loader = loader.region(Region::new(region));
        }
        if let Some(key) = config.credentials {
            loader = loader.credentials_provider(Credentials::new(
                key.access_key_id,
                key.secret_access_key,
                None,
                None,
                "quillback",
            ));
        }
        let shared = loader.load().await;
        let mut builder = aws_sdk_s3::config::Builder::from(&shared);
        if shared.endpoint_url().is_some() {
            builder = builder
                .force_path_style(true)
                // Others than AWS may refuse the CRC that the SDK would add to everything.
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
            if shared.region().is_none() {
                builder = builder.region(Region::new(DEFAULT_REGION));
            }
        }
        let prefix = match config.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let storage = Self {
            client: Client::from_conf(builder.build()),
            bucket: config.bucket,
            prefix,
            page_size: 1000,
            room: super::upload::room(),
        };
        // Asked now, for the SDK tells their absence as one more network error later.
        let denied = |source: String| StorageError::Denied {
            action: "finding credentials for",
            key: storage.bucket_url(),
            source: source.into(),
        };
        let provider = shared
            .credentials_provider()
            .ok_or_else(|| denied("there are none".to_owned()))?;
        provider
            .provide_credentials()
            .await
            .map_err(|error| denied(chain(&error)))?;
        Ok(storage)
    }
}
