//! Names, room, and a disk that is full.

use super::*;
use crate::archive::testing::set;
use crate::mysql::binlog::testing::{SourceLog, Work};
use crate::stream::spool::{Spool, SpoolOptions};

const SOURCE: Uuid = Uuid::from_u128(7);

fn events(transactions: u64) -> Vec<Vec<u8>> {
    let mut log = SourceLog::new(Checksum::Crc32, 1);
    let mut events = log.open_file("binlog.000001", &GtidSet::new(), Checksum::Crc32);
    for gno in 1..=transactions {
        let gtid = format!("{}:{gno}", crate::archive::testing::ORIGIN);
        let gtid = gtid.parse().expect("a GTID");
        events.extend(log.transaction(&gtid, (gno, gno), &Work::Empty));
    }
    events
}

fn spool(folder: &Path, bytes: u64) -> Spool {
    let options = SpoolOptions {
        folder: folder.to_owned(),
        bytes,
        required: true,
    };
    Spool::open(&options, Uuid::nil()).expect("opens").0
}

fn journal(spool: &Spool) -> Journal {
    let claim = (BranchNumber(2), Epoch(3));
    let room = Arc::clone(spool.room());
    Journal::new(spool.folder(), room, claim, SOURCE, Checksum::Crc32)
}

#[test]
fn a_name_tells_what_it_was_made_of() {
    let name = JournalName {
        branch: BranchNumber(2),
        epoch: Epoch(123_456_789),
        number: 7,
        source: SOURCE,
        checksum: Checksum::None,
    };
    assert_eq!(JournalName::of(Path::new(&name.file())), Some(name));
    // Without a history, as they were once.
    for source in [SOURCE, Uuid::from_u128(u128::MAX / 9)] {
        let old = format!("000003000001-{source}-crc32.journal");
        assert_eq!(JournalName::of(Path::new(&old)), None);
    }
}

#[test]
fn its_bytes_are_counted_until_they_are_let_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = spool(folder.path(), 300);
    let mut journal = journal(&spool);
    assert!(journal.has_room());
    for event in events(3) {
        assert!(
            journal
                .append(&event, false, &GtidSet::new())
                .expect("writes")
        );
    }
    let on_disk: u64 = fs::read_dir(spool.folder())
        .expect("reads")
        .map(|entry| {
            entry
                .and_then(|entry| entry.metadata())
                .expect("sizes")
                .len()
        })
        .sum();
    assert_eq!(spool.used(), on_disk);
    assert!(!journal.has_room());
    // A file as small as this is closed for want of room only.
    journal
        .forget(&set("1-3"), &set("1-3"), true)
        .expect("forgets");
    assert_eq!(spool.used(), on_disk);
    journal
        .forget(&set("1-3"), &set("1-3"), false)
        .expect("forgets");
    assert_eq!(spool.used(), 0);
    assert!(journal.has_room());
}

#[test]
fn a_full_disk_is_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = spool(folder.path(), 1 << 20);
    let mut journal = journal(&spool);
    let events = events(2);
    let (last, before) = events.split_last().expect("some");
    for event in before {
        assert!(
            journal
                .append(event, false, &GtidSet::new())
                .expect("writes")
        );
    }
    let used = spool.used();
    let full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("opens");
    let current = journal.current.as_mut().expect("a file");
    let good = std::mem::replace(&mut current.file, Arc::new(full));
    assert!(
        !journal
            .append(last, false, &GtidSet::new())
            .expect("is asked")
    );
    assert_eq!(spool.used(), used);
    // A part of it was written before the disk was full.
    let current = journal.current.as_mut().expect("a file");
    current.file = good;
    (&*current.file).write_all(&last[..10]).expect("writes");
    assert!(
        journal
            .append(last, false, &GtidSet::new())
            .expect("writes")
    );
    let path = journal.current.as_ref().expect("a file").path.clone();
    let written = fs::read(path).expect("reads");
    assert!(written.ends_with(last));
    assert_eq!(written.len() as u64, spool.used());
}
