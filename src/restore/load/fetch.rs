//! Objects of a snapshot on their way back: fetched in ranges, hashed, decompressed in pieces.
//!
//! What comes out is never more than the manifest says, however small the object is: a kilobyte
//! of zstd can hold a gigabyte of zeros. A file may be any number of zstd frames one after the
//! other; the memory that it takes is that of one frame's window, which is bounded too.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use crate::archive::hash::{Sha256Writer, sha256};
use crate::archive::layout::SnapshotId;
use crate::archive::manifest::{Manifest, ScriptFile, ScriptKind, StoredFile};
use crate::archive::script::Script;
use crate::storage::Storage;

use super::error::LoadError;

/// How much comes out at once.
const PIECE_BYTES: usize = 512 << 10;
/// What all files that are fetched at once may take of memory, beside the windows of their frames.
const BUDGET_BYTES: usize = 96 << 20;

/// How much of a file is held at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// How much of an object is asked for at once, in bytes.
    range_bytes: u64,
    /// Pieces between a file's download and its taker.
    pub(super) pieces: usize,
}

impl Room {
    /// The room that each of so many files has.
    pub(super) fn of_one_in(files: usize) -> Self {
        let bytes = BUDGET_BYTES / files.max(1);
        Self {
            range_bytes: (bytes as u64 / 2).clamp(1 << 20, 4 << 20),
            // Two more are under way at the ends of the channel.
            pieces: (bytes / 2 / PIECE_BYTES).saturating_sub(2).clamp(1, 8),
        }
    }
}
/// The largest window of a frame, as a power of two: that of the highest level (22), and what zstd
/// itself takes without being told.
const WINDOW_LOG_MAX: u32 = 27;
/// Scripts are held in memory: larger ones are refused.
const SCRIPT_BYTES_MAX: u64 = 1 << 30;

/// All scripts of the schema, in the manifest's order.
pub(super) async fn scripts(
    storage: &dyn Storage,
    manifest: &Manifest,
) -> Result<Vec<(ScriptKind, Script)>, LoadError> {
    let mut scripts = Vec::with_capacity(manifest.schema.len());
    for file in &manifest.schema {
        scripts.push((file.kind, script(storage, &manifest.id, file).await?));
    }
    Ok(scripts)
}

/// One script.
pub(super) async fn script(
    storage: &dyn Storage,
    id: &SnapshotId,
    script: &ScriptFile,
) -> Result<Script, LoadError> {
    let file = &script.file;
    let key = file.key.in_snapshot(id);
    if file.raw_bytes > SCRIPT_BYTES_MAX || file.stored_bytes > SCRIPT_BYTES_MAX {
        return Err(damaged(&key, "its size is beyond all reason".to_owned()));
    }
    let object = storage.get(&key).await?;
    if sha256(&object) != file.sha256 {
        return Err(damaged(
            &key,
            "its SHA-256 is not the manifest's".to_owned(),
        ));
    }
    let mut decompressor = Decompressor::new(&key, file.raw_bytes)?;
    let mut text = Vec::new();
    decompressor.push(&object, |piece| text.extend_from_slice(&piece))?;
    decompressor.finish()?;
    Script::decode(&text).map_err(|source| LoadError::Script { key, source })
}

