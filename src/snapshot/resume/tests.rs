//! Going on, against a store in memory.

use super::*;
use std::sync::Arc;

use bytes::Bytes;

use crate::archive::manifest::{RelativeKey, RowChecksum, RowHash};
use crate::storage::MemoryStorage;

fn id() -> SnapshotId {
    SnapshotId::new(DateTime::UNIX_EPOCH, 1)
}

fn file(number: u64, content: &[u8]) -> DataFile {
    let key = layout::snapshot_data(&id(), "d", "t", number);
    DataFile {
        rows: 1,
        file: StoredFile {
            key: RelativeKey::within(&id(), &key).expect("within"),
            raw_bytes: 1,
            stored_bytes: content.len() as u64,
            sha256: sha256(content),
        },
    }
}

fn entry() -> TableEntry {
    TableEntry {
        database: "d".to_owned(),
        name: "t".to_owned(),
        columns: Vec::new(),
        files: Vec::new(),
        rows: 0,
        row_checksum: RowChecksum::default(),
        create_sha256: sha256(b""),
        engine: None,
    }
}

fn view() -> ViewRecord {
    let script = |kind| ScriptFile {
        kind,
        objects: 0,
        file: file(0, b"").file,
    };
    ViewRecord {
        format: PROGRESS_FORMAT,
        tool_version: "0".to_owned(),
        id: id(),
        started: DateTime::UNIX_EPOCH,
        address: HostPort::new("db2", 3306),
        server_uuid: Uuid::nil(),
        connections: vec![7],
        gtid_executed: GtidSet::new(),
        schema_sha256: sha256(b"schema"),
        filter: Filter::default(),
        schema: Vec::new(),
        accounts: script(crate::archive::manifest::ScriptKind::Accounts),
    }
}

#[tokio::test]
async fn a_table_is_recorded_once_its_last_part_is_stored() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let journal = Journal::begin(&storage, &id(), None);
    journal.put_view(&view()).await.expect("memory");
    journal.expect([(entry(), 1)].into_iter());
    journal.part_cut(0);
    let mut sum = RowChecksum::default();
    sum.add_row(RowHash::default().of(b"x"));
    journal
        .part_done(0, &[file(3, b"b")], 1, sum)
        .await
        .expect("memory");
    let key = layout::snapshot_progress(&id(), 0);
    assert!(storage.size(&key).await.is_err(), "a part is missing");
    journal
        .part_done(0, &[file(2, b"a")], 2, sum)
        .await
        .expect("memory");
    let record: TablesRecord = read_json(&*storage, &key)
        .await
        .expect("memory")
        .expect("a record");
    assert_eq!(record.tables[0].rows, 3);
    let files = &record.tables[0].files;
    assert_eq!(files, &[file(2, b"a"), file(3, b"b")]);

    let data = layout::snapshot_data(&id(), "d", "t", 41);
    storage
        .put_if_absent(&data, Bytes::new())
        .await
        .expect("memory");
    let found = find_unfinished(&*storage).await.expect("memory");
    let found = found.expect("it has no manifest");
    assert_eq!((found.view, found.first_file), (view(), 42));
    assert_eq!(found.records, std::slice::from_ref(&key));

    journal.remove().await;
    assert!(storage.size(&key).await.is_err());
    let found = find_unfinished(&*storage).await.expect("memory");
    assert_eq!(found, None);
}

#[tokio::test]
async fn a_file_counts_only_if_every_byte_is_there() {
    let storage = MemoryStorage::new();
    let whole = file(0, b"rows");
    let key = whole.file.key.in_snapshot(&id());
    let check =
        async |file: &DataFile| is_whole(&storage, &id(), &file.file).await.expect("memory");
    assert!(!check(&whole).await);
    storage
        .put_if_absent(&key, Bytes::from_static(b"rows"))
        .await
        .expect("memory");
    assert!(check(&whole).await);
    assert!(!check(&file(0, b"row")).await && !check(&file(0, b"rowz")).await);
}

#[test]
fn only_the_same_question_to_the_same_server_is_gone_on_with() {
    let unfinished = Unfinished {
        view: view(),
        records: Vec::new(),
        first_file: 0,
    };
    let here = HostPort::new("db2", 3306);
    let filter = Filter::default();
    let plan = |unfinished, uuid, filter| ResumePlan::compute(unfinished, (&here, uuid), filter);
    let from = plan(Some(&unfinished), Uuid::nil(), &filter);
    assert_eq!(from, ResumePlan::From(id()));
    let other = Filter {
        include: vec!["d".parse().expect("a pattern")],
        exclude: Vec::new(),
    };
    for (plan, words) in [
        (plan(None, Uuid::nil(), &filter), "no unfinished snapshot"),
        (
            plan(Some(&unfinished), Uuid::max(), &filter),
            "was read from db2:3306, and this is db2:3306",
        ),
        (
            plan(Some(&unfinished), Uuid::nil(), &other),
            "other --include",
        ),
    ] {
        let ResumePlan::Anew(why) = plan else {
            panic!("{words}");
        };
        assert!(why.contains(words), "{why}");
    }
}
