//! Marks, and what restores have done.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ArchiveError, Repository, get_json, put_json};
use crate::archive::layout;
use crate::archive::marks::{Mark, MarkName};
use crate::storage::{StorageError, list_all};

impl Repository {
    /// Puts a mark.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::MarkExists`] if there is one of this name; a store that fails.
    pub async fn put_mark(&self, mark: &Mark) -> Result<(), ArchiveError> {
        let key = layout::mark(&mark.name);
        match put_json(&*self.storage, &key, mark).await {
            Err(ArchiveError::Storage(StorageError::AlreadyExists { .. })) => {
                let there: Mark = get_json(&*self.storage, &key).await?;
                Err(ArchiveError::MarkExists {
                    name: mark.name.clone(),
                    created: crate::clock::rfc3339(there.created),
                })
            }
            other => other,
        }
    }

    /// The mark of this name, if there is one.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn mark(&self, name: &MarkName) -> Result<Option<Mark>, ArchiveError> {
        let key = layout::mark(name);
        match get_json::<Mark>(&*self.storage, &key).await {
            Ok(mark) if mark.name == *name => Ok(Some(mark)),
            Ok(_) => Err(ArchiveError::Misnamed { key }),
            Err(ArchiveError::Storage(StorageError::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every mark, by its time.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn marks(&self) -> Result<Vec<Mark>, ArchiveError> {
        let objects = list_all(&*self.storage, layout::MARKS, None).await?;
        let keys = objects
            .into_iter()
            .map(|object| object.key)
            .filter(|key| layout::parse_mark(key).is_some());
        let mut marks: Vec<Mark> = self.get_all(keys).await?;
        marks.sort_by(|a, b| (a.time, &a.name).cmp(&(b.time, &b.name)));
        Ok(marks)
    }

    /// Keeps the report of a restore, and gives its key. `random` keeps two of one second apart.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn put_restore(
        &self,
        finished: DateTime<Utc>,
        random: u32,
        report: &(impl Serialize + Sync),
    ) -> Result<String, ArchiveError> {
        let key = layout::restore(finished, random);
        put_json(&*self.storage, &key, report).await?;
        Ok(key)
    }

    /// Keeps the report of a reseed, and gives its key.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn put_reseed(
        &self,
        finished: DateTime<Utc>,
        random: u32,
        report: &(impl Serialize + Sync),
    ) -> Result<String, ArchiveError> {
        let key = layout::reseed(finished, random);
        put_json(&*self.storage, &key, report).await?;
        Ok(key)
    }

    /// Keeps the list of what a server held before a reseed took it from it, and gives its key.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn put_discarded(
        &self,
        listed: DateTime<Utc>,
        random: u32,
        server: uuid::Uuid,
        list: &(impl Serialize + Sync),
    ) -> Result<String, ArchiveError> {
        let key = layout::discarded(listed, random, server);
        put_json(&*self.storage, &key, list).await?;
        Ok(key)
    }

    /// The newest reports of restores, the newest first; those that this program cannot read are
    /// left out, for they are of no use to anyone who asks.
    ///
    /// # Errors
    ///
    /// What the listing fails with.
    pub async fn newest_restores<T: DeserializeOwned>(
        &self,
        most: usize,
    ) -> Result<Vec<T>, ArchiveError> {
        let objects = list_all(&*self.storage, layout::RESTORES, None).await?;
        let mut found = Vec::new();
        let keys = objects.iter().rev().map(|object| &object.key);
        for key in keys.filter(|key| layout::is_restore(key)) {
            if found.len() == most {
                break;
            }
            match get_json(&*self.storage, key).await {
                Ok(report) => found.push(report),
                Err(error) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    key,
                    "a report cannot be read"
                ),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::archive::layout::BranchNumber;
    use crate::archive::marks::MarkServer;
    use crate::clock::{Clock as _, SystemClock};
    use crate::storage::MemoryStorage;
    use uuid::Uuid;

    fn mark(name: &str, seconds: i64) -> Mark {
        let time = DateTime::from_timestamp(1_795_000_000 + seconds, 0).expect("in range");
        Mark {
            name: name.parse().expect("a name"),
            gtid_executed: "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"
                .parse()
                .expect("a set"),
            branch: BranchNumber(1),
            time,
            server: MarkServer {
                uuid: Uuid::nil(),
                address: "db1:3306".to_owned(),
                version: "8.4.0".to_owned(),
            },
            note: String::new(),
            created: time,
            quillback: "0.1.0".to_owned(),
        }
    }

    async fn repository() -> Repository {
        let storage = Arc::new(MemoryStorage::default());
        Repository::init(storage, SystemClock.now())
            .await
            .expect("an archive")
    }

    #[tokio::test]
    async fn a_mark_is_put_once() {
        let repository = repository().await;
        let (late, early) = (mark("a", 10), mark("b", 5));
        repository.put_mark(&late).await.expect("it is new");
        repository.put_mark(&early).await.expect("it is new");
        let again = repository.put_mark(&mark("a", 20)).await;
        assert!(
            matches!(again, Err(ArchiveError::MarkExists { .. })),
            "{again:?}"
        );
        let marks = repository.marks().await.expect("they are there");
        assert_eq!(marks, [early, late.clone()]);
        assert_eq!(repository.mark(&late.name).await.expect("read"), Some(late));
        let other = "c".parse().expect("a name");
        assert_eq!(repository.mark(&other).await.expect("read"), None);
    }

    #[tokio::test]
    async fn the_newest_reports_come_first_and_the_unreadable_do_not_matter() {
        let repository = repository().await;
        for second in 0..4_u32 {
            let time = DateTime::from_timestamp(i64::from(second), 0).expect("in range");
            repository
                .put_restore(time, 7, &second)
                .await
                .expect("it is new");
        }
        let time = DateTime::from_timestamp(9, 0).expect("in range");
        repository
            .put_restore(time, 7, &"another format")
            .await
            .expect("it is new");
        let found: Vec<u32> = repository.newest_restores(3).await.expect("a listing");
        assert_eq!(found, [3, 2, 1]);
    }
}
