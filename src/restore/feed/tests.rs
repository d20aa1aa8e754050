//! A feed whose segments are compacted away while it plays.

use std::sync::Arc;

use super::*;
use crate::archive::testing::{Writer, set};

/// Two files, silence, and a transaction in parts in the middle.
async fn story() -> Writer {
    let storage = Arc::new(crate::storage::MemoryStorage::new());
    let mut writer = Writer::new(storage).await;
    for transactions in [2, 1, 0, 1, 3, 1] {
        writer.segment(transactions).await;
    }
    writer.giant(9, 0).await;
    for transactions in [1, 0, 1, 1] {
        writer.segment(transactions).await;
    }
    writer.rotate();
    for _ in 0..8 {
        writer.segment(1).await;
    }
    writer
}

/// Each file's segments become two, the first one twice.
async fn compact(writer: &Writer) {
    let chain = writer.repository.chain(writer.branch).await;
    let count = chain.expect("a chain").segments.len();
    // The parts stay together: they are the seventh and those behind it.
    let giant = count - 8 - 4 - 6;
    writer.compact(count - 8..count - 5).await;
    writer.compact(0..5).await;
    writer.compact(1..2 + giant + 3).await;
    writer.compact(0..2).await;
}

/// What a feed gives of `wanted`; the log is compacted after so many events.
async fn played(writer: &Writer, wanted: &GtidSet, compact_after: Option<usize>) -> Vec<Vec<u8>> {
    let history = writer.repository.history(writer.branch).await;
    let history = history.expect("a history");
    let members = history.needed(wanted);
    let repository = writer.repository.clone();
    let mut feed = Feed::new(repository, writer.branch, members, wanted.clone());
    let mut out = Vec::new();
    let mut bytes = Vec::new();
    loop {
        if compact_after == Some(out.len()) {
            compact(writer).await;
        }
        match feed.next(&mut bytes).await.expect("plays") {
            Fed::End => return out,
            // PREVIOUS_GTIDS does not come out, so the head of a file is the same in any segment.
            Fed::File(_) => out.push(b"file".to_vec()),
            Fed::Event => out.push(bytes.clone()),
        }
    }
}

#[tokio::test]
async fn compaction_in_the_middle_of_a_restore_changes_nothing() {
    for wanted in [set("1-20"), set("2-9:11-12:15-20"), set("9")] {
        let expected = played(&story().await, &wanted, None).await;
        assert!(expected.len() >= 10, "{}", expected.len());
        for after in 0..expected.len() {
            let writer = story().await;
            let got = played(&writer, &wanted, Some(after)).await;
            assert_eq!(got, expected, "compacted after {after} events");
        }
    }
}

#[tokio::test]
async fn a_segment_that_is_gone_for_good_is_an_error() {
    let writer = story().await;
    let history = writer.repository.history(writer.branch).await;
    let members = history.expect("a history").needed(&set("1-8"));
    let key = members[2].stored.name.key();
    let repository = writer.repository.clone();
    repository.storage().delete(&key).await.expect("deleted");
    let mut feed = Feed::new(repository, writer.branch, members, set("1-8"));
    let mut bytes = Vec::new();
    let error = loop {
        match feed.next(&mut bytes).await {
            Ok(Fed::End) => panic!("it ended as if all were there"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains(&key), "{error}");
}
