//! LOAD DATA LOCAL INFILE: a whole file or nothing.

use std::time::Duration;

use anyhow::Result;
use quillback::error::{Class, Classified as _};
use quillback_harness::{Server, until};

use crate::support::{connect, url};

const LOAD: &str = "LOAD DATA LOCAL INFILE 'x' INTO TABLE d.t (id, pad)";

async fn server() -> Result<Server> {
    let server = Server::start().await?;
    server.exec("CREATE DATABASE d").await?;
    server
        .exec("CREATE TABLE d.t (id INT PRIMARY KEY, pad LONGTEXT)")
        .await?;
    Ok(server)
}

async fn count(server: &Server) -> Result<u64> {
    server.one("SELECT COUNT(*) FROM d.t").await
}

#[tokio::test]
async fn a_whole_file_is_loaded() -> Result<()> {
    let server = server().await?;
    let mut connection = connect(&url(&server)).await?;
    let mut file = connection.load_local(LOAD, "x").await?;
    // Pieces cut anywhere, empty ones, and one larger than a packet.
    for piece in [&b"1\tfir"[..], b"", b"st\n2\t", b"\\N\n3\t\n"] {
        file.send(piece).await?;
    }
    let large = format!("4\t{}\n", "x".repeat(20 << 20));
    file.send(large.as_bytes()).await?;
    let info = file.finish().await?;
    assert_eq!(info.affected_rows, 4);
    assert!(info.info.contains("Records: 4"), "{}", info.info);
    let rows: Vec<(u32, Option<String>)> = server
        .query("SELECT id, LEFT(pad, 5) FROM d.t ORDER BY id")
        .await?;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        rows,
        [
            (1, text("first")),
            (2, None),
            (3, text("")),
            (4, text("xxxxx"))
        ]
    );
    // An empty file is a whole one.
    let file = connection.load_local(LOAD, "x").await?;
    assert_eq!(file.finish().await?.affected_rows, 0);
    Ok(())
}

#[tokio::test]
async fn what_the_server_refuses_is_told() -> Result<()> {
    let server = server().await?;
    let mut connection = connect(&url(&server)).await?;
    // In the middle of a file that is much longer.
    connection
        .execute("SET SESSION sql_mode = 'STRICT_ALL_TABLES'")
        .await?;
    let mut file = connection
        .load_local(
            &LOAD.replace(
                "(id, pad)",
                "(id, @pad) SET pad = IF(id = 500, EXP(1000), @pad)",
            ),
            "x",
        )
        .await?;
    for id in 0..20_000 {
        file.send(format!("{id}\t{}\n", "x".repeat(200)).as_bytes())
            .await?;
    }
    let error = file.finish().await.expect_err("row 500 is impossible");
    assert_eq!(error.server_code(), Some(1690), "{error}");
    assert_eq!(count(&server).await?, 0);
    assert_eq!(
        connection.query_text("SELECT 1").await?.as_deref(),
        Some("1")
    );

    let error = connection
        .load_local("LOAD DATA LOCAL INFILE 'x' INTO TABLE d.none", "x")
        .await
        .expect_err("no such table");
    assert_eq!(error.server_code(), Some(1146), "{error}");
    server.exec("SET GLOBAL local_infile = OFF").await?;
    let error = connection
        .load_local(LOAD, "x")
        .await
        .expect_err("it is off");
    assert_eq!(error.server_code(), Some(3948), "{error}");
    assert_eq!(
        connection.query_text("SELECT 1").await?.as_deref(),
        Some("1")
    );
    // Only who offered a file is asked for one, and only for that.
    let mut other = connect(&url(&server)).await?;
    server.exec("SET GLOBAL local_infile = ON").await?;
    let error = other
        .load_local(LOAD, "y")
        .await
        .expect_err("another file was offered");
    assert_eq!(error.class(), Class::Integrity, "{error}");
    assert!(other.query_text("SELECT 1").await.is_err());
    server.exec("SET GLOBAL local_infile = ON").await?;
    let error = connection
        .execute(LOAD)
        .await
        .expect_err("no file was offered");
    assert_eq!(error.class(), Class::Integrity, "{error}");
    let error = connection.query_text("SELECT 1").await;
    assert!(error.is_err(), "the server still waits for the file");
    Ok(())
}

#[tokio::test]
async fn a_file_that_ends_halfway_leaves_nothing() -> Result<()> {
    let server = server().await?;
    let mut connection = connect(&url(&server)).await?;
    let id = connection.connection_id();
    {
        let mut file = connection.load_local(LOAD, "x").await?;
        file.send(b"1\tone\n2\ttwo\n3\tthr").await?;
    }
    let error = connection.query_text("SELECT 1").await;
    assert!(error.is_err(), "nothing may be sent behind half a file");
    drop(connection);
    until(
        "the server to see the end",
        Duration::from_secs(60),
        async || {
            let ids: Vec<u64> = server
                .query(&format!(
                    "SELECT ID FROM performance_schema.processlist WHERE ID = {id}"
                ))
                .await?;
            Ok(ids.is_empty().then_some(()))
        },
    )
    .await?;
    assert_eq!(count(&server).await?, 0);
    Ok(())
}
