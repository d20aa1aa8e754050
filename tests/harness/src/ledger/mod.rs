//! A writer with its own account of what was committed, against which a restore is judged.
//!
//! Bank transfers between accounts whose balances always add up to the same. Each transfer is one transaction: two balances
//! and a row in `transfers`. The ledger keeps, outside the server, what it asked for and what it was told: acknowledged
//! (with the GTID, as performance_schema.events_transactions_history shows it right after the commit), failed (certainly not
//! committed), or unknown (the connection broke while the commit was on its way: either may be true).
//! [`Ledger::check`] then holds a server against that account.

mod check;
mod writer;

use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use check::{CheckReport, Cut};

use crate::server::connect;
use crate::trio::PrimaryFinder;

/// Where to write: asked at the start and after each lost connection, for a `mysql://` URL.
pub type Target =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<String>> + Send>> + Send + Sync>;

/// How hard the ledger works.
#[derive(Debug, Clone)]
pub struct LedgerOptions {
    /// The schema's name.
    pub schema: String,
    /// How many accounts there are; each begins with [`LedgerOptions::opening`].
    pub accounts: u32,
    /// The opening balance of each account.
    pub opening: i64,
    /// How many connections write at a time.
    pub writers: u32,
    /// The pause of each writer after a transfer.
    pub pause: Duration,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self {
            schema: "ledger".to_owned(),
            accounts: 50,
            opening: 1000,
            writers: 3,
            pause: Duration::from_millis(5),
        }
    }
}

/// What the ledger was told about a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The server acknowledged the commit. The GTID is missing only if the connection broke right after that.
    Acknowledged {
        /// The transaction's GTID.
        gtid: Option<String>,
    },
    /// It was not committed.
    Failed,
    /// The commit was sent and its answer never came.
    Unknown,
}

/// One transfer, as the ledger knows it.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// The primary key of its row in `transfers`.
    pub id: u64,
    /// The account that pays.
    pub from: u32,
    /// The account that is paid.
    pub to: u32,
    /// How much.
    pub amount: i64,
    /// When the commit was sent: microseconds since 1970 by this machine's clock.
    pub sent_micros: i64,
    /// When its outcome was known.
    pub known_micros: i64,
    /// The outcome.
    pub outcome: Outcome,
}

/// A running or stopped ledger.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    stop: CancellationToken,
    writers: JoinSet<()>,
}

struct Shared {
    options: LedgerOptions,
    target: Target,
    next_id: AtomicU64,
    transfers: Mutex<Vec<Transfer>>,
    /// Held shared by a writer during a transfer, exclusively by [`Ledger::pause`].
    gate: tokio::sync::RwLock<()>,
    /// The last error of a writer, for a test that waits in vain.
    last_error: Mutex<Option<String>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// While this lives, no transfer is under way.
#[derive(Debug)]
pub struct Paused<'a> {
    _gate: tokio::sync::RwLockWriteGuard<'a, ()>,
}

/// A target that never moves.
pub fn fixed(url: &str) -> Target {
    let url = url.to_owned();
    Arc::new(move || {
        let url = url.clone();
        Box::pin(async move { Ok(url) })
    })
}

/// A target that follows the primary of a group.
pub fn primary_of(finder: PrimaryFinder) -> Target {
    Arc::new(move || {
        let finder = finder.clone();
        Box::pin(async move { finder.primary_url().await })
    })
}

/// A target that follows the one server of several that takes writes.
pub fn writable_of(urls: Vec<String>) -> Target {
    Arc::new(move || {
        let urls = urls.clone();
        Box::pin(async move {
            for url in urls {
                let Ok(mut conn) = connect(&url).await else {
                    continue;
                };
                let read_only: Option<bool> = conn.query_first("SELECT @@GLOBAL.read_only").await?;
                if read_only == Some(false) {
                    return Ok(url);
                }
            }
            bail!("no server takes writes")
        })
    })
}

impl Ledger {
    /// Makes the schema and starts the default ledger.
    ///
    /// # Errors
    /// The target cannot be reached or refuses the schema.
    pub async fn start(target: Target) -> Result<Self> {
        Self::start_with(target, LedgerOptions::default()).await
    }

