//! What each zstd level costs and gives on the raw binlog.
//!
//! This is the packing that the stream does: blocks of 4 MiB, each compressed by itself, decompressed and compared. It is
//! measured apart from everything else, so that the default level can be chosen by it.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::source::Binlog;
use crate::table::Table;
use crate::workload::Workload;

const BLOCK: usize = 4 << 20;
const LEVELS: [i32; 9] = [-5, -3, -1, 1, 2, 3, 4, 5, 7];
const THREADS: [usize; 2] = [1, 2];

/// One level.
#[derive(Debug, Serialize)]
pub(crate) struct Level {
    workload: Workload,
    level: i32,
    /// Raw bytes for each compressed one.
    ratio: f64,
    /// With as many threads as in [`THREADS`].
    packing: Vec<Packing>,
}

#[derive(Debug, Serialize)]
struct Packing {
    threads: usize,
    seconds: f64,
    /// Raw megabytes a second.
    megabytes_per_second: f64,
    /// Processor seconds for 1 GB: what others on the machine do disturbs them less than the time.
    processor_seconds_per_gigabyte: f64,
    /// The same without decompressing and comparing.
    compression_alone: f64,
}

/// Measures every level on up to `limit` bytes of the binlog.
pub(crate) fn measure(workload: Workload, binlog: &Binlog, limit: u64) -> Result<Vec<Level>> {
    let raw = sample(binlog, limit)?;
    let blocks: Vec<&[u8]> = raw.chunks(BLOCK).collect();
    let mut levels = Vec::new();
    for level in LEVELS {
        let mut packing = Vec::new();
        let mut packed = 0;
        for threads in THREADS {
            let only = best(&blocks, level, threads, false)?;
            let whole = best(&blocks, level, threads, true)?;
            packed = whole.packed;
            let gigabytes = raw.len() as f64 / 1e9;
            packing.push(Packing {
                threads,
                seconds: whole.seconds,
                megabytes_per_second: gigabytes * 1e3 / whole.seconds,
                processor_seconds_per_gigabyte: whole.processor / gigabytes,
                compression_alone: only.processor / gigabytes,
            });
        }
        levels.push(Level {
            workload,
            level,
            ratio: raw.len() as f64 / packed as f64,
            packing,
        });
    }
    Ok(levels)
}

/// Bytes from the middle of the binlog, where every kind of transaction has had rows to work on.
fn sample(binlog: &Binlog, limit: u64) -> Result<Vec<u8>> {
    let mut skip = binlog.bytes.saturating_sub(limit) / 2;
    let mut raw = Vec::new();
    for path in &binlog.files {
        let mut read = || -> std::io::Result<Vec<u8>> {
            let mut file = std::fs::File::open(path)?;
            let start = skip.min(file.metadata()?.len());
            file.seek(SeekFrom::Start(start))?;
            skip -= start;
            let mut bytes = Vec::new();
            file.take(limit - raw.len() as u64)
                .read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        raw.extend(read().with_context(|| format!("failed to read {}", path.display()))?);
    }
    Ok(raw)
}

struct Packed {
    seconds: f64,
    processor: f64,
    packed: u64,
}

/// The better of two tries, for whatever else the machine does only ever adds to it.
fn best(blocks: &[&[u8]], level: i32, threads: usize, compare: bool) -> Result<Packed> {
    let first = pack(blocks, level, threads, compare)?;
    let second = pack(blocks, level, threads, compare)?;
    Ok(Packed {
        seconds: first.seconds.min(second.seconds),
        processor: first.processor.min(second.processor),
        packed: second.packed,
    })
}

fn pack(blocks: &[&[u8]], level: i32, threads: usize, compare: bool) -> Result<Packed> {
    let next = AtomicUsize::new(0);
    let packed = AtomicU64::new(0);
    let work = || -> Result<f64> {
        let before = thread_processor_seconds()?;
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        let mut decompressor = zstd::bulk::Decompressor::new()?;
        let mut back = Vec::with_capacity(BLOCK);
        while let Some(block) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let bytes = compressor.compress(block)?;
            packed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if compare {
                back.clear();
                decompressor.decompress_to_buffer(&bytes, &mut back)?;
                ensure!(back == *block, "zstd gave back something else");
            }
        }
        Ok(thread_processor_seconds()? - before)
    };
    let started = Instant::now();
    let mut processor = 0.0;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            processor += worker.join().expect("no worker panics")?;
        }
        anyhow::Ok(())
    })?;
    Ok(Packed {
        seconds: started.elapsed().as_secs_f64(),
        processor,
        packed: packed.into_inner(),
    })
}

/// The processor seconds of the calling thread so far.
fn thread_processor_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().next();
    let nanoseconds: u64 = nanoseconds.context("an empty schedstat")?.parse()?;
    Ok(nanoseconds as f64 / 1e9)
}

/// The levels as a table.
pub(crate) fn table(levels: &[Level]) -> Table {
    let mut table = Table::new(&[
        "packing",
        "level",
        "raw / packed",
        "MB/s, 1 thread",
        "MB/s, 2 threads",
        "CPU s per GB",
        "of it zstd's compression",
    ]);
    for level in levels {
        let [one, .., two] = level.packing.as_slice() else {
            continue;
        };
        table.row(vec![
            level.workload.name().to_owned(),
            level.level.to_string(),
            format!("{:.2}", level.ratio),
            format!("{:.0}", one.megabytes_per_second),
            format!("{:.0}", two.megabytes_per_second),
            format!("{:.2}", one.processor_seconds_per_gigabyte),
            format!("{:.2}", one.compression_alone),
        ]);
    }
    table
}
