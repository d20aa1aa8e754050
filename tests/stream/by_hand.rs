//! Reading segments as somebody without Quillback would: zstd and mysqlbinlog.

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use quillback::archive::catalog::StoredSegment;
use quillback::archive::repository::Repository;
use quillback_harness::programs;

/// How many segments one mysqlbinlog reads: starting it costs more than a small segment.
const BATCH: usize = 50;

/// Has every segment of the newest history read, and gives how many there are.
pub(crate) async fn check_by_hand(repository: &Repository) -> Result<usize> {
    let branch = repository.newest_branch().await?;
    let chain = repository.chain(branch).await?;
    // A part ends, or starts, in the middle of a transaction, and mysqlbinlog warns of that.
    let (parts, whole): (Vec<_>, Vec<_>) = chain
        .segments
        .iter()
        .partition(|stored| stored.index.part.is_some());
    for batch in whole.chunks(BATCH) {
        if let Err(error) = check(repository, batch).await {
            // Which one it is.
            for stored in batch {
                check(repository, &[*stored]).await?;
            }
            return Err(error);
        }
    }
    for part in parts {
        check(repository, &[part]).await?;
    }
    Ok(chain.segments.len())
}

async fn check(repository: &Repository, segments: &[&StoredSegment]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut files = Vec::new();
    for (number, stored) in segments.iter().enumerate() {
        let object = repository.storage().get(&stored.name.key()).await?;
        let file = folder.path().join(format!("binlog.{number:06}"));
        std::fs::write(&file, unpack(&object)?)?;
        files.push(file);
    }
    let output = mysqlbinlog(files).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    let keys: Vec<_> = segments.iter().map(|stored| stored.name.key()).collect();
    ensure!(output.status.success(), "{keys:?}: {said}");
    let whole = segments.iter().all(|stored| stored.index.part.is_none());
    ensure!(!whole || !said.contains("WARNING"), "{keys:?}: {said}");
    ensure!(!said.contains("ERROR"), "{keys:?}: {said}");
    Ok(())
}

/// Its output on stdout is the statements, which nobody looks at here.
async fn mysqlbinlog(files: Vec<PathBuf>) -> Result<Output> {
    tokio::process::Command::new(programs::find("mysqlbinlog")?)
        .arg("--verify-binlog-checksum")
        .args(files)
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("failed to run mysqlbinlog")
}

/// What `zstd -dc` gives of an object: the program if there is one, else its library.
fn unpack(object: &[u8]) -> Result<Vec<u8>> {
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    let zstd = Command::new("zstd")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut zstd) = zstd else {
        let mut unpacked = Vec::new();
        zstd::stream::read::Decoder::with_buffer(object)?.read_to_end(&mut unpacked)?;
        return Ok(unpacked);
    };
    let mut input = zstd.stdin.take().context("no stdin")?;
    let object = object.to_vec();
    let feeding = std::thread::spawn(move || input.write_all(&object));
    let output = zstd.wait_with_output()?;
    feeding.join().expect("no panic")?;
    ensure!(output.status.success(), "zstd -dc fails");
    Ok(output.stdout)
}
