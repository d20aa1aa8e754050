//! Segments that hardly compress, behind a store that is away or slow.

use chrono::DateTime;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::archive::layout::BranchNumber;
use crate::clock::SystemClock;
use crate::mysql::binlog::Checksum;
use crate::mysql::binlog::testing::SourceLog;
use crate::storage::{Fault, FaultyStorage, MemoryStorage, Operation, Rule};
use crate::stream::spool::SpoolOptions;

const SEGMENT: usize = 256 << 10;

struct Bench {
    shipper: Shipper,
    sequence: u64,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new(rule: Rule) -> Self {
        let memory = Arc::new(MemoryStorage::new());
        Repository::init(memory.clone(), DateTime::UNIX_EPOCH)
            .await
            .expect("an archive");
        let storage = Arc::new(FaultyStorage::new(memory).with(rule));
        let repository = Repository::open(storage).await.expect("opens");
        let folder = tempfile::tempdir().expect("a folder");
        let options = SpoolOptions {
            folder: folder.path().to_owned(),
            bytes: 1 << 30,
            required: true,
        };
        let (spool, _) = Spool::open(&options, uuid::Uuid::nil()).expect("opens");
        let options = ShipOptions {
            epoch: Epoch(1),
            previous: None,
            continues: None,
            gap: GtidSet::new(),
            level: 1,
            segment_bytes: SEGMENT,
            jitter_seed: None,
            fail_points: FailPoints::default(),
        };
        let cancel = CancellationToken::new();
        Self {
            shipper: Shipper::start(
                repository,
                Arc::new(SystemClock),
                options,
                Some(spool),
                cancel,
            ),
            sequence: 0,
            _folder: folder,
        }
    }

    /// Waits for room and sends a full segment of noise, as the stream does.
    async fn send(&mut self) {
        let inlet = self.shipper.inlet();
        while !self.shipper.has_room() {
            inlet.room().await;
        }
        self.sequence += 1;
        let format = SourceLog::new(Checksum::Crc32, 1).format_description("8.4.6");
        let place = (BranchNumber(1), Epoch(1), self.sequence);
        let mut draft = Draft::begin(place, GtidSet::new(), Checksum::Crc32, &format);
        let mut noise = vec![0; SEGMENT];
        rand::rngs::StdRng::seed_from_u64(self.sequence).fill(&mut noise[..]);
        draft.push_event(&noise, 1);
        let parcel = Parcel {
            draft,
            packing: VecDeque::new(),
            complete_to: None,
        };
        assert!(self.shipper.send(parcel).await);
    }

    async fn send_many(&mut self) {
        for number in 0..8 {
            tokio::time::timeout(Duration::from_secs(60), self.send())
                .await
                .unwrap_or_else(|_| panic!("no room for segment {number}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_reads_on_while_the_store_is_away() {
    let away = Rule::new(Fault::ErrorBefore).on(Operation::Put).at("log/");
    Bench::new(away).await.send_many().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_reads_on_while_the_store_hangs() {
    let hangs = Rule::new(Fault::Delay(Duration::from_secs(600)))
        .on(Operation::Put)
        .at("log/");
    Bench::new(hangs).await.send_many().await;
}
