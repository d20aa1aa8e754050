//! The faulty store does what its rules say, and the probe sees through lying stores.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quillback::storage::{
    Fault, FaultyStorage, MemoryStorage, Operation, Rule, Storage, StorageError, list_all,
    probe_conditional_writes,
};

use crate::contract::{already_exists, is_not_found};

fn faulty(rule: Rule) -> (MemoryStorage, FaultyStorage) {
    let memory = MemoryStorage::new();
    let faulty = FaultyStorage::new(Arc::new(memory.clone())).with(rule);
    (memory, faulty)
}

fn is_unavailable<T>(result: &Result<T, StorageError>) -> bool {
    matches!(result, Err(StorageError::Unavailable { .. }))
}

#[tokio::test]
async fn errors_come_before_or_after_the_effect() {
    for (fault, written) in [(Fault::ErrorBefore, false), (Fault::ErrorAfter, true)] {
        let (memory, faulty) = faulty(
            Rule::new(fault)
                .on(Operation::Put)
                .at("log/")
                .after(1)
                .times(1),
        );
        faulty
            .put_if_absent("log/1", Bytes::new())
            .await
            .expect("the first is well");
        faulty
            .put_if_absent("marks/1", Bytes::new())
            .await
            .expect("no concern of the rule");
        assert!(is_unavailable(
            &faulty.put_if_absent("log/2", Bytes::new()).await
        ));
        assert_eq!(memory.get("log/2").await.is_ok(), written);
        faulty
            .put_if_absent("log/3", Bytes::new())
            .await
            .expect("once only");
        assert_eq!(faulty.calls().len(), 4);
    }
}

#[tokio::test]
async fn a_crash_lasts_until_it_is_healed() {
    for (fault, written) in [(Fault::CrashBefore, false), (Fault::CrashAfter, true)] {
        let (memory, faulty) = faulty(Rule::new(fault).on_effects().after(1));
        faulty
            .put_if_absent("1", Bytes::new())
            .await
            .expect("the first is well");
        faulty.get("1").await.expect("reads are no effects");
        let mut writer = faulty.upload("2").await.expect("starts");
        writer
            .write(Bytes::from_static(b"x"))
            .await
            .expect("writes");
        assert!(is_unavailable(&writer.commit().await));
        assert_eq!(memory.get("2").await.is_ok(), written);
        assert!(faulty.has_crashed());
        assert!(is_unavailable(&faulty.get("1").await));
        assert!(is_unavailable(
            &faulty.put_if_absent("3", Bytes::new()).await
        ));
        assert!(is_unavailable(&faulty.delete("1").await));
        assert!(is_not_found(&memory.get("3").await));
        faulty.heal();
        faulty.get("1").await.expect("alive again");
    }
}

#[tokio::test]
async fn reads_are_damaged_and_delayed() {
    let body = Bytes::from_static(b"abc");
    for (fault, expected) in [
        (Fault::Truncate(2), "ab"),
        (Fault::Truncate(9), "abc"),
        (Fault::FlipBit(8), "acc"),
    ] {
        let (memory, faulty) = faulty(Rule::new(fault));
        memory
            .put_if_absent("key", body.clone())
            .await
            .expect("puts");
        assert_eq!(faulty.get("key").await.expect("gets"), expected);
        assert_eq!(faulty.get_range("key", 0..3).await.expect("gets"), expected);
    }
    let (memory, faulty) = faulty(Rule::new(Fault::Delay(Duration::from_millis(30))));
    memory.put_if_absent("key", body).await.expect("puts");
    let start = Instant::now();
    faulty.get("key").await.expect("gets");
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[tokio::test]
async fn random_errors_follow_their_seed() {
    async fn outcomes(seed: u64) -> (Vec<bool>, usize) {
        let memory = MemoryStorage::new();
        let faulty = FaultyStorage::new(Arc::new(memory.clone())).with_random_errors(seed, 3);
        let mut outcomes = Vec::new();
        for n in 0..200 {
            outcomes.push(
                faulty
                    .put_if_absent(&format!("{n}"), Bytes::new())
                    .await
                    .is_ok(),
            );
        }
        let written = list_all(&memory, "", None).await.expect("lists").len();
        (outcomes, written)
    }
    let (first, written) = outcomes(1).await;
    let succeeded = first.iter().filter(|ok| **ok).count();
    assert!((90..180).contains(&succeeded), "{succeeded} of 200");
    assert!(
        written > succeeded && written < 200,
        "some replies are lost, some writes are not done"
    );
    assert_eq!(outcomes(1).await, (first.clone(), written));
    assert_ne!(outcomes(2).await.0, first);
}

#[tokio::test]
async fn the_probe_refuses_lying_stores() {
    // Overwrites at any time; only after the race, when all seems well; refuses everything; and
    // a store that tells the winner's bytes wrong.
    for (rule, says) in [
        (
            Rule::new(Fault::IgnoreCondition).on(Operation::Put),
            "8 of 8 writers",
        ),
        (
            Rule::new(Fault::IgnoreCondition)
                .on(Operation::Put)
                .after(7)
                .times(1),
            "2 of 8 writers",
        ),
        (
            Rule::new(Fault::IgnoreCondition)
                .on(Operation::Put)
                .after(8),
            "was overwritten",
        ),
        (
            Rule::new(Fault::Refuse).on(Operation::Put),
            "none of 8 writers",
        ),
        (
            Rule::new(Fault::FlipBit(9)).on(Operation::Get),
            "bytes of a writer that was refused",
        ),
        (
            Rule::new(Fault::FlipBit(9)).on(Operation::Get).after(1),
            "changed although",
        ),
        // Found out in the second round.
        (
            Rule::new(Fault::IgnoreCondition)
                .on(Operation::Put)
                .after(17),
            "was overwritten",
        ),
    ] {
        let (memory, faulty) = faulty(rule.clone());
        match probe_conditional_writes(&faulty).await {
            Err(StorageError::UnconditionalWrites { evidence, .. }) => {
                assert!(evidence.contains(says), "{rule:?}: {evidence}");
            }
            other => panic!("{rule:?} gave {other:?}"),
        }
        assert_eq!(list_all(&memory, "", None).await.expect("lists"), []);
    }
}

#[tokio::test]
async fn the_probe_tells_an_outage_from_a_lie() {
    let (memory, faulty) = faulty(Rule::new(Fault::ErrorAfter).on(Operation::Put).times(1));
    assert!(is_unavailable(&probe_conditional_writes(&faulty).await));
    assert_eq!(list_all(&memory, "", None).await.expect("lists"), []);
    probe_conditional_writes(&faulty)
        .await
        .expect("the outage is over");
}

#[tokio::test]
async fn a_lost_reply_of_a_store_that_does_not_resolve_it_is_unavailable_then_taken() {
    let (_, faulty) = faulty(Rule::new(Fault::ErrorAfter).times(1));
    assert!(is_unavailable(
        &faulty.put_if_absent("key", Bytes::new()).await
    ));
    assert!(already_exists(
        &faulty.put_if_absent("key", Bytes::new()).await
    ));
}
