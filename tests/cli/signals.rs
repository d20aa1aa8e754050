//! A stream in the background, and how it is stopped.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use quillback_harness::{Server, until};
use serde_json::Value;

use crate::support::Shell;

const LIMIT: Duration = Duration::from_secs(60);

/// A running program that is killed if the test ends before it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.0.id().to_string()])
            .status()?;
        ensure!(status.success(), "kill failed");
        Ok(())
    }

    async fn end(mut self) -> Result<i32> {
        let waiting = tokio::task::spawn_blocking(move || self.0.wait());
        let status = tokio::time::timeout(LIMIT, waiting).await???;
        Ok(status.code().unwrap_or(-1))
    }
}

/// The bytes that the server has sent to its dump.
async fn sent(server: &Server) -> Result<u64> {
    let sent: Vec<u64> = server
        .query(
            "SELECT CAST(s.VARIABLE_VALUE AS UNSIGNED) \
             FROM performance_schema.status_by_thread s \
             JOIN performance_schema.threads t USING (THREAD_ID) \
             WHERE t.PROCESSLIST_COMMAND LIKE 'Binlog Dump%' AND s.VARIABLE_NAME = 'Bytes_sent'",
        )
        .await?;
    Ok(sent.first().copied().unwrap_or(0))
}

/// Ends the dumps of programs that are gone, which the server has not noticed yet.
async fn end_old_dumps(server: &Server) -> Result<()> {
    until("the old dumps to end", LIMIT, async || {
        let old: Vec<u64> = server
            .query(
                "SELECT ID FROM performance_schema.processlist WHERE COMMAND LIKE 'Binlog Dump%'",
            )
            .await?;
        for dump in &old {
            server.exec(&format!("KILL {dump}")).await?;
        }
        Ok(old.is_empty().then_some(()))
    })
    .await
}

/// Waits until the server has sent more than `bytes` to its dump and has no more to send, and the
/// program has taken it off the socket.
async fn wait_received(server: &Server, bytes: u64) -> Result<()> {
    until("the stream to be received", LIMIT, async || {
        let idle: Vec<u64> = server
            .query(
                "SELECT ID FROM performance_schema.processlist \
                 WHERE COMMAND LIKE 'Binlog Dump%' AND STATE LIKE '%sent all%'",
            )
            .await?;
        ensure!(!idle.is_empty(), "no idle dump");
        ensure!(sent(server).await? > bytes, "nothing was sent yet");
        // Of the columns the third is the peer and the fifth tx_queue:rx_queue, in hexadecimal.
        let peer = format!(":{:04X}", server.port());
        let sockets = std::fs::read_to_string("/proc/net/tcp")?;
        let waiting = sockets.lines().any(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            columns.get(2).is_some_and(|to| to.ends_with(&peer))
                && columns
                    .get(4)
                    .is_some_and(|queues| !queues.ends_with(":00000000"))
        });
        Ok((!waiting).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_stream_has_archived_what_it_received() -> Result<()> {
    let source = Server::start().await?;
    source.exec("CREATE DATABASE d").await?;
    source.exec("CREATE TABLE d.t (id INT PRIMARY KEY)").await?;
    let shell = Shell::new()?.with_server(&source, "source").await?;
    let archive = shell.archive();
    let shell = shell
        .env("QUILLBACK_ARCHIVE", archive)
        .env("QUILLBACK_SERVER", source.url_without_password());
    shell.run(&["init"]).await?;
    for (round, signal) in ["TERM", "INT"].into_iter().enumerate() {
        end_old_dumps(&source).await?;
        // The interval is so long that only the end itself can have archived anything.
        let mut command = shell.command(&["--json", "stream", "--flush-interval", "1h"]);
        command.stderr(Stdio::null());
        let mut running = Running(command.spawn()?);
        let stdout = running.0.stdout.take().context("stdout is a pipe")?;
        let lines = tokio::task::spawn_blocking(move || -> Result<Vec<Value>> {
            BufReader::new(stdout)
                .lines()
                .map(|line| Ok(serde_json::from_str(&line?)?))
                .collect()
        });
        wait_received(&source, 0).await?;
        // More than the heartbeats that may come meanwhile, less than the transaction.
        let enough = sent(&source).await? + 200;
        source
            .exec(&format!("INSERT INTO d.t VALUES ({round})"))
            .await?;
        let executed = source.gtid_executed().await?;
        wait_received(&source, enough).await?;
        running.signal(signal)?;
        assert_eq!(running.end().await?, 0, "{signal}");
        let lines = lines.await??;
        let last = lines.last().context("no line")?;
        assert_eq!(last["report"]["gtid_set"], executed, "{lines:?}");
    }
    let said = shell.run(&["log"]).await?;
    let transactions = said.out.matches("<source uuid>:").count();
    assert_eq!(transactions, 2, "{}", said.out);
    Ok(())
}
