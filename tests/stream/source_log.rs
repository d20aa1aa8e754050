//! The binlog files in a server's data directory, read without Quillback's stream.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use quillback::gtid::GtidSet;
use quillback::mysql::binlog::{Checksum, EventKind, GtidEvent, RawEvent};
use quillback_harness::Server;

use crate::Transaction;

/// Every transaction in the server's files that is not in `without`, in their order.
pub(crate) async fn transactions(server: &Server, without: &GtidSet) -> Result<Vec<Transaction>> {
    let index: String = server.one("SELECT @@GLOBAL.log_bin_index").await?;
    let index = Path::new(&index);
    let text = fs::read_to_string(index).context("the index of the binlog files")?;
    let mut found = Vec::new();
    for line in text.lines() {
        let file = server.data_dir().join(line);
        read_file(&file, &mut found).with_context(|| file.display().to_string())?;
    }
    found.retain(|(gtid, _)| !without.contains(gtid));
    Ok(found)
}

fn read_file(file: &Path, found: &mut Vec<Transaction>) -> Result<()> {
    let bytes = fs::read(file)?;
    let mut rest = bytes.strip_prefix(b"\xfebin").context("no binlog file")?;
    let mut checksum = Checksum::None;
    while !rest.is_empty() {
        let event = RawEvent::first_of(rest)?;
        rest = &rest[event.bytes().len()..];
        if event.kind() == EventKind::FORMAT_DESCRIPTION {
            checksum = event.announced_checksum()?;
        } else if event.kind().is_gtid() {
            let first = GtidEvent::parse(&event, checksum)?;
            found.push((first.gtid, event.bytes().to_vec()));
        } else if !event.kind().is_file_event() {
            let (_, open) = found.last_mut().context("an event before the first GTID")?;
            open.extend_from_slice(event.bytes());
        }
    }
    ensure!(rest.is_empty());
    Ok(())
}
