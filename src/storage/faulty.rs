//! [`FaultyStorage`]: a store that fails when it is told to, for tests.
//!
//! Faults are rules over the calls (the third write, every read below `log/`), so that a test
//! can kill a run at each of its steps and see that the next run converges. A crash is a fault
//! that lasts: after it every call fails, as for a process that is gone.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{ListPage, ObjectWriter, Storage, StorageError};

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Storage::get`]
    Get,
    /// [`Storage::get_range`]
    GetRange,
    /// [`Storage::size`]
    Size,
    /// [`Storage::put_if_absent`]
    Put,
    /// [`Storage::upload`]
    Upload,
    /// [`ObjectWriter::write`]
    Write,
    /// [`ObjectWriter::commit`]
    Commit,
    /// [`Storage::list`]
    List,
    /// [`Storage::delete`]
    Delete,
}

impl Operation {
    /// Whether it changes what a reader sees.
    #[must_use]
    pub const fn is_effect(self) -> bool {
        matches!(self, Self::Put | Self::Commit | Self::Delete)
    }
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// [`StorageError::Unavailable`], and nothing was done.
    ErrorBefore,
    /// [`StorageError::Unavailable`], although it was done: the reply is lost.
    ErrorAfter,
    /// As [`Fault::ErrorBefore`], and so is every later call.
    CrashBefore,
    /// As [`Fault::ErrorAfter`], and every later call fails before its effect.
    CrashAfter,
    /// It is done after so long.
    Delay(Duration),
    /// A write is refused as [`StorageError::AlreadyExists`] and not done.
    Refuse,
    /// A write overwrites what is there: the store ignores the condition.
    IgnoreCondition,
    /// A read gives so many bytes at most.
    Truncate(usize),
    /// A read gives this bit (counted from the first byte's lowest) the other way round, if there
    /// are so many.
    FlipBit(usize),
}

/// Which calls a fault befalls.
#[derive(Debug, Clone)]
pub struct Rule {
    operation: Option<Operation>,
    effects: bool,
    key_contains: String,
    skip: u64,
    times: u64,
    fault: Fault,
}

impl Rule {
    /// Befalls every call.
    #[must_use]
    pub const fn new(fault: Fault) -> Self {
        Self {
            operation: None,
            effects: false,
            key_contains: String::new(),
            skip: 0,
            times: u64::MAX,
            fault,
        }
    }

    /// Only calls of this kind.
    #[must_use]
    pub const fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only calls that change what a reader sees.
    #[must_use]
    pub const fn on_effects(mut self) -> Self {
        self.effects = true;
        self
    }

    /// Only calls whose key (or prefix, of a listing) contains this.
    #[must_use]
    pub fn at(mut self, key_contains: impl Into<String>) -> Self {
        self.key_contains = key_contains.into();
        self
    }

    /// Only the calls after so many that it would befall.
    #[must_use]
    pub const fn after(mut self, calls: u64) -> Self {
        self.skip = calls;
        self
    }

    /// Only so many calls.
    #[must_use]
    pub const fn times(mut self, calls: u64) -> Self {
        self.times = calls;
        self
    }

    fn befalls(&mut self, operation: Operation, key: &str) -> bool {
        let concerned = self.operation.is_none_or(|only| only == operation)
            && (!self.effects || operation.is_effect())
            && key.contains(&self.key_contains);
        if !concerned {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let left = self.times > 0;
        self.times = self.times.saturating_sub(1);
        left
    }
}

/// A store around another one that fails by rules; clones share rules and calls.
#[derive(Clone)]
pub struct FaultyStorage {
    inner: Arc<dyn Storage>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    /// Transient errors at random: one in so many calls.
    random: Option<(StdRng, u32)>,
    crashed: bool,
    calls: Vec<(Operation, String)>,
}

impl FaultyStorage {
    /// A store that does not fail yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            state: Arc::default(),
        }
    }

    /// Adds a rule; of several that befall a call the first one counts.
    #[must_use]
    pub fn with(self, rule: Rule) -> Self {
        self.state().rules.push(rule);
        self
    }

    /// Lets one in `one_in` calls fail, before or after its effect, as `seed` has it.
    #[must_use]
    pub fn with_random_errors(self, seed: u64, one_in: u32) -> Self {
        self.state().random = Some((StdRng::seed_from_u64(seed), one_in.max(1)));
        self
    }

    /// Every call so far, in order, those that failed too.
    #[must_use]
    pub fn calls(&self) -> Vec<(Operation, String)> {
        self.state().calls.clone()
    }

    /// Whether a crash was met.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    /// Ends a crash and forgets all rules.
    pub fn heal(&self) {
        let mut state = self.state();
        state.crashed = false;
        state.rules.clear();
        state.random = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, operation: Operation, key: &str) -> Option<Fault> {
        let mut state = self.state();
        state.calls.push((operation, key.to_owned()));
        if state.crashed {
            return Some(Fault::ErrorBefore);
        }
        let ruled = state
            .rules
            .iter_mut()
            .find_map(|rule| rule.befalls(operation, key).then_some(rule.fault));
        ruled.or_else(|| {
            let (random, one_in) = state.random.as_mut()?;
            let unlucky = random.random_range(0..*one_in) == 0;
            let before = random.random::<bool>();
            unlucky.then_some(if before {
                Fault::ErrorBefore
            } else {
                Fault::ErrorAfter
            })
        })
    }

    /// Does the call as the rules have it; gives the fault along that concerns its result.
    async fn around<T>(
        &self,
        operation: Operation,
        key: &str,
        call: impl Future<Output = Result<T, StorageError>> + Send,
    ) -> Result<(T, Option<Fault>), StorageError> {
        let fault = self.fault(operation, key);
        let injected = || StorageError::Unavailable {
            action: "calling",
            key: key.to_owned(),
            source: format!("injected: {fault:?} of {operation:?}").into(),
        };
        match fault {
            Some(Fault::ErrorBefore) => return Err(injected()),
            Some(Fault::CrashBefore) => {
                self.state().crashed = true;
                return Err(injected());
            }
            Some(Fault::Refuse) if matches!(operation, Operation::Put | Operation::Commit) => {
                return Err(StorageError::AlreadyExists {
                    key: key.to_owned(),
                });
            }
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::IgnoreCondition) if operation.is_effect() => {
                self.inner.delete(key).await?;
            }
            _ => {}
        }
        let result = call.await?;
        match fault {
            Some(Fault::ErrorAfter) => Err(injected()),
            Some(Fault::CrashAfter) => {
                self.state().crashed = true;
                Err(injected())
            }
            _ => Ok((result, fault)),
        }
    }
}

/// What a faulty read gives.
fn damage(bytes: Bytes, fault: Option<Fault>) -> Bytes {
    match fault {
        Some(Fault::Truncate(length)) => bytes.slice(..length.min(bytes.len())),
        Some(Fault::FlipBit(bit)) if bit / 8 < bytes.len() => {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            damaged.into()
        }
        _ => bytes,
    }
}

impl fmt::Debug for FaultyStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStorage({:?})", self.inner)
    }
}

#[async_trait::async_trait]
impl Storage for FaultyStorage {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn get(&self, key: &str) -> Result<Bytes, StorageError> {
        let call = self.inner.get(key);
        let (bytes, fault) = self.around(Operation::Get, key, call).await?;
        Ok(damage(bytes, fault))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        let call = self.inner.get_range(key, range);
        let (bytes, fault) = self.around(Operation::GetRange, key, call).await?;
        Ok(damage(bytes, fault))
    }

    async fn size(&self, key: &str) -> Result<u64, StorageError> {
        let call = self.inner.size(key);
        Ok(self.around(Operation::Size, key, call).await?.0)
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StorageError> {
        let call = self.inner.put_if_absent(key, body);
        self.around(Operation::Put, key, call).await?;
        Ok(())
    }

    fn upload_bytes(&self) -> usize {
        self.inner.upload_bytes()
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn ObjectWriter>, StorageError> {
        let call = self.inner.upload(key);
        let (inner, _) = self.around(Operation::Upload, key, call).await?;
        Ok(Box::new(FaultyUpload {
            storage: self.clone(),
            key: key.to_owned(),
            inner,
        }))
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
    ) -> Result<ListPage, StorageError> {
        let call = self.inner.list(prefix, start_after);
        Ok(self.around(Operation::List, prefix, call).await?.0)
    }

    async fn delete(&self, key: &str) -> Result<(), StorageError> {
        let call = self.inner.delete(key);
        self.around(Operation::Delete, key, call).await?;
        Ok(())
    }
}

struct FaultyUpload {
    storage: FaultyStorage,
    key: String,
    inner: Box<dyn ObjectWriter>,
}

#[async_trait::async_trait]
impl ObjectWriter for FaultyUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        let call = self.inner.write(bytes);
        let written = self.storage.around(Operation::Write, &self.key, call);
        written.await?;
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), StorageError> {
        let call = self.inner.commit();
        let committed = self.storage.around(Operation::Commit, &self.key, call);
        committed.await?;
        Ok(())
    }

    async fn abort(self: Box<Self>) {
        self.inner.abort().await;
    }
}
