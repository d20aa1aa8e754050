//! Rows as they come: NULL, empty, huge, many, and a result that breaks off.

use anyhow::{Context as _, Result};
use quillback::error::{Class, Classified as _};
use quillback_harness::{Server, ServerOptions};

use crate::support::{connect, url};

#[tokio::test]
async fn every_kind_of_row_arrives() -> Result<()> {
    let server = Server::start_with(ServerOptions::new().line("max_allowed_packet=1G")).await?;
    let mut connection = connect(&url(&server)).await?;
    let mut rows = connection
        .query_rows("SELECT NULL, '', 'a', REPEAT('x', 250), REPEAT('x', 251), REPEAT('x', 70000), _binary X'00FB00FFFE'")
        .await?;
    assert_eq!(rows.columns().len(), 7);
    let row = rows.next().await?.context("one row")?;
    let fields: Vec<Option<Vec<u8>>> = row
        .fields()
        .map(|field| Ok(field.map_err(|e| row.malformed(e))?.map(<[u8]>::to_vec)))
        .collect::<Result<_>>()?;
    let text = |length: usize| Some(vec![b'x'; length]);
    assert_eq!(
        fields,
        [
            None,
            Some(Vec::new()),
            Some(b"a".to_vec()),
            text(250),
            text(251),
            text(70_000),
            Some(b"\x00\xfb\x00\xff\xfe".to_vec()),
        ]
    );
    assert!(rows.next().await?.is_none());
    assert!(rows.next().await?.is_none(), "the end stays the end");

    // Around the size of a packet, and far above it.
    for length in [
        0xFF_FFFF - 5,
        0xFF_FFFF - 4,
        0xFF_FFFF,
        0x100_0000,
        40_000_000,
    ] {
        let mut rows = connection
            .query_rows(&format!("SELECT REPEAT('y', {length}), 'behind'"))
            .await?;
        let row = rows.next().await?.context("one row")?;
        let mut fields = row.fields();
        let first = fields
            .next()
            .context("two fields")?
            .map_err(|e| row.malformed(e))?;
        let first = first.context("not NULL")?;
        assert_eq!(first.len(), length);
        assert!(first.iter().all(|byte| *byte == b'y'));
        let second = fields
            .next()
            .context("two fields")?
            .map_err(|e| row.malformed(e))?;
        assert_eq!(second, Some(&b"behind"[..]));
        assert!(rows.next().await?.is_none());
    }

    // Many; and a row whose first byte looks like the end of a result.
    let mut rows = connection
        .query_rows(
            "SELECT /*+ SET_VAR(cte_max_recursion_depth = 200000) */ REPEAT('z', 254), i FROM \
             (WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT i FROM n) AS n",
        )
        .await?;
    let (mut count, mut sum) = (0_u64, 0_u64);
    while let Some(row) = rows.next().await? {
        let last = row.fields().last().context("two fields")?;
        let last = last.map_err(|e| row.malformed(e))?.context("not NULL")?;
        sum += std::str::from_utf8(last)?.parse::<u64>()?;
        count += 1;
    }
    assert_eq!((count, sum), (100_000, 5_000_050_000));
    assert_eq!(
        connection.query_text("SELECT 1").await?.as_deref(),
        Some("1")
    );
    Ok(())
}

#[tokio::test]
async fn a_result_that_breaks_off_is_no_shorter_result() -> Result<()> {
    let server = Server::start().await?;
    server.exec("CREATE DATABASE d").await?;
    server
        .exec("CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, pad VARCHAR(2000))")
        .await?;
    server
        .exec(
            "INSERT INTO d.t (pad) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
             SELECT REPEAT('x', 2000) FROM n",
        )
        .await?;
    // An error of a row far behind the first ones.
    let mut connection = connect(&url(&server)).await?;
    let mut rows = connection
        .query_rows("SELECT pad, EXP(IF(id = 900, 1000, 1)) FROM d.t ORDER BY id")
        .await?;
    let mut count = 0;
    let error = loop {
        match rows.next().await {
            Ok(Some(_)) => count += 1,
            Ok(None) => panic!("{count} rows, and no error"),
            Err(error) => break error,
        }
    };
    assert_eq!(count, 899);
    assert_eq!(error.server_code(), Some(1690), "{error}");
    // It was the statement that failed, not the connection.
    assert_eq!(
        connection.query_text("SELECT 1").await?.as_deref(),
        Some("1")
    );

    // A query that is killed while its rows are on their way.
    let mut rows = connection
        .query_rows("SELECT a.pad, b.pad FROM d.t a, d.t b")
        .await?;
    rows.next().await?.context("a first row")?;
    let ids: Vec<u64> = server
        .query("SELECT ID FROM performance_schema.processlist WHERE INFO LIKE 'SELECT a.pad%'")
        .await?;
    server.exec(&format!("KILL QUERY {}", ids[0])).await?;
    let error = loop {
        match rows.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if it were whole"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.server_code(), Some(1317), "{error}");
    assert_eq!(error.class(), Class::Transient);

    // The whole connection, the same way.
    let mut rows = connection
        .query_rows("SELECT a.pad, b.pad FROM d.t a, d.t b")
        .await?;
    rows.next().await?.context("a first row")?;
    server.exec(&format!("KILL {}", ids[0])).await?;
    let error = loop {
        match rows.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if it were whole"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.class(), Class::Transient, "{error}");
    let error = connection
        .query_text("SELECT 1")
        .await
        .expect_err("it is gone");
    assert_eq!(error.class(), Class::Transient, "{error}");
    Ok(())
}

#[tokio::test]
async fn a_result_given_up_serves_no_further_statement() -> Result<()> {
    let server = Server::start().await?;
    let mut connection = connect(&url(&server)).await?;
    let mut rows = connection.query_rows("SELECT 1 UNION SELECT 2").await?;
    rows.next().await?.context("a first row")?;
    drop(rows);
    // The rest of the old answer must never be taken for the next one.
    let answer = connection.query_text("SELECT 'new'").await;
    assert!(answer.is_err(), "{answer:?}");
    Ok(())
}
