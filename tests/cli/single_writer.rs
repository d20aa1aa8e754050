//! A store that cannot keep two streamers apart is refused, unless the operator vouches for it.

use anyhow::Result;
use quillback_harness::{Condition, LyingStore, ROOT_PASSWORD, Server};

use crate::support::Shell;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_conditional_writes_needs_the_operator_s_word() -> Result<()> {
    let store = LyingStore::start(Condition::Ignored).await?;
    let server = Server::start().await?;
    let shell = Shell::new()?
        .env("QUILLBACK_ARCHIVE", "s3://bucket/a")
        .env("AWS_ENDPOINT_URL", format!("http://{}", store.address()))
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", ROOT_PASSWORD)
        .env("QUILLBACK_SERVER", server.url_without_password())
        .with_server(&server, "server")
        .await?;
    let refusal = "error: s3://bucket/a does not honour conditional writes: ";
    let init = shell.run(&["init"]).await?;
    assert!(init.err.starts_with(refusal), "{init:?}");
    assert!(init.err.contains("--single-writer"), "{init:?}");
    assert_eq!((init.code, init.out.as_str()), (23, ""), "{init:?}");
    shell.run(&["init", "--single-writer"]).await?.is(
        0,
        "made an archive at s3://bucket/a",
        "warning: --single-writer: the store is not probed, and each stream needs the flag too\n\
         next: quillback stream (in the background), then quillback snapshot",
    );

    server.exec("CREATE DATABASE shop").await?;
    let refused = shell.run(&["stream", "--once"]).await?;
    assert!(refused.err.starts_with(refusal), "{refused:?}");
    assert_eq!((refused.code, refused.out.as_str()), (23, ""));
    for round in 1..=2 {
        server.exec(&format!("CREATE DATABASE shop{round}")).await?;
        let said = shell.run(&["stream", "--once", "--single-writer"]).await?;
        assert_eq!(said.code, 0, "{said:?}");
        let warning = "warning: --single-writer: nothing keeps a second streamer out";
        assert!(said.err.contains(warning), "{said:?}");
    }
    let (_, status) = shell.json(&["status"]).await?;
    assert!(status["transactions"].as_u64() == Some(1), "{status}");
    Ok(())
}
