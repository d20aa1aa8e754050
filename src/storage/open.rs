//! From an archive's URL to its store.

use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use super::{LocalStorage, S3Config, S3Storage, Storage, StorageError, is_valid_key};

/// The store of this URL: `file:///folder` or `s3://bucket/prefix`.
///
/// Nothing is written; a folder need not exist yet. Credentials, region and endpoint of S3 come
/// from where every AWS tool takes them (environment, profile, the machine's role), the SDK's own
/// reading of the environment being the one exception to the rule that only the command line does
/// that.
///
/// # Errors
///
/// [`StorageError::InvalidUrl`] if the URL is none of these, [`StorageError::Denied`] if there are
/// no credentials for S3.
pub async fn open(url: &str) -> Result<Arc<dyn Storage>, StorageError> {
    match Location::parse(url)? {
        Location::Folder(path) => Ok(Arc::new(LocalStorage::new(path))),
        Location::S3 { bucket, prefix } => {
            let storage = S3Storage::connect(S3Config::new(bucket, prefix)).await?;
            Ok(Arc::new(storage))
        }
    }
}

/// Where an archive is.
#[derive(Debug, PartialEq, Eq)]
enum Location {
    Folder(PathBuf),
    S3 { bucket: String, prefix: String },
}

impl Location {
    fn parse(text: &str) -> Result<Self, StorageError> {
        let invalid = |reason: &str| StorageError::InvalidUrl {
            url: without_secrets(text),
            reason: reason.to_owned(),
        };
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(invalid(
                "not a URL; write file:///folder or s3://bucket/prefix",
            ));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" if !rest.starts_with("///") => {
                return Err(invalid("a folder needs its full path: file:///folder"));
            }
            "file" | "s3" => {}
            _ => {
                return Err(invalid(
                    "unknown kind of store; write file:///folder or s3://bucket/prefix",
                ));
            }
        }
        let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("it must have no ? and no # (write %3F and %23)"));
        }
        if url.scheme() == "file" {
            return match url.to_file_path() {
                Ok(path) if path.parent().is_some() => Ok(Self::Folder(path)),
                _ => Err(invalid("no folder is named: file:///folder")),
            };
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid(
                "credentials do not belong in the URL; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ));
        }
        if url.port().is_some() {
            return Err(invalid(
                "an endpoint does not belong in the URL; set AWS_ENDPOINT_URL",
            ));
        }
        let bucket = url
            .host_str()
            .filter(|bucket| is_bucket(bucket))
            .ok_or_else(|| invalid("no valid bucket is named: s3://bucket/prefix"))?;
        let prefix = url.path().trim_matches('/');
        // Parsing has encoded what no URL may have, such as a space.
        let is_plain = is_valid_key(prefix) && text.contains(prefix);
        if !prefix.is_empty() && !is_plain {
            return Err(invalid(
                "the prefix may have letters, digits and . _ - = % + @ ~ only",
            ));
        }
        Ok(Self::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

/// A bucket's name by the rules of S3, with the capitals and `_` of old ones.
fn is_bucket(name: &str) -> bool {
    (3..=255).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The URL with neither user and password nor query, even if it is none.
fn without_secrets(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        (None, Some((_, rest))) => format!("…@{rest}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_their_store() {
        for (url, path) in [
            ("file:///backup", "/backup"),
            ("file:///a/b%20c/", "/a/b c/"),
            ("FILE:///a/./b", "/a/b"),
        ] {
            let parsed = Location::parse(url).expect(url);
            assert_eq!(parsed, Location::Folder(path.into()), "{url}");
        }
        for (url, bucket, prefix) in [
            ("s3://bucket", "bucket", ""),
            ("s3://bucket/", "bucket", ""),
            ("s3://my.bucket-1/a/b=c/", "my.bucket-1", "a/b=c"),
        ] {
            let parsed = Location::parse(url).expect(url);
            let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
            assert_eq!(parsed, Location::S3 { bucket, prefix }, "{url}");
        }
    }

    #[test]
    fn wrong_urls_say_what_is_right() {
        for (url, says) in [
            (
                "/backup",
                "not a URL; write file:///folder or s3://bucket/prefix",
            ),
            ("", "not a URL"),
            ("file:backup", "a folder needs its full path"),
            ("file://backup/x", "a folder needs its full path"),
            ("file:///", "no folder is named"),
            ("file:///a?b", "no ?"),
            ("s3:bucket", "no valid bucket"),
            ("s3:///prefix", "no valid bucket"),
            ("s3://b", "no valid bucket"),
            ("s3://bucket/a//b", "the prefix may have"),
            ("s3://bucket/a b", "the prefix may have"),
            ("s3://bucket:9000/a", "AWS_ENDPOINT_URL"),
            ("s3://bucket?secret", "no ?"),
            ("gs://bucket/a", "unknown kind of store"),
        ] {
            match Location::parse(url) {
                Err(StorageError::InvalidUrl { reason, .. }) => {
                    assert!(reason.contains(says), "{url}: {reason}");
                }
                other => panic!("{url} gave {other:?}"),
            }
        }
    }

    #[test]
    fn errors_keep_secrets_back() {
        for url in [
            "s3://AKIA:hunter2@bucket/a",
            "s3://AKIA:hunter/2@bucket",
            "s3://bucket/a?key=hunter2",
            "https://x:hunter2@host/",
            "x:hunter2@host",
        ] {
            let error = Location::parse(url).expect_err(url);
            for text in [error.to_string(), format!("{error:?}")] {
                assert!(!text.contains("hunter"), "{text}");
            }
        }
    }

    #[tokio::test]
    async fn a_folder_opens_without_being_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("archive");
        let url = Url::from_file_path(&path).expect("absolute").to_string();
        let storage = open(&url).await.expect("opens");
        assert_eq!(storage.url(), url);
        assert!(!path.exists());
    }
}
