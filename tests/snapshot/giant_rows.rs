//! Rows of any size pass through memory of constant size.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use quillback::archive::manifest::{Manifest, RowChecksum, RowHash};
use quillback::archive::rows::LineScanner;
use quillback_harness::{ROOT_PASSWORD, Scratch, Server, ServerOptions, scratch};

use crate::support::exec_all;

/// The most that the program may take, with four connections at work.
const MOST: u64 = 160 << 20;
/// The same of a restore that compares what it has loaded.
const MOST_RESTORED: u64 = 256 << 20;

fn options() -> ServerOptions {
    ServerOptions::new()
        .line("max_allowed_packet=1G")
        .line("innodb_redo_log_capacity=4G")
        .line("innodb_flush_log_at_trx_commit=0")
}

fn command(server: &Server, archive: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quillback"));
    command
        .args(arguments)
        .env("QUILLBACK_ARCHIVE", archive)
        .env("QUILLBACK_SERVER", server.url_without_password())
        .env("QUILLBACK_PASSWORD", ROOT_PASSWORD)
        .env(scratch::MARK, scratch::root()?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

/// Runs a program to its end; returns what it printed and the largest resident set that was seen.
fn run(mut command: Command) -> Result<(String, u64)> {
    let mut child = command.spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let digits = line.and_then(|line| line.trim().strip_suffix("kB"));
        let now: u64 = digits.map_or(Ok(0), |digits| digits.trim().parse())?;
        peak = peak.max(now << 10);
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output()?;
    ensure!(
        matches!(output.status.code(), Some(0 | 3)),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok((String::from_utf8(output.stdout)?, peak))
}

/// The pattern as a line has it.
fn escaped(pattern: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in pattern {
        match byte {
            b'\t' => escaped.extend(b"\\t"),
            b'\n' => escaped.extend(b"\\n"),
            b'\\' => escaped.extend(b"\\\\"),
            other => escaped.push(*other),
        }
    }
    escaped
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_any_size_passes() -> Result<()> {
    // A gibibyte, less what a packet needs besides, takes the server some gigabytes of memory.
    let most =
        std::env::var("QUILLBACK_GIANT_MIB").map_or(Ok(200), |text| text.parse::<usize>())?;
    let server = Server::start_with(options()).await?;
    exec_all(
        &server,
        &[
            "CREATE DATABASE giant",
            "CREATE TABLE giant.t (id INT PRIMARY KEY, b LONGBLOB, n INT, t TEXT)",
        ],
    )
    .await?;
    let pattern = b"\x00plain text that needs nothing \xFF\t\n\\N and so on; ";
    let hex: String = pattern.iter().map(|byte| format!("{byte:02X}")).collect();
    let sizes: Vec<usize> = [[64; 6].as_slice(), &[most]].concat();
    let mut expected = RowChecksum::default();
    let mut bytes = 0;
    for (id, megabytes) in sizes.iter().enumerate() {
        let times = (megabytes << 20) / pattern.len();
        server
            .exec(&format!(
                "INSERT INTO giant.t SELECT {id}, REPEAT(X'{hex}', {times}), NULL, 'behind'"
            ))
            .await?;
        let field = escaped(pattern).repeat(times);
        let line = [format!("{id}\t").as_bytes(), &field, b"\t\\N\tbehind"].concat();
        bytes += line.len() as u64 + 1;
        expected.add_row(RowHash::default().of(&line));
    }
    let folder = Scratch::new("giant")?;
    let url = folder.file_url("archive");
    run(command(&server, &url, &["init"])?)?;
    let snapshot = command(
        &server,
        &url,
        &["snapshot", "--allow-primary", "--threads", "4", "--json"],
    )?;
    let (text, peak) = tokio::task::spawn_blocking(move || run(snapshot)).await??;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    let id = report["id"].as_str().context("no id")?;
    let snapshot = folder.path().join("archive/snapshots").join(id);
    let manifest: Manifest =
        serde_json::from_slice(&std::fs::read(snapshot.join("manifest.json"))?)?;
    let table = &manifest.tables[0];
    assert_eq!(table.rows, sizes.len() as u64);
    assert_eq!(table.row_checksum, expected);
    assert_eq!(
        table
            .files
            .iter()
            .map(|file| file.file.raw_bytes)
            .sum::<u64>(),
        bytes
    );
    // And the files hold what the manifest says of them.
    let mut rows = 0;
    let mut found = RowChecksum::default();
    for file in &table.files {
        let path = snapshot.join(file.file.key.to_string());
        let mut decoder = zstd::Decoder::new(std::fs::File::open(path)?)?;
        let mut scanner = LineScanner::default();
        let mut piece = vec![0; 1 << 20];
        loop {
            let length = std::io::Read::read(&mut decoder, &mut piece)?;
            if length == 0 {
                break;
            }
            scanner.update(&piece[..length]);
        }
        let (count, checksum) = scanner.finish().context("a file ends within a row")?;
        rows += count;
        found.add(checksum);
    }
    assert_eq!((rows, found), (table.rows, table.row_checksum));
    ensure!(peak > 0 && peak < MOST, "{peak} bytes of memory");
    drop(server);

    // And back, with every row read again and compared.
    let target = Server::start_with(options()).await?;
    let to = target.url_without_password();
    let restore = [
        "restore",
        "--until",
        "latest",
        "--to",
        &to,
        "--verify",
        "checksums",
        "--threads",
        "4",
        "--json",
    ];
    let restore = command(&target, &url, &restore)?;
    let (text, peak) = tokio::task::spawn_blocking(move || run(restore)).await??;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    assert_eq!(report["verified"]["equal"], 1, "{report}");
    assert_eq!(report["verified"]["rows"], sizes.len(), "{report}");
    ensure!(peak > 0 && peak < MOST_RESTORED, "{peak} bytes of memory");
    Ok(())
}
