//! The dump gives the binlog byte for byte, whatever it holds and however it is stored.

use std::process::Command;

use anyhow::{Context as _, Result};
use quillback::mysql::binlog::EventKind;
use quillback_harness::{ROOT_PASSWORD, Scratch, Server, ServerOptions, programs};

use crate::log::{Log, write_all};

/// A way to keep a binlog.
struct Case {
    name: &'static str,
    options: fn(ServerOptions) -> ServerOptions,
    /// Kinds of events that must be there, and that must not.
    present: &'static [EventKind],
    absent: &'static [EventKind],
}

const CASES: [Case; 5] = [
    Case {
        name: "as it comes",
        options: |options| options,
        present: &[
            EventKind::GTID,
            EventKind::GTID_TAGGED,
            EventKind::XA_PREPARE,
            EventKind::XID,
            EventKind::WRITE_ROWS,
            EventKind::UPDATE_ROWS,
            EventKind::DELETE_ROWS,
            EventKind::QUERY,
        ],
        absent: &[EventKind::TRANSACTION_PAYLOAD],
    },
    Case {
        name: "without checksums",
        options: |options| options.line("binlog_checksum=NONE"),
        present: &[EventKind::GTID_TAGGED, EventKind::XA_PREPARE],
        absent: &[],
    },
    Case {
        name: "compressed",
        options: |options| options.line("binlog_transaction_compression=ON"),
        present: &[EventKind::TRANSACTION_PAYLOAD, EventKind::GTID_TAGGED],
        // All of it is inside payloads, but for rows that are larger than a payload may be.
        absent: &[
            EventKind::UPDATE_ROWS,
            EventKind::DELETE_ROWS,
            EventKind::XA_PREPARE,
        ],
    },
    Case {
        name: "minimal and partial images",
        options: |options| {
            options
                .line("binlog_row_image=MINIMAL")
                .line("binlog_row_value_options=PARTIAL_JSON")
                .line("binlog_rows_query_log_events=ON")
        },
        present: &[EventKind::GTID_TAGGED, EventKind::XA_PREPARE],
        absent: &[],
    },
    Case {
        name: "encrypted on disk, compressed",
        options: |options| {
            options
                .encrypted_binlog()
                .line("binlog_transaction_compression=ON")
        },
        present: &[EventKind::TRANSACTION_PAYLOAD],
        absent: &[],
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dump_is_what_mysqlbinlog_takes() -> Result<()> {
    for case in CASES {
        check(&case).await.context(case.name)?;
    }
    Ok(())
}

async fn check(case: &Case) -> Result<()> {
    let server = Server::start_with((case.options)(ServerOptions::new())).await?;
    write_all(&server).await?;
    let encrypted: Vec<(String, u64, String)> = server.query("SHOW BINARY LOGS").await?;
    let on_disk = std::fs::read(server.data_dir().join(&encrypted[0].0))?;
    if encrypted[0].2 == "Yes" {
        // `Rpl_encryption_header`'s own magic.
        assert_eq!(on_disk[..4], *b"\xfdbin");
    } else {
        assert!(!case.name.contains("encrypted"));
        assert_eq!(on_disk[..4], *b"\xfebin");
    }
    let log = Log::of(&server).await?;
    for kind in case.present {
        assert!(log.kinds.contains_key(kind), "no {kind}: {:?}", log.kinds);
    }
    for kind in case.absent {
        assert!(!log.kinds.contains_key(kind), "{kind}: {:?}", log.kinds);
    }
    assert_eq!(log.gtids(), server.gtid_executed().await?.parse()?);
    assert_eq!(log.files.len(), 2, "one rotation");

    let folder = Scratch::new("raw")?;
    let output = Command::new(programs::find("mysqlbinlog")?)
        .args(["--no-defaults", "--read-from-remote-server", "--raw"])
        .args(["--to-last-log", "--host=127.0.0.1", "--user=root"])
        .arg(format!("--port={}", server.port()))
        .arg(format!("--result-file={}/", folder.path().display()))
        .arg(&encrypted[0].0)
        .env("MYSQL_PWD", ROOT_PASSWORD)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "mysqlbinlog: {said}");
    for (name, ours) in &log.files {
        let theirs = std::fs::read(folder.path().join(name))?;
        assert_eq!(ours.len(), theirs.len(), "{name}");
        assert!(*ours == theirs, "{name}");
    }
    Ok(())
}
