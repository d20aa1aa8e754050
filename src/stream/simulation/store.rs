//! The store as a streamer meets it: far away, and not always well.
//!
//! A request that has left a process goes on when the process dies: it may take effect later, or
//! never. So what changes the store is done by a task of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::world::{Gate, Life, World};
use crate::archive::layout::SegmentName;
use crate::archive::segment::{HeadRead, read_head};
use crate::gtid::GtidSet;
use crate::storage::{ListPage, MemoryStorage, ObjectWriter, Storage, StorageError};

/// How the store is at present.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// It answers nothing until then.
    pub(super) away_until: Instant,
    /// It takes seconds until then.
    pub(super) slow_until: Instant,
    /// One in so many calls goes wrong; 0: none.
    pub(super) wrong_one_in: u64,
}

impl Weather {
    pub(super) fn fine() -> Self {
        Self {
            away_until: Instant::now(),
            slow_until: Instant::now(),
            wrong_one_in: 0,
        }
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Well,
    /// Nothing is done, and the caller is told that it failed.
    Before,
    /// It is done, and the reply is lost.
    After,
    /// The caller is told that it failed, and it is done later.
    Late(Duration),
    /// 412 for an object that is not there.
    Refused,
}

/// The store behind a process's network.
#[derive(Clone)]
pub(super) struct FarStorage {
    pub(super) world: Arc<World>,
    pub(super) inner: MemoryStorage,
    pub(super) weather: Arc<Mutex<Weather>>,
    pub(super) gate: Gate,
    pub(super) who: String,
    /// What was put under which key, or was to be.
    pub(super) contents: Contents,
}

/// The GTIDs that segments complete.
pub(super) type Contents = Arc<Mutex<BTreeMap<String, GtidSet>>>;

impl fmt::Debug for FarStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FarStorage({})", self.who)
    }
}

impl FarStorage {
    fn weather(&self) -> Weather {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latency(&self) -> Duration {
        match self.weather().slow_until > Instant::now() {
            true => self.world.millis(300..6_000),
            false => self.world.millis(1..60),
        }
    }

    fn fate(&self, writes: bool, is_segment: bool) -> Fate {
        let weather = self.weather();
        let away = weather.away_until > Instant::now();
        if !away && !self.world.once_in(weather.wrong_one_in) {
            return Fate::Well;
        }
        let kind = self.world.draw(0..if away { 40 } else { 10 });
        match kind {
            _ if !writes => Fate::Before,
            0..=3 => Fate::After,
            4 => Fate::Late(self.world.millis(50..40_000)),
            5 if is_segment => Fate::Refused,
            _ => Fate::Before,
        }
    }

    fn unavailable(&self, action: &'static str, key: &str) -> StorageError {
        StorageError::Unavailable {
            action,
            key: key.to_owned(),
            source: "the simulation has it so".into(),
        }
    }

    async fn read<T>(
        &self,
        action: &'static str,
        key: &str,
        call: impl Future<Output = Result<T, StorageError>> + Send,
    ) -> Result<T, StorageError> {
        self.gate.pass().await;
        tokio::time::sleep(self.latency()).await;
        let result = match self.fate(false, false) {
            Fate::Well => call.await,
            _ => Err(self.unavailable(action, key)),
        };
        tokio::time::sleep(self.latency()).await;
        self.gate.pass().await;
        result
    }

    async fn write(
        &self,
        action: &'static str,
        key: &str,
        call: impl Future<Output = Result<(), StorageError>> + Send + 'static,
    ) -> Result<(), StorageError> {
        self.gate.pass().await;
        let fate = self.fate(true, SegmentName::parse(key).is_some());
        let (there, back) = (self.latency(), self.latency());
        let delay = match fate {
            Fate::Late(more) => there + more,
            _ => there,
        };
        // What has not left the machine dies with it.
        let survives = self.world.once_in(2);
        let (world, gate, who) = (Arc::clone(&self.world), self.gate.clone(), self.who.clone());
        let name = key.to_owned();
        let effect = async move {
            tokio::time::sleep(delay).await;
            if gate.life() == Life::Dead && !survives {
                std::future::pending::<()>().await;
            }
            let result = call.await;
            let outcome = match &result {
                Ok(()) => "done",
                Err(_) => "refused",
            };
            world.tell(format_args!("{who}: {action} {name}: {outcome} ({fate:?})"));
            result
        };
        let result = match fate {
            Fate::Before | Fate::Refused => {
                tokio::time::sleep(there).await;
                Err(match fate {
                    Fate::Refused => StorageError::AlreadyExists {
                        key: key.to_owned(),
                    },
                    _ => self.unavailable(action, key),
                })
            }
            Fate::Late(_) => {
                tokio::spawn(effect);
                tokio::time::sleep(there).await;
                Err(self.unavailable(action, key))
            }
            Fate::Well | Fate::After => {
                let result = tokio::spawn(effect).await;
                match (fate, result) {
                    (Fate::Well, Ok(result)) => result,
                    _ => Err(self.unavailable(action, key)),
                }
            }
        };
        tokio::time::sleep(back).await;
        self.gate.pass().await;
        result
    }
}

#[async_trait::async_trait]
impl Storage for FarStorage {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn get(&self, key: &str) -> Result<Bytes, StorageError> {
        self.read("reading", key, self.inner.get(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        let call = self.inner.get_range(key, range);
        self.read("reading", key, call).await
    }

    async fn size(&self, key: &str) -> Result<u64, StorageError> {
        self.read("reading", key, self.inner.size(key)).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StorageError> {
        if SegmentName::parse(key).is_some()
            && let Ok(HeadRead::Done(index, _)) = read_head(&body)
        {
            let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
            if !contents.contains_key(key) {
                let (who, added, part) = (&self.who, &index.added, &index.part);
                let complete_to = index.complete_to.map(crate::clock::rfc3339);
                self.world.tell(format_args!(
                    "{who}: {key} holds {added:#} {part:?} {complete_to:?}"
                ));
            }
            contents.insert(key.to_owned(), index.added);
        }
        let (inner, name) = (self.inner.clone(), key.to_owned());
        let call = async move { inner.put_if_absent(&name, body).await };
        self.write("put", key, call).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn ObjectWriter>, StorageError> {
        // No part of a stream uses it.
        Err(self.unavailable("uploading", key))
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
    ) -> Result<ListPage, StorageError> {
        let call = self.inner.list(prefix, start_after);
        self.read("listing", prefix, call).await
    }

    async fn delete(&self, key: &str) -> Result<(), StorageError> {
        let (inner, name) = (self.inner.clone(), key.to_owned());
        let call = async move { inner.delete(&name).await };
        self.write("delete", key, call).await
    }
}