/// Sends a file's content in pieces; `Ok` only if the whole file is what the manifest says.
pub(super) async fn content(
    storage: Arc<dyn Storage>,
    key: String,
    file: StoredFile,
    room: Room,
    pieces: mpsc::Sender<Bytes>,
) -> Result<(), LoadError> {
    let mut digest = Sha256Writer::default();
    let mut decompressor = Decompressor::new(&key, file.raw_bytes)?;
    let mut at = 0;
    while at < file.stored_bytes {
        let to = file.stored_bytes.min(at + room.range_bytes);
        let range = storage.get_range(&key, at..to).await?;
        if range.len() as u64 != to - at {
            return Err(damaged(
                &key,
                format!("it ends at byte {}", at + range.len() as u64),
            ));
        }
        digest.update(&range);
        at = to;
        // Small steps, so that little waits in memory however well it is compressed.
        let mut input = &range[..];
        while !input.is_empty() {
            let (piece, used) = decompressor.step(input)?;
            input = &input[used..];
            if !piece.is_empty() && pieces.send(piece).await.is_err() {
                // The other side gave up and tells why.
                return Err(LoadError::Cancelled);
            }
        }
        loop {
            let (piece, _) = decompressor.step(&[])?;
            if piece.is_empty() {
                break;
            }
            if pieces.send(piece).await.is_err() {
                return Err(LoadError::Cancelled);
            }
        }
    }
    decompressor.finish()?;
    if digest.finish() == file.sha256 {
        Ok(())
    } else {
        Err(damaged(
            &key,
            "its SHA-256 is not the manifest's".to_owned(),
        ))
    }
}

struct Decompressor {
    key: String,
    decoder: Decoder<'static>,
    buffer: Vec<u8>,
    expected: u64,
    produced: u64,
    /// Whether what came is whole frames.
    whole: bool,
}

impl Decompressor {
    fn new(key: &str, expected: u64) -> Result<Self, LoadError> {
        let failed = |error: std::io::Error| damaged(key, error.to_string());
        let mut decoder = Decoder::new().map_err(failed)?;
        decoder
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .map_err(failed)?;
        Ok(Self {
            key: key.to_owned(),
            decoder,
            buffer: vec![0; PIECE_BYTES],
            expected,
            produced: 0,
            whole: true,
        })
    }

    /// At most one piece out of the input, and how much of the input it took.
    fn step(&mut self, input: &[u8]) -> Result<(Bytes, usize), LoadError> {
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(&mut self.buffer[..]);
        let run = self.decoder.run(&mut from, &mut to);
        let (used, produced) = (from.pos(), to.pos());
        let wanted = run.map_err(|error| damaged(&self.key, error.to_string()))?;
        if used + produced > 0 {
            // Nothing is wanted behind the end of a frame; what follows begins the next one.
            self.whole = wanted == 0;
        }
        self.produced += produced as u64;
        if self.produced > self.expected {
            return Err(damaged(
                &self.key,
                format!("it holds more than its {} bytes", self.expected),
            ));
        }
        Ok((Bytes::copy_from_slice(&self.buffer[..produced]), used))
    }

    fn push(&mut self, mut input: &[u8], mut take: impl FnMut(Bytes)) -> Result<(), LoadError> {
        loop {
            let (piece, used) = self.step(input)?;
            input = &input[used..];
            if piece.is_empty() && input.is_empty() {
                return Ok(());
            }
            take(piece);
        }
    }

    fn finish(self) -> Result<(), LoadError> {
        if self.produced != self.expected {
            return Err(damaged(
                &self.key,
                format!("it holds {} bytes, not {}", self.produced, self.expected),
            ));
        }
        if self.whole {
            Ok(())
        } else {
            Err(damaged(&self.key, "its last frame is cut".to_owned()))
        }
    }
}

