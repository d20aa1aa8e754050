//! A process with servers that dies as its argument says: for the test that nothing outlives it.

use std::io::Write;
use std::process::abort;

use anyhow::{Context, Result, bail};
use quillback_harness::{Minio, Server, scratch};

#[tokio::main]
async fn main() -> Result<()> {
    let end = std::env::args()
        .nth(1)
        .context("an argument says how to end")?;
    let server = Server::start().await?;
    let minio = Minio::start().await?;
    minio.pause()?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{} {}",
        scratch::root()?.display(),
        server.pid().context("the server runs")?
    )?;
    out.flush()?;
    match end.as_str() {
        "panic" => panic!("as asked"),
        "abort" => abort(),
        "hang" => std::future::pending::<Result<()>>().await,
        "return" => Ok(()),
        other => bail!("nobody can end by {other:?}"),
    }
}
