//! Large values: rows larger than a server's max_allowed_packet is by default come back.

use anyhow::Result;
use mysql_async::prelude::Queryable as _;
use quillback_harness::{Server, ServerOptions};

use super::compare::assert_same;
use crate::support::{exec_all, load_into, manifest, memory, on_primary, snapshot, url};

/// 24 MiB that zstd cannot shrink, and every byte that a dump must escape.
const VALUE_BYTES: usize = 24 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_values_come_back() -> Result<()> {
    let packet = "max_allowed_packet=256M";
    let source = Server::start_with(ServerOptions::new().line(packet)).await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY, a LONGBLOB, b LONGBLOB, c LONGTEXT, j JSON)",
            "INSERT INTO d.t VALUES (1, '', NULL, '', '{}')",
        ],
    )
    .await?;
    let mut value = Vec::with_capacity(VALUE_BYTES);
    let mut state = 88_172_645_463_325_252_u64;
    while value.len() < VALUE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.extend_from_slice(&state.to_le_bytes());
    }
    let mut conn = source.conn().await?;
    conn.exec_drop(
        "INSERT INTO d.t VALUES (2, ?, ?, REPEAT('\t\n\\\\ż', 2000000), JSON_ARRAY(REPEAT('\\\\\n', 3000000)))",
        (&value, vec![b'\\'; VALUE_BYTES]),
    )
    .await?;
    conn.disconnect().await?;

    let storage = memory();
    let report = snapshot(&[url(&source)], &on_primary(), &storage).await?;
    let manifest = manifest(&*storage, &report).await?;
    assert!(manifest.totals.raw_bytes > 3 * VALUE_BYTES as u64);
    // The row is larger than what this server takes in one packet.
    let target = Server::start_with(ServerOptions::new().line("max_allowed_packet=4M")).await?;
    let loaded = load_into(&target, &storage, &manifest).await?;
    assert_eq!(loaded.rows, 2);
    assert_eq!(
        target
            .one::<u64>("SELECT @@GLOBAL.max_allowed_packet")
            .await?,
        4 << 20
    );
    let digest = "SELECT id, SHA2(a, 256), SHA2(b, 256), SHA2(c, 256), LENGTH(a), LENGTH(b), LENGTH(c), SHA2(CAST(j AS CHAR), 256), JSON_TYPE(j) \
                  FROM d.t ORDER BY id";
    exec_all(&target, &["SET GLOBAL max_allowed_packet = 268435456"]).await?;
    type Row = (
        i32,
        String,
        Option<String>,
        String,
        u64,
        Option<u64>,
        u64,
        String,
        String,
    );
    let (here, there): (Vec<Row>, Vec<Row>) =
        (source.query(digest).await?, target.query(digest).await?);
    assert_eq!(here, there);
    assert_eq!(here[1].4, VALUE_BYTES as u64);
    assert_same(&source, &target, &[]).await?;
    Ok(())
}
