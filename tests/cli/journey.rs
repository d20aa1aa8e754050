//! The whole way of a first day, word for word: init, stream, snapshot, status, log, restore.

use anyhow::Result;
use quillback_harness::{Minio, Server};

use crate::support::Shell;

async fn fill(server: &Server, statements: &[&str]) -> Result<()> {
    for statement in statements {
        server.exec(statement).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_folder() -> Result<()> {
    let (source, target) = (Server::start().await?, Server::start().await?);
    let shell = Shell::new()?
        .with_server(&source, "source")
        .await?
        .with_server(&target, "target")
        .await?;
    let archive = shell.archive();
    let shell = shell
        .env("QUILLBACK_ARCHIVE", archive)
        .env("QUILLBACK_SERVER", source.url_without_password());
    walk(&shell, "file://<folder>/archive", &source, &target).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_bucket() -> Result<()> {
    let minio = Minio::start().await?;
    minio.create_bucket("backups")?;
    let (source, target) = (Server::start().await?, Server::start().await?);
    let mut shell = Shell::new()?
        .with_server(&source, "source")
        .await?
        .with_server(&target, "target")
        .await?
        .env("QUILLBACK_ARCHIVE", "s3://backups/cluster/one")
        .env("QUILLBACK_SERVER", source.url_without_password());
    for (name, value) in minio.env() {
        shell = shell.env(&name, value);
    }
    walk(&shell, "s3://backups/cluster/one", &source, &target).await
}

/// The whole way, on an archive that is shown as `archive`.
async fn walk(shell: &Shell, archive: &str, source: &Server, target: &Server) -> Result<()> {
    fill(
        source,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.orders (id INT PRIMARY KEY, item VARCHAR(20))",
            "INSERT INTO shop.orders VALUES (1, 'ink'), (2, 'quill')",
        ],
    )
    .await?;
    shell.run(&["init"]).await?.is(
        0,
        &format!("made an archive at {archive}"),
        "next: quillback stream (in the background), then quillback snapshot",
    );
    shell.run(&["stream", "--dry-run"]).await?.is(
        0,
        &format!(
            "would follow <source> (single server, MySQL <mysql>) into {archive} as epoch 1\n\
             from <source uuid>:1-3"
        ),
        "",
    );
    shell.run(&["stream", "--once"]).await?.is(
        0,
        "archived 0 transactions in <segments> (<size> of binlog, <size> stored), complete to <time>",
        "epoch 1 is ours, going on from <source uuid>:1-3\n\
         following <source> (MySQL <mysql>)",
    );
    shell.run(&["snapshot"]).await?.is(
        23,
        "",
        "error: no secondary can take the load (<source> has no secondary); \
         the primary <source> is used only with --allow-primary\n  \
         try: again once a secondary has caught up, or --allow-primary if the primary can bear it",
    );
    let plan = "snapshot <snapshot> of <source> (the primary, MySQL <mysql>)\n  \
                server <source> is the primary, which --allow-primary permits\n  \
                read 1 table, about 2 rows and <size>, by 4 connections\n  \
                locks writes wait only if no quiet moment is found, for less than a second as a rule\n             \
                DDL waits for up to 1m 00s (--ddl-wait)";
    let more = "\n  \
                time unknown: the archive has no snapshot to learn it from\n  \
                privileges all that are needed or of use\n  \
                tables shop.orders <size> about 2 rows 1 chunk\n\
                nothing was changed (--dry-run)";
    shell
        .run(&["snapshot", "--allow-primary", "--dry-run"])
        .await?
        .is(0, &format!("{plan}{more}"), "");
    shell.run(&["snapshot", "--allow-primary"]).await?.is(
        0,
        "snapshot <snapshot> is in the archive: 1 table, 2 rows, <size> read, <size> stored\n\
         it holds <source uuid>:1-3\n\
         writes were held up for <span>; DDL was kept away for <span>\n  \
         schema <span>\n  \
         lock <span>\n  \
         data <span> <size>\n  \
         commit <span>",
        plan,
    );
    fill(
        source,
        &[
            "INSERT INTO shop.orders VALUES (3, 'paper')",
            "CREATE USER ann IDENTIFIED BY 'ann-secret'",
            "DROP TABLE shop.orders",
        ],
    )
    .await?;
    shell.run(&["stream", "--once"]).await?.is(
        0,
        "archived 3 transactions in <segments> (<size> of binlog, <size> stored), complete to <time>",
        "epoch 2 is ours, going on from <source uuid>:1-3\n\
         following <source> (MySQL <mysql>)",
    );
    shell.run(&["status"]).await?.is(
        0,
        &format!(
            "RESTORABLE from <time> to <time> (<span> ago)\n\
             archive {archive} (branch 1)\n\
             snapshots 1, the newest <span> ago\n           \
             <snapshot> <span> ago <size> 2 rows the log goes on from it\n\
             log 3 transactions in <segments>, <size>, epoch 2\n\
             server <source>: everything is archived\n\
             purge the server keeps what is not archived for at least 30d 00h\n\
             gtid set <source uuid>:1-6"
        ),
        "",
    );
    let from = "-- from the binlog of <source uuid>, MySQL <mysql>";
    let dropped = "<time> <source uuid>:6 server <source id> <size>\n    \
                   DROP TABLE `shop`.`orders` /* generated by server */";
    let offer = |which: &str| {
        let restore = format!("  quillback restore --archive {archive}");
        let to = "--to mysql://user@new-server:3306";
        format!(
            "to restore to just before {which}:\n\
             {restore} --before-gtid <source uuid>:6 {to}\n\
             with all that came since, but without it:\n\
             {restore} --until latest --skip-gtid <source uuid>:6 {to}\n\
             only what it changed, as it was, on the server in use:\n\
             {restore} --tables shop.orders --before-gtid <source uuid>:6 \
             --to mysql://user@server:3306"
        )
    };
    let worst =
        offer("the most destructive one, DROP TABLE `shop`.`orders` /* generated by server */");
    shell.run(&["log"]).await?.is(
        0,
        &format!(
            "{from}\n\
             <time> <source uuid>:4 server <source id> <size>\n    \
             shop.orders: 1 inserted\n\
             <time> <source uuid>:5 server <source id> <size>\n    \
             CREATE USER 'ann'@'%' IDENTIFIED WITH 'caching_sha2_password' AS '***'\n\
             {dropped}"
        ),
        &format!("3 transactions of 3 archived, complete to <time>\n{worst}"),
    );
    shell
        .run(&["log", "--kind", "ddl", "--last", "1"])
        .await?
        .is(
            0,
            &format!("{from}\n{dropped}"),
            &format!(
                "1 transaction shown, there may be more; 3 archived, complete to <time>\n{}",
                offer("it")
            ),
        );
    shell.run(&["log", "--table", "shop.customers"]).await?.is(
        0,
        "",
        "0 transactions of 3 archived, complete to <time>\n\
         searched: <time> to <time>\n\
         no rows of shop.customers changed there; rows of 1 other table did",
    );

    let to = target.url_without_password();
    let uuid = source.uuid().await?;
    let before_drop = format!("{uuid}:6");
    let restore = ["restore", "--before-gtid", &before_drop, "--to", &to];
    let plan = "restore just before <source uuid>:6 to <target> (MySQL <mysql>)\n  \
                last in <time> <source uuid>:5 CREATE USER 'ann'@'%' IDENTIFIED WITH 'caching_sha2_password' AS '***'\n  \
                first out <time> <source uuid>:6 DROP TABLE `shop`.`orders` /* generated by server */\n  \
                load snapshot <snapshot>: 1 table, 2 rows, <size> stored\n  \
                replay 2 transactions from <segments>, <size> stored, <size> of binlog\n  \
                ends at <source uuid>:1-5\n  \
                expected about <span> (load <span>, index <span>, replay <span>, check <span>; by documented rates)\n  \
                space about <size> of rows with their indexes, <size> of binlog";
    shell
        .run(&[&restore[..], &["--dry-run"]].concat())
        .await?
        .is(0, &format!("{plan}\nnothing was changed (--dry-run)"), "");
    let schemas: Vec<String> = target.query("SHOW DATABASES LIKE 'shop'").await?;
    assert_eq!(schemas, [""; 0], "a dry run makes nothing");
    shell.run(&restore).await?.is(
        0,
        "restored just before <source uuid>:6 on <target>: 1 table, 2 rows loaded, 2 transactions replayed\n\
         gtid_executed is what was planned: <source uuid>:1-5\n  \
         plan <span>\n  \
         load <span> <size>\n  \
         replay <span> <size>\n  \
         check <span>\n\
         kept in the archive as restores/<snapshot>.json\n\
         the server is read-only; open it with: SET GLOBAL super_read_only = OFF; \
         SET GLOBAL read_only = OFF; SET GLOBAL event_scheduler = ON;",
        &format!("{plan}\nload ...\nindex ...\nreplay ...\ncheck ..."),
    );
    let items: Vec<String> = target
        .query("SELECT item FROM shop.orders ORDER BY id")
        .await?;
    assert_eq!(items, ["ink", "quill", "paper"]);
    shell.run(&restore).await?.is(
        23,
        "",
        "error: <target> cannot be the target: it is not empty: it has shop (1 table, about 1 MiB)\n  \
         try: an empty server, or --wipe <target>, which removes all that is on it",
    );
    not_covered(shell, &to).await?;
    refused(shell, source).await
}

/// Targets that the archive does not hold.
async fn not_covered(shell: &Shell, to: &str) -> Result<()> {
    let restore = |flag: &'static str, value: &'static str| ["restore", flag, value, "--to", to];
    shell
        .run(&restore("--until", "2020-01-01T00:00:00Z"))
        .await?
        .is(
            20,
            "",
            "error: asked <time>, the archive begins at <time>\n  \
             try: --until <time> (the nearest state behind)\n       \
             or an older archive",
        );
    let said = shell
        .run(&restore("--until", "2099-01-01T00:00:00Z"))
        .await?;
    assert_eq!((said.code, said.out.as_str()), (20, ""), "{}", said.err);
    let start = "error: asked <time>, the archive is complete to <time> (lag ";
    let end = ")\n  try: --until <time>, --until latest, or --wait, which waits until the archive is complete";
    assert!(
        said.err.starts_with(start) && said.err.ends_with(end),
        "{}",
        said.err
    );
    shell
        .run(&restore(
            "--until-gtid",
            "deadbeef-0000-4000-8000-000000000001:1",
        ))
        .await?
        .is(
            20,
            "",
            "error: the archive does not hold <uuid>:1\n  \
             try: quillback log, which lists what is archived; --wait, if they are on their way",
        );
    Ok(())
}

/// The source itself as the target.
async fn refused(shell: &Shell, source: &Server) -> Result<()> {
    let to = source.url_without_password();
    let before = source.gtid_executed().await?;
    let said = shell
        .run(&["restore", "--until", "latest", "--to", &to])
        .await?;
    assert_eq!((said.code, said.out.as_str()), (23, ""), "{}", said.err);
    // A stream that has ended may be taken for a reader still, which is a reason more.
    for text in [
        "error: <source> cannot be the target:",
        "it is not empty: it has shop (0 tables, about 0 MiB)\n",
        "an empty server, or --wipe <source>, which removes all that is on it",
    ] {
        assert!(said.err.contains(text), "{text}: {}", said.err);
    }
    assert_eq!(source.gtid_executed().await?, before);
    Ok(())
}
