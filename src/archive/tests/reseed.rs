//! The golden archive whose history a reseed began: its branch names a group and a server, and a
//! fence ended the claim of the old history's streamer.

use super::*;

fn gtids(gnos: &str) -> GtidSet {
    set(&format!("{GROUP}:{gnos}"))
}

/// Writes it.
pub(super) async fn write(storage: &Arc<dyn Storage>) {
    write_identity(storage).await;
    let mut old = Streamer::claim(storage, (1, 1), Checksum::Crc32, gtids("1-3"), None).await;
    let works = ["4", "5"].map(|gno| (gno, 10, rows("shop.page", 1, 40)));
    old.whole(&works, 12).await;
    old.whole(&[("6", 20, rows("shop.page", 2, 40))], 22).await;

    let fork = gtids("1-4");
    let new = NewBranch {
        group: Some(Uuid::from_u128(0xBBBB)),
        server: Some(Uuid::from_u128(3)),
        ..NewBranch::failover(BranchNumber(1), fork.clone(), gtids("5-6"), "an accident")
    };
    let branch = new.numbered(BranchNumber(2), at(30));
    put(&**storage, &layout::branch(branch.branch), &branch).await;
    let fence = Claim {
        epoch: Epoch(2),
        branch: branch.branch,
        source: Uuid::from_u128(3),
        address: "db3.example:3306".to_owned(),
        start: fork.clone(),
        host: "ops.example".to_owned(),
        process: 4242,
        replica_uuid: None,
        fence: true,
        accepted_gap: GtidSet::new(),
        claimed: at(31),
    };
    put(&**storage, &layout::epoch(Epoch(2)), &fence).await;
    let mut new = Streamer::claim(storage, (2, 3), Checksum::Crc32, fork, None).await;
    new.whole(&[("7", 40, rows("shop.page", 3, 40))], 42).await;
}

#[tokio::test]
async fn the_golden_archive_of_a_reseed_is_read_as_ever() {
    let found = more_found_in(golden("2-reseed")).await;
    assert_eq!(found["problems"], json!([]));
    assert_eq!(found["claims"][1]["fence"], json!(true));
    assert_eq!(found["branches"][1]["server"], json!(Uuid::from_u128(3)));
    assert_eq!(found["histories"][0]["end"], json!(gtids("1-6")));
    assert_eq!(found["histories"][1]["end"], json!(gtids("1-4:7")));
    assert_eq!(found, expected("2-reseed"), "{found:#}");
}

#[tokio::test]
async fn the_golden_archive_of_a_reseed_would_be_written_again() {
    let storage: Arc<dyn Storage> = match std::env::var("QUILLBACK_WRITE_GOLDEN_RESEED") {
        Ok(folder) => Arc::new(LocalStorage::new(folder)),
        Err(_) => Arc::new(MemoryStorage::new()),
    };
    write(&storage).await;
    let found = more_found_in(storage).await;
    if let Ok(folder) = std::env::var("QUILLBACK_WRITE_GOLDEN_RESEED") {
        let text = format!("{found:#}\n");
        std::fs::write(format!("{folder}.json"), text).expect("writable");
        return;
    }
    assert_eq!(found, expected("2-reseed"));
}