fn damaged(key: &str, what: String) -> LoadError {
    LoadError::Damaged {
        key: key.to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(compressed: &[u8], expected: u64) -> Result<Vec<u8>, LoadError> {
        let mut decompressor = Decompressor::new("k", expected)?;
        let mut out = Vec::new();
        decompressor.push(compressed, |piece| out.extend_from_slice(&piece))?;
        decompressor.finish()?;
        Ok(out)
    }

    #[test]
    fn what_comes_out_is_bounded_by_what_was_promised() {
        let zeros = vec![0; 8 << 20];
        let compressed = zstd::encode_all(&zeros[..], 3).expect("memory to memory");
        assert_eq!(pieces(&compressed, 8 << 20).expect("as promised"), zeros);
        for promised in [0, 1, (8 << 20) - 1, (8 << 20) + 1] {
            assert!(pieces(&compressed, promised).is_err(), "{promised}");
        }
    }

    /// Frames as a compressor writes them that is started anew for each MiB.
    fn frames(text: &[u8], bytes: usize) -> Vec<u8> {
        let frame = |piece| zstd::encode_all(piece, 1).expect("memory to memory");
        text.chunks(bytes).flat_map(frame).collect()
    }

    #[test]
    fn many_frames_are_one_file() {
        let text: Vec<u8> = (0..1_500_000_u32).flat_map(u32::to_le_bytes).collect();
        for bytes in [1 << 20, (1 << 20) + 1, 100_000, text.len()] {
            let compressed = frames(&text, bytes);
            assert_eq!(pieces(&compressed, text.len() as u64).expect("whole"), text);
        }
        // Empty frames, and one that zstd passes over.
        let mut odd = frames(b"", 1);
        odd.extend(zstd::encode_all(&b""[..], 1).expect("memory to memory"));
        odd.extend([0x50, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 1, 2, 3]);
        odd.extend(frames(&text[..9], 4));
        assert_eq!(pieces(&odd, 9).expect("whole"), &text[..9]);
    }

    #[test]
    fn a_file_that_is_cut_between_or_within_its_frames_is_noticed() {
        let text: Vec<u8> = (0..3_000_u32).flat_map(u32::to_le_bytes).collect();
        let compressed = frames(&text, 1_000);
        for cut in 0..compressed.len() {
            assert!(
                pieces(&compressed[..cut], text.len() as u64).is_err(),
                "{cut}"
            );
        }
        let mut longer = compressed;
        longer.extend(frames(b"x", 1));
        assert!(pieces(&longer, text.len() as u64).is_err());
        // All content came, but the frame has no end.
        let last = zstd::encode_all(&text[..], 1).expect("memory to memory");
        let mut open = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
        std::io::Write::write_all(&mut open, &text).expect("memory");
        std::io::Write::flush(&mut open).expect("memory");
        assert!(pieces(open.get_ref(), text.len() as u64).is_err());
        assert!(pieces(&last, text.len() as u64).is_ok());
    }

    #[tokio::test]
    async fn frames_are_read_in_ranges_whatever_their_ends() {
        let text: Vec<u8> = (0..3_000_000_u32)
            .map(|n| n.wrapping_mul(2_654_435_761))
            .flat_map(u32::to_le_bytes)
            .collect();
        let compressed = frames(&text, 1 << 20);
        let room = Room::of_one_in(64);
        assert!(compressed.len() as u64 > 5 * room.range_bytes);
        let storage: Arc<dyn Storage> = Arc::new(crate::storage::MemoryStorage::new());
        storage
            .put_if_absent("k", Bytes::from(compressed.clone()))
            .await
            .expect("memory");
        let file = StoredFile {
            key: "k".to_owned().try_into().expect("a key"),
            raw_bytes: text.len() as u64,
            stored_bytes: compressed.len() as u64,
            sha256: sha256(&compressed),
        };
        let (sender, mut receiver) = mpsc::channel(1);
        let reading = tokio::spawn(content(storage, "k".to_owned(), file, room, sender));
        let mut found = Vec::new();
        while let Some(piece) = receiver.recv().await {
            assert!(piece.len() <= PIECE_BYTES);
            found.extend_from_slice(&piece);
        }
        reading.await.expect("no panic").expect("whole");
        assert!(found == text);
    }

    #[test]
    fn a_cut_or_changed_frame_is_noticed() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let compressed = zstd::encode_all(&text[..], 3).expect("memory to memory");
        let cut = &compressed[..compressed.len() / 2];
        assert!(pieces(cut, text.len() as u64).is_err());
        assert!(pieces(b"no zstd at all", 5).is_err());
    }
}