    /// Makes the schema and starts writing.
    ///
    /// # Errors
    /// As [`Ledger::start`].
    pub async fn start_with(target: Target, options: LedgerOptions) -> Result<Self> {
        let mut conn = connect(&target().await?).await?;
        create(&mut conn, &options).await?;
        conn.disconnect().await?;
        let shared = Arc::new(Shared {
            options,
            target,
            next_id: AtomicU64::new(1),
            transfers: Mutex::default(),
            gate: tokio::sync::RwLock::default(),
            last_error: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let mut writers = JoinSet::new();
        for number in 0..shared.options.writers {
            writers.spawn(writer::run(number, Arc::clone(&shared), stop.clone()));
        }
        Ok(Self {
            shared,
            stop,
            writers,
        })
    }

    /// Stops writing; transfers under way come to their outcome first.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        while self.writers.join_next().await.is_some() {}
    }

    /// Waits for the transfers under way and keeps new ones back until the result is dropped.
    pub async fn pause(&self) -> Paused<'_> {
        Paused {
            _gate: self.shared.gate.write().await,
        }
    }

    /// All transfers with a known fate so far (unknown is one), in the order in which it became known.
    pub fn transfers(&self) -> Vec<Transfer> {
        self.shared.transfers().clone()
    }

    /// How many transfers were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        let is_acknowledged =
            |transfer: &&Transfer| matches!(transfer.outcome, Outcome::Acknowledged { .. });
        self.shared
            .transfers()
            .iter()
            .filter(is_acknowledged)
            .count()
    }

    /// Waits until `more` further transfers are acknowledged.
    ///
    /// # Errors
    /// They are not within `limit`; with the last error of a writer.
    pub async fn wait_acknowledged(&self, more: usize, limit: Duration) -> Result<()> {
        let wanted = self.acknowledged() + more;
        crate::until("transfers", limit, async || {
            Ok((self.acknowledged() >= wanted).then_some(()))
        })
        .await
        .with_context(|| format!("the last error of a writer: {:?}", self.last_error()))
    }

    /// The last error that a writer met, if any.
    pub fn last_error(&self) -> Option<String> {
        self.shared
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Compares a server with the ledger; see [`check`](self::CheckReport).
    ///
    /// # Errors
    /// The first few things that are not as they must be; or the server's error.
    pub async fn check(&self, conn: &mut Conn, cut: &Cut) -> Result<CheckReport> {
        check::run(conn, &self.shared.options, &self.transfers(), cut).await
    }
}

impl Shared {
    fn transfers(&self) -> std::sync::MutexGuard<'_, Vec<Transfer>> {
        self.transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn note_error(&self, error: &anyhow::Error) {
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
    }
}

async fn create(conn: &mut Conn, options: &LedgerOptions) -> Result<()> {
    let LedgerOptions {
        schema,
        accounts,
        opening,
        ..
    } = options;
    conn.query_drop(format!("CREATE DATABASE `{schema}`"))
        .await?;
    conn.query_drop(format!(
        "CREATE TABLE `{schema}`.accounts (id INT UNSIGNED PRIMARY KEY, balance BIGINT NOT NULL)"
    ))
    .await?;
    conn.query_drop(format!(
        "CREATE TABLE `{schema}`.transfers (id BIGINT UNSIGNED PRIMARY KEY, from_account INT UNSIGNED NOT NULL, \
         to_account INT UNSIGNED NOT NULL, amount BIGINT NOT NULL, client_micros BIGINT NOT NULL, \
         FOREIGN KEY (from_account) REFERENCES accounts (id), FOREIGN KEY (to_account) REFERENCES accounts (id))"
    ))
    .await?;
    let rows: Vec<_> = (1..=*accounts)
        .map(|id| format!("({id}, {opening})"))
        .collect();
    conn.query_drop(format!(
        "INSERT INTO `{schema}`.accounts VALUES {}",
        rows.join(", ")
    ))
    .await?;
    Ok(())
}
