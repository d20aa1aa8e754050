//! Servers that speak S3's protocol and do not mean it: the probe finds them out over HTTP too,
//! where the id of one's own write must not make a loser look like the winner.

use quillback::storage::{S3Storage, StorageError, probe_conditional_writes};
use quillback_harness::{Condition, LyingStore};

use crate::minio::{BUCKET, SECRET, config};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probe_refuses_servers_that_lie() {
    for (condition, says) in [
        (Condition::Honoured, None),
        (Condition::Ignored, Some("8 of 8 writers")),
        (Condition::Inverted, Some("none of 8 writers")),
        // Each loser finds its own object or a later one's.
        (Condition::RefusedButDone, Some("")),
    ] {
        let server = LyingStore::start(condition).await.expect("listens");
        let storage = S3Storage::connect(config(server.address(), BUCKET, "", SECRET))
            .await
            .expect("has credentials");
        let probed = probe_conditional_writes(&storage).await;
        match (probed, says) {
            (Ok(()), None) => {}
            (Err(StorageError::UnconditionalWrites { evidence, .. }), Some(says)) => {
                assert!(evidence.contains(says), "{condition:?}: {evidence}");
            }
            (other, _) => panic!("{condition:?} gave {other:?}"),
        }
    }
}
