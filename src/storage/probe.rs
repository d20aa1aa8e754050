//! Whether a store keeps its word about conditional writes.
//!
//! The fence between two streamers is a conditional write, and stores exist that accept the
//! condition and ignore it, or turn it round. So nothing is fenced on a store before it passed
//! this probe: racers on scratch keys, of which exactly one must win each, and whose bytes must
//! stay.

use bytes::Bytes;
use futures_util::future::join_all;
use uuid::Uuid;

use super::{Storage, StorageError};

/// Writers of one race.
const RACERS: usize = 8;

/// Races, each on a key of its own: a store that decides late may come out right by luck.
const ROUNDS: usize = 3;

/// Proves by a few small writes below `.probe/` that the store honours conditional writes; they
/// are removed again, also on failure.
///
/// # Errors
///
/// [`StorageError::UnconditionalWrites`] with what was seen if it does not, else what the store
/// failed with.
pub async fn probe_conditional_writes(storage: &dyn Storage) -> Result<(), StorageError> {
    for _ in 0..ROUNDS {
        let key = format!(".probe/{}", Uuid::new_v4().simple());
        let seen = race(storage, &key).await;
        let removed = storage.delete(&key).await;
        let evidence = match seen {
            Ok(None) => removed.map(|()| None)?,
            seen => seen?,
        };
        if let Some(evidence) = evidence {
            return Err(StorageError::UnconditionalWrites {
                url: storage.url(),
                evidence,
            });
        }
    }
    Ok(())
}

/// One race; `Some` is the evidence against the store.
async fn race(storage: &dyn Storage, key: &str) -> Result<Option<String>, StorageError> {
    let bodies: Vec<Bytes> = (0..RACERS)
        .map(|racer| Bytes::from(format!("racer {racer} for {key}\n")))
        .collect();
    let puts = bodies
        .iter()
        .map(|body| storage.put_if_absent(key, body.clone()));
    let mut winners = Vec::new();
    for (body, put) in bodies.iter().zip(join_all(puts).await) {
        match put {
            Ok(()) => winners.push(body),
            Err(StorageError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let [winner] = winners.as_slice() else {
        return Ok(Some(match winners.len() {
            0 => format!("none of {RACERS} writers could make the new object {key}"),
            n => format!("{n} of {RACERS} writers of {key} were told that they made it"),
        }));
    };
    if storage.get(key).await? != *winner {
        return Ok(Some(format!(
            "{key} holds the bytes of a writer that was refused"
        )));
    }
    match storage
        .put_if_absent(key, Bytes::from_static(b"too late\n"))
        .await
    {
        Err(StorageError::AlreadyExists { .. }) => {}
        Err(error) => return Err(error),
        Ok(()) => return Ok(Some(format!("{key} was overwritten"))),
    }
    if storage.get(key).await? != *winner {
        return Ok(Some(format!(
            "{key} changed although the write was refused"
        )));
    }
    Ok(None)
}
