//! Time zones change nothing: not ours, not the servers', not in the hour that a clock has twice.

use anyhow::{Context as _, Result, ensure};
use quillback_harness::{Server, ServerOptions};

use crate::program;
use crate::support::{Archive, chain, exec_all, on_primary, snapshot, state, stream_once, url};

/// Zones with odd offsets, with an hour that comes twice, with a day that never was, and with no
/// such zone.
const ZONES: [&str; 6] = [
    "Europe/Berlin",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "EST5EDT,M3.2.0,M11.1.0",
    "No/Such_Zone",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_is_the_same_in_every_zone() -> Result<()> {
    let options = ServerOptions::new().line("default_time_zone='+13:45'");
    let source = Server::start_with(options).await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY, at TIMESTAMP(6) NULL, then_at DATETIME(6))",
            "SET time_zone = '+00:00'",
            // The hours that Berlin has twice and never, and the ends of the type.
            "INSERT INTO d.t VALUES (1, '2026-10-25 00:30:00.000001', '2026-10-25 02:30:00'), \
             (2, '2026-10-25 01:30:00.000001', '2026-10-25 02:30:00'), \
             (3, '2026-03-29 01:00:00', '2026-03-29 02:30:00'), \
             (4, '1970-01-01 00:00:01', '0001-01-01'), (5, '2038-01-19 03:14:07.999999', '9999-12-31')",
        ],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    for zone in ["-09:30", "+00:00", "+14:00"] {
        let set = format!("SET time_zone = '{zone}'");
        exec_all(
            &source,
            &[
                &set,
                "INSERT INTO d.t SELECT MAX(id) + 1, NOW(6), NOW(6) FROM d.t",
                "INSERT INTO d.t SELECT MAX(id) + 1, '2026-10-25 02:30:00', '2026-10-25 02:30:00' FROM d.t",
            ],
        )
        .await?;
    }
    stream_once(&archive.repository, &source).await?;
    let end = state(&source).await?;

    // Between two transactions: in whatever zone it is written and wherever it is read.
    let chain = chain(&archive.repository).await?;
    let mut log = Vec::new();
    for segment in &chain.segments {
        log.extend(archive.repository.read_transactions(segment).await?);
    }
    let line = log.get(log.len() / 2).context("a log")?;
    let moment = line.time;
    let server =
        Server::start_with(ServerOptions::new().line("default_time_zone='-11:00'")).await?;
    let mut results = Vec::new();
    for (zone, seconds) in ZONES
        .iter()
        .zip([0, 7200, 20_700, -34_200, 50_400, -43_200])
    {
        let offset = chrono::FixedOffset::east_opt(seconds).context("an offset")?;
        let written = moment.with_timezone(&offset);
        let written = written.to_rfc3339_opts(chrono::SecondsFormat::Micros, false);
        let arguments = ["--until", written.as_str(), "--dry-run", "--json"];
        let said = program::restore(&archive, &server, &arguments, &[("TZ", *zone)]).await?;
        said.ended(&[0])?;
        let plan: serde_json::Value = serde_json::from_str(&said.out())?;
        let last = plan["plan"]["cut"]["last_in"]["gtid"]
            .as_str()
            .map(ToOwned::to_owned);
        ensure!(
            last == Some(line.gtid.to_string()),
            "{zone} {written}: {plan}"
        );
        results.push(plan["plan"]["result"].clone());
    }
    results.dedup();
    ensure!(results.len() == 1, "{results:?}");
    let local = moment.format("%Y-%m-%dT%H:%M:%S").to_string();
    let arguments = ["--until", local.as_str()];
    let env = [("TZ", "Europe/Berlin")];
    let said = program::restore(&archive, &server, &arguments, &env).await?;
    said.ended(&[2])?;
    ensure!(said.err().contains("has no offset"), "{}", said.err());

    let arguments = ["--until", "latest", "--verify", "checksums", "--open"];
    let said = program::restore(&archive, &server, &arguments, &[("TZ", "Pacific/Apia")]).await?;
    said.ended(&[0])?;
    let found = state(&server).await?;
    assert_eq!(found, end);
    let rows: Vec<(u32, String)> = server
        .query("SELECT id, CAST(CONVERT_TZ(at, @@session.time_zone, '+00:00') AS CHAR) FROM d.t WHERE id < 3 ORDER BY id")
        .await?;
    assert_eq!(rows[0].1, "2026-10-25 00:30:00.000001");
    assert_eq!(rows[1].1, "2026-10-25 01:30:00.000001");
    Ok(())
}
