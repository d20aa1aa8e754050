//! One writer: transfer after transfer, across lost connections and failovers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::Utc;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use tokio_util::sync::CancellationToken;

use super::{Outcome, Shared, Transfer};
use crate::random::Random;
use crate::server::connect;

/// How long one round trip may take: a paused server would hold a writer for ever.
const STEP_LIMIT: Duration = Duration::from_secs(5);
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Errors at COMMIT that say for certain that the transaction was rolled back: lock wait timeout, deadlock (also by a
/// certification conflict), read-only server, and a replication hook's refusal.
const ROLLED_BACK: [u16; 5] = [1205, 1213, 1290, 1836, 3101];

/// The GTID that this session's last transaction got.
const LAST_GTID: &str = "SELECT GTID FROM performance_schema.events_transactions_history \
    WHERE THREAD_ID = PS_CURRENT_THREAD_ID() AND STATE = 'COMMITTED' AND ACCESS_MODE = 'READ WRITE' \
    AND AUTOCOMMIT = 'NO' ORDER BY EVENT_ID DESC LIMIT 1";

pub(super) async fn run(number: u32, shared: Arc<Shared>, stop: CancellationToken) {
    let mut random = Random::new(u64::from(number) + 1);
    let mut conn: Option<Conn> = None;
    while !stop.is_cancelled() {
        let mut open = match conn.take() {
            Some(open) => open,
            None => match reconnect(&shared).await {
                Ok(open) => open,
                Err(error) => {
                    shared.note_error(&error);
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                    continue;
                }
            },
        };
        let gate = shared.gate.read().await;
        match transfer(&mut open, &shared, &mut random).await {
            Ok(()) => conn = Some(open),
            Err(error) => {
                shared.note_error(&error);
                // Not closed politely: the server may not answer. Dropping the connection closes the socket.
                drop(open);
                drop(gate);
                tokio::time::sleep(RECONNECT_PAUSE).await;
                continue;
            }
        }
        drop(gate);
        tokio::time::sleep(shared.options.pause).await;
    }
}

async fn reconnect(shared: &Shared) -> Result<Conn> {
    let mut conn = connect(&(shared.target)().await?).await?;
    step(conn.query_drop(format!("USE `{}`", shared.options.schema))).await?;
    Ok(conn)
}

/// Makes one transfer and notes its outcome; an error means that the connection is not to be used any more.
async fn transfer(conn: &mut Conn, shared: &Shared, random: &mut Random) -> Result<()> {
    let accounts = u64::from(shared.options.accounts);
    let from = u32::try_from(random.below(accounts) + 1).expect("there are fewer accounts");
    let mut to = u32::try_from(random.below(accounts) + 1).expect("there are fewer accounts");
    if to == from {
        to = from % shared.options.accounts + 1;
    }
    let mut transfer = Transfer {
        id: shared.next_id.fetch_add(1, Ordering::Relaxed),
        from,
        to,
        amount: i64::try_from(random.below(20) + 1).expect("it is small"),
        sent_micros: Utc::now().timestamp_micros(),
        known_micros: 0,
        outcome: Outcome::Failed,
    };
    let result = attempt(conn, &mut transfer).await;
    transfer.known_micros = Utc::now().timestamp_micros();
    shared.transfers().push(transfer);
    result
}

async fn attempt(conn: &mut Conn, transfer: &mut Transfer) -> Result<()> {
    let Transfer {
        id,
        from,
        to,
        amount,
        sent_micros,
        ..
    } = *transfer;
    // The balances in the order of their keys, so that two writers wait for each other rather than deadlock.
    let [first, second] = if from < to {
        [(from, -amount), (to, amount)]
    } else {
        [(to, amount), (from, -amount)]
    };
    let statements = format!(
        "START TRANSACTION; \
         UPDATE accounts SET balance = balance + {} WHERE id = {}; \
         UPDATE accounts SET balance = balance + {} WHERE id = {}; \
         INSERT INTO transfers VALUES ({id}, {from}, {to}, {amount}, {sent_micros})",
        first.1, first.0, second.1, second.0,
    );
    step(conn.query_drop(statements)).await?;
    transfer.sent_micros = Utc::now().timestamp_micros();
    match tokio::time::timeout(STEP_LIMIT, conn.query_drop("COMMIT")).await {
        Ok(Ok(())) => {}
        Ok(Err(Error::Server(error))) if ROLLED_BACK.contains(&error.code) => {
            return Err(error.into());
        }
        Ok(Err(error)) => {
            transfer.outcome = Outcome::Unknown;
            return Err(error.into());
        }
        Err(late) => {
            transfer.outcome = Outcome::Unknown;
            return Err(late.into());
        }
    }
    transfer.outcome = Outcome::Acknowledged { gtid: None };
    let gtid: String = step(conn.query_first(LAST_GTID))
        .await?
        .context("the server has not kept its last transaction")?;
    transfer.outcome = Outcome::Acknowledged { gtid: Some(gtid) };
    Ok(())
}

async fn step<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T> {
    Ok(tokio::time::timeout(STEP_LIMIT, work)
        .await
        .context("no answer")??)
}
