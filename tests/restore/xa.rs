//! XA transactions, which may be prepared on one side of a cut and ended on the other.

use anyhow::{Result, ensure};
use quillback::gtid::GtidSet;
use quillback::restore::RestoreRequest;
use quillback::restore::target::Target;
use quillback_harness::{Server, ServerOptions};

use crate::support::{begun, exec_all, gtids_of, only, request, restore, stream_once};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_transaction_at_the_cut_is_told() -> Result<()> {
    let (source, archive) = begun(ServerOptions::new()).await?;
    let prepared = gtids_of(
        &source,
        &[
            "XA START 'it''s \\ 1', 'branch', 7",
            "INSERT INTO d.t VALUES (1)",
            "XA END 'it''s \\ 1', 'branch', 7",
            "XA PREPARE 'it''s \\ 1', 'branch', 7",
        ],
    )
    .await?;
    let between = gtids_of(&source, &["INSERT INTO d.t VALUES (2)"]).await?;
    let committed = gtids_of(&source, &["XA COMMIT 'it''s \\ 1', 'branch', 7"]).await?;
    stream_once(&archive.repository, &source).await?;

    let server = Server::start().await?;
    let gtid = only(&committed);
    let asked = request(Target::BeforeGtid { gtid }, &server);
    let report = restore(&archive.repository, asked).await?;
    ensure!(report.gtid_executed.is_superset(&prepared), "{report:?}");
    ensure!(report.gtid_executed.is_superset(&between), "{report:?}");
    let statement = report
        .notes
        .iter()
        .find_map(|note| note.split("XA ROLLBACK ").nth(1))
        .map(|xid| format!("XA COMMIT {xid}"));
    let statement = statement.unwrap_or_default();
    ensure!(!statement.is_empty(), "{:?}", report.notes);
    let rows: Vec<u32> = server.query("SELECT id FROM d.t").await?;
    assert_eq!(rows, [2]);
    // The note holds what the server takes.
    let opening: Vec<&str> = report.open_with.iter().map(String::as_str).collect();
    exec_all(&server, &opening).await?;
    exec_all(&server, &[&statement]).await?;
    let rows: Vec<u32> = server.query("SELECT id FROM d.t ORDER BY id").await?;
    assert_eq!(rows, [1, 2]);
    drop(server);

    // The end of a transaction whose beginning is left out has nothing to end.
    let server = Server::start().await?;
    let asked = RestoreRequest {
        skip: GtidSet::from(only(&prepared)),
        ..request(Target::Latest, &server)
    };
    let error = restore(&archive.repository, asked).await;
    let error = error.expect_err("there is no such XID");
    let text = format!("{:#}", anyhow::Error::from(error));
    ensure!(
        text.contains("XAER_NOTA") || text.contains("1397"),
        "{text}"
    );
    Ok(())
}
