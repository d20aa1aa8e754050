//! Some tables alone, back to a transaction, beside whatever is on the server.

use anyhow::{Result, ensure};
use quillback::error::{Class, Classified as _};
use quillback::restore::target::Target;
use quillback_harness::{Replicas, Server, ServerOptions, Trio, until};

use crate::program;
use crate::support::{
    Archive, LIMIT, exec_all, gtids_of, on_primary, only, snapshot, state, stream_once, url,
};
use crate::tables_support::{assert_nothing_left, bring_back, into, looks, plan, tables, truth};

/// A source with two schemas, a snapshot, and a log behind it.
async fn notes(options: ServerOptions) -> Result<(Server, Archive)> {
    let source = Server::start_with(options).await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE notes",
            "CREATE TABLE notes.pages (id INT PRIMARY KEY AUTO_INCREMENT, title VARCHAR(80), \
             body TEXT, KEY by_title (title))",
            "INSERT INTO notes.pages (title, body) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL \
             SELECT i + 1 FROM n WHERE i < 500) SELECT CONCAT('page ', i), SHA2(i, 256) FROM n",
            "CREATE TABLE notes.other (id INT PRIMARY KEY, v INT)",
            "INSERT INTO notes.other VALUES (1, 1), (2, 2)",
            "CREATE DATABASE shop",
            "CREATE TABLE shop.pages (id INT PRIMARY KEY, v INT)",
            "INSERT INTO shop.pages VALUES (1, 10), (2, 20)",
        ],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    exec_all(
        &source,
        &[
            "UPDATE notes.pages SET body = 'changed' WHERE id % 3 = 0",
            "DELETE FROM notes.pages WHERE id % 7 = 0",
            "UPDATE notes.pages p JOIN notes.other o ON p.id = o.id SET p.title = 'joined', o.v = 9",
            "INSERT INTO shop.pages VALUES (3, 30)",
            "ALTER TABLE notes.pages ADD COLUMN stars INT NOT NULL DEFAULT 5, ADD KEY by_stars (stars)",
            "UPDATE notes.pages SET stars = 1 WHERE id < 10",
        ],
    )
    .await?;
    Ok((source, archive))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_table_comes_back_on_the_live_source() -> Result<()> {
    let (source, archive) = notes(ServerOptions::default()).await?;
    let before = looks(&source, "notes", &["pages"]).await?;
    let dropped = only(&gtids_of(&source, &["DROP TABLE notes.pages"]).await?);
    exec_all(&source, &["INSERT INTO notes.other VALUES (7, 7)"]).await?;
    stream_once(&archive.repository, &source).await?;
    let others = state(&source).await?.tables;

    let target = Target::BeforeGtid { gtid: dropped };
    let report = bring_back(&archive, tables(target.clone(), &source, &["notes.pages"])).await?;
    assert_eq!(report.notes, Vec::<String>::new());
    assert_eq!(looks(&source, "notes", &["pages"]).await?, before);
    assert_eq!(
        truth(&archive, target.clone(), "notes", &["pages"]).await?,
        before
    );
    let now = state(&source).await?.tables;
    for (name, sum) in &others {
        ensure!(now.get(name) == Some(sum), "{name} changed");
    }
    assert_eq!(now.len(), others.len() + 1);
    assert_nothing_left(&source).await?;

    // Once more: it is there, and nothing is overwritten.
    let again = plan(&archive, tables(target.clone(), &source, &["notes.pages"])).await;
    let error = again.expect_err("it is taken");
    assert_eq!(error.class(), Class::Refused);
    ensure!(error.to_string().contains("notes.pages already"), "{error}");

    // Into another schema while the live one stays.
    let request = into(target, &source, &["notes.pages"], "notes_before");
    bring_back(&archive, request).await?;
    assert_eq!(looks(&source, "notes_before", &["pages"]).await?, before);
    assert_eq!(looks(&source, "notes", &["pages"]).await?, before);
    assert_nothing_left(&source).await?;

    // And the next night again: the log has the first restore now.
    exec_all(&source, &["UPDATE notes.pages SET stars = 2 WHERE id = 1"]).await?;
    let before = looks(&source, "notes", &["pages"]).await?;
    let dropped = only(&gtids_of(&source, &["DROP TABLE notes.pages"]).await?);
    stream_once(&archive.repository, &source).await?;
    let target = Target::BeforeGtid { gtid: dropped };
    bring_back(&archive, tables(target.clone(), &source, &["notes.pages"])).await?;
    assert_eq!(looks(&source, "notes", &["pages"]).await?, before);
    assert_eq!(truth(&archive, target, "notes", &["pages"]).await?, before);
    assert_nothing_left(&source).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_bring_tables_of_several_schemas_to_a_scratch_server() -> Result<()> {
    let (source, archive) = notes(ServerOptions::default()).await?;
    stream_once(&archive.repository, &source).await?;
    let server = Server::start().await?;
    let report = bring_back(&archive, tables(Target::Latest, &server, &["*.pages"])).await?;
    assert_eq!(report.notes, Vec::<String>::new());
    assert_eq!(report.tables.len(), 2);
    for schema in ["notes", "shop"] {
        assert_eq!(
            looks(&server, schema, &["pages"]).await?,
            looks(&source, schema, &["pages"]).await?
        );
    }
    assert_eq!(state(&server).await?.tables.len(), 2);
    assert_nothing_left(&server).await?;
    // Its GTIDs are its own: it is no copy of the source.
    let uuid = server.uuid().await?;
    let set = state(&server).await?.set;
    ensure!(
        set.to_string().starts_with(&uuid) && !set.to_string().contains(','),
        "{set:#}"
    );

    let both = into(Target::Latest, &server, &["*.pages"], "all_of_them");
    let error = plan(&archive, both).await.expect_err("two of one name");
    ensure!(
        error.to_string().contains("notes.pages and shop.pages"),
        "{error}"
    );
    // A part of the snapshot alone, without any log: nothing of it touched this one.
    let report = bring_back(
        &archive,
        into(Target::Latest, &server, &["notes.other"], "o"),
    )
    .await?;
    assert_eq!(report.transactions_applied, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_refused_with_the_line_that_has_it() -> Result<()> {
    let (source, archive) = notes(ServerOptions::default()).await?;
    let dropped = only(&gtids_of(&source, &["DROP TABLE notes.pages"]).await?);
    let renamed = only(&gtids_of(&source, &["RENAME TABLE shop.pages TO shop.sheets"]).await?);
    exec_all(
        &source,
        &[
            "CREATE VIEW notes.all_of_them AS SELECT id FROM notes.other",
            "CREATE VIEW shop.both AS SELECT a.id FROM shop.sheets a JOIN notes.other b USING (id)",
        ],
    )
    .await?;
    // Two of one second have no order.
    let first = archive.repository.snapshots().await?.remove(0).id;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    stream_once(&archive.repository, &source).await?;
    let server = Server::start().await?;
    let ask = |patterns: &[&str], old: bool| {
        let mut request = tables(Target::Latest, &server, patterns);
        request.snapshot = old.then(|| first.clone());
        plan(&archive, request)
    };
    for (name, gtid) in [("notes.pages", &dropped), ("shop.pages", &renamed)] {
        let error = ask(&[name], true).await.expect_err("it is gone");
        assert_eq!(error.class(), Class::NotCovered);
        ensure!(error.to_string().contains(&gtid.to_string()), "{error}");
    }
    let error = ask(&["notes.pages"], false)
        .await
        .expect_err("it was never there");
    assert_eq!(error.class(), Class::NotCovered);
    for nothing in ["nowhere.*", "notes.x*"] {
        let error = ask(&["notes.other", nothing], false)
            .await
            .expect_err("nothing");
        assert_eq!(error.class(), Class::NotCovered);
        ensure!(error.to_string().contains(nothing), "{error}");
    }
    let error = ask(&["shop.both"], false).await.expect_err("a view");
    ensure!(
        error.to_string().contains("shop.sheets") && error.to_string().contains("notes.other"),
        "{error}"
    );
    let plan = ask(&["shop.*"], false).await?;
    let told = plan.remarks.join("\n");
    ensure!(
        told.contains("views are not restored") && told.contains("shop.both"),
        "{told}"
    );
    let plan = ask(&["notes.other"], false).await?;
    ensure!(
        plan.remarks.join("\n").contains("views that read these"),
        "{:?}",
        plan.remarks
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn triggers_come_back_as_they_were() -> Result<()> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY, n INT)",
            "CREATE TABLE d.log (id INT PRIMARY KEY AUTO_INCREMENT, w TEXT)",
            "CREATE TRIGGER d.a BEFORE INSERT ON d.t FOR EACH ROW SET NEW.n = COALESCE(NEW.n, 0) + 1",
            "CREATE TRIGGER d.gone AFTER INSERT ON d.t FOR EACH ROW INSERT INTO d.log (w) VALUES ('x')",
        ],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    exec_all(
        &source,
        &[
            "INSERT INTO d.t VALUES (1, 5)",
            "DROP TRIGGER d.gone",
            "USE d",
            "SET SESSION sql_mode = 'ANSI_QUOTES'",
            "CREATE TRIGGER \"late one\" AFTER INSERT ON t FOR EACH ROW INSERT INTO log (w) VALUES ('late')",
            "INSERT INTO d.t VALUES (2, 6)",
        ],
    )
    .await?;
    stream_once(&archive.repository, &source).await?;
    let shown = "SELECT CONCAT(TRIGGER_NAME, ' ', ACTION_TIMING, ' ', EVENT_OBJECT_TABLE, ' ', \
                 ACTION_STATEMENT, ' ', SQL_MODE, ' ', DEFINER) FROM information_schema.TRIGGERS \
                 WHERE TRIGGER_SCHEMA = 'd' ORDER BY 1";
    let expected: Vec<String> = source.query(shown).await?;
    assert_eq!(expected.len(), 2);
    let before = looks(&source, "d", &["t", "log"]).await?;
    exec_all(&source, &["DROP TABLE d.t", "DROP TABLE d.log"]).await?;
    let report = bring_back(&archive, tables(Target::Latest, &source, &["d.t", "d.log"])).await?;
    assert_eq!(report.notes, Vec::<String>::new());
    assert_eq!(looks(&source, "d", &["t", "log"]).await?, before);
    assert_eq!(source.query::<String>(shown).await?, expected);
    // Into another schema they would have other names: left out, and said.
    let request = into(Target::Latest, &source, &["d.t"], "before");
    let report = bring_back(&archive, request).await?;
    let notes = report.notes.join("\n");
    ensure!(
        notes.contains("d.a") && notes.contains("d.late one"),
        "{notes}"
    );
    assert_eq!(source.query::<String>(shown).await?, expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_comes_back_beside_writers_and_its_replica_gets_it_too() -> Result<()> {
    let set = Replicas::start(1).await?;
    let (source, replica) = (set.source(), &set.replicas()[0]);
    exec_all(
        source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY, v INT)",
            "INSERT INTO d.t VALUES (1, 1), (2, 2)",
            "CREATE TABLE d.busy (id INT PRIMARY KEY AUTO_INCREMENT, at DATETIME(6))",
        ],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(source)], &on_primary()).await?;
    exec_all(source, &["UPDATE d.t SET v = 9 WHERE id = 2"]).await?;
    let before = looks(source, "d", &["t"]).await?;
    let dropped = only(&gtids_of(source, &["DROP TABLE d.t"]).await?);
    stream_once(&archive.repository, source).await?;
    let target = Target::BeforeGtid { gtid: dropped };
    // On the replica it would be nowhere else.
    let error = plan(&archive, tables(target.clone(), replica, &["d.t"]))
        .await
        .expect_err("a replica");
    ensure!(error.to_string().contains("replica of"), "{error}");

    let stop = tokio_util::sync::CancellationToken::new();
    let writing = {
        let (stop, url) = (stop.clone(), source.url());
        tokio::spawn(async move {
            let mut conn = mysql_async::Conn::from_url(&url).await?;
            let mut written = 0_u64;
            while !stop.is_cancelled() {
                use mysql_async::prelude::Queryable as _;
                conn.query_drop("INSERT INTO d.busy (at) VALUES (NOW(6))")
                    .await?;
                written += 1;
            }
            Ok::<_, anyhow::Error>(written)
        })
    };
    let report = bring_back(&archive, tables(target, source, &["d.t"])).await?;
    stop.cancel();
    let written = writing.await??;
    assert_eq!(report.notes, Vec::<String>::new());
    let busy: u64 = source.one("SELECT COUNT(*) FROM d.busy").await?;
    ensure!(
        written > 0 && busy == written,
        "{written} written, {busy} there"
    );
    assert_eq!(looks(source, "d", &["t"]).await?, before);
    let end = source.gtid_executed().await?;
    replica.wait_for_gtids(&end, LIMIT).await?;
    assert_eq!(looks(replica, "d", &["t"]).await?, before);
    let left: u64 = replica
        .one("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE 'quillback%'")
        .await?;
    assert_eq!(left, 0);
    assert_nothing_left(source).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_comes_back_on_the_primary_of_a_group_and_on_no_secondary() -> Result<()> {
    let trio = Trio::start().await?;
    let primary = trio.primary().await?;
    exec_all(
        primary,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY, v INT, KEY by_v (v))",
            "INSERT INTO d.t VALUES (1, 1), (2, 2)",
        ],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(primary)], &on_primary()).await?;
    exec_all(
        primary,
        &["UPDATE d.t SET v = 9", "ALTER TABLE d.t ADD COLUMN w INT"],
    )
    .await?;
    let before = looks(primary, "d", &["t"]).await?;
    let dropped = only(&gtids_of(primary, &["DROP TABLE d.t"]).await?);
    stream_once(&archive.repository, primary).await?;
    let target = Target::BeforeGtid { gtid: dropped };
    let secondary = trio.secondaries().await?[0];
    let error = plan(&archive, tables(target.clone(), secondary, &["d.t"]))
        .await
        .expect_err("a secondary");
    let port = primary.port().to_string();
    ensure!(error.to_string().contains("secondary"), "{error}");
    let hint = format!("{error:?}");
    ensure!(hint.contains(&port), "{hint}");
    let limit = "SET GLOBAL group_replication_transaction_size_limit =";
    exec_all(primary, &[&format!("{limit} 2")]).await?;
    let error = plan(&archive, tables(target.clone(), primary, &["d.t"])).await;
    exec_all(primary, &[&format!("{limit} 150000000")]).await?;
    let error = error.expect_err("more than a transaction of the group takes");
    ensure!(
        error.to_string().contains("more than the group takes"),
        "{error}"
    );
    let report = bring_back(&archive, tables(target, primary, &["d.t"])).await?;
    assert_eq!(report.notes, Vec::<String>::new());
    assert_eq!(looks(primary, "d", &["t"]).await?, before);
    until("the group to have it", LIMIT, async || {
        let there: u64 = secondary
            .one("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'd'")
            .await?;
        Ok((there == 1).then_some(()))
    })
    .await?;
    assert_eq!(looks(secondary, "d", &["t"]).await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_on_rows_are_refused_if_they_may_concern_the_tables() -> Result<()> {
    let (source, archive) = notes(ServerOptions::default()).await?;
    let bad = only(
        &gtids_of(
            &source,
            &[
                "SET SESSION binlog_format = STATEMENT",
                "UPDATE notes.pages SET body = 'by statement' WHERE id = 1",
            ],
        )
        .await?,
    );
    stream_once(&archive.repository, &source).await?;
    let server = Server::start().await?;
    let asked = || tables(Target::Latest, &server, &["notes.pages"]);
    let error = plan(&archive, asked()).await.expect_err("a statement");
    assert_eq!(error.class(), Class::Refused);
    ensure!(error.to_string().contains(&bad.to_string()), "{error}");
    // Other tables, and the state before it, are as good as ever; so is all but that transaction.
    plan(&archive, tables(Target::Latest, &server, &["notes.other"])).await?;
    let before = Target::BeforeGtid { gtid: bad.clone() };
    plan(&archive, tables(before, &server, &["notes.pages"])).await?;
    let mut without = asked();
    without.skip.insert(&bad);
    let report = bring_back(&archive, without).await?;
    ensure!(report.skipped.contains(&bad), "{report:?}");
    let changed: u64 = server
        .one("SELECT COUNT(*) FROM notes.pages WHERE body = 'by statement'")
        .await?;
    assert_eq!(changed, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_will_not_do_is_told_with_every_reason() -> Result<()> {
    let (source, archive) = notes(ServerOptions::default()).await?;
    stream_once(&archive.repository, &source).await?;
    let options = ServerOptions::default()
        .line("binlog_format = MIXED")
        .line("read_only = ON");
    let server = Server::start_with(options).await?;
    exec_all(
        &server,
        &["CREATE DATABASE notes", "CREATE TABLE notes.pages (id INT)"],
    )
    .await?;
    let error = plan(&archive, tables(Target::Latest, &server, &["notes.pages"]))
        .await
        .expect_err("it will not do");
    for what in ["binlog_format", "read-only", "notes.pages already"] {
        ensure!(error.to_string().contains(what), "{what}: {error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_may_die_as_well() -> Result<()> {
    let (source, archive) = notes(ServerOptions::default()).await?;
    stream_once(&archive.repository, &source).await?;
    let expected = looks(&source, "notes", &["pages", "other"]).await?;
    let server = Server::start().await?;
    let ask = ["--tables", "notes.*"];
    let first = [&["--until", "latest"], &ask[..]].concat();
    let again = [&["--resume"], &ask[..]].concat();
    for point in ["load-sent", "replaying", "parts-statement-done"] {
        let armed = [("QUILLBACK_FAIL_POINT", point)];
        let words = if point == "load-sent" { &first } else { &again };
        let said = program::restore(&archive, &server, words, &armed).await?;
        said.aborted()?;
        server.kill9().await?;
        server.start_again().await?;
    }
    let said = program::restore(&archive, &server, &again, &[]).await?;
    said.ended(&[0])?;
    assert_eq!(
        looks(&server, "notes", &["pages", "other"]).await?,
        expected
    );
    assert_nothing_left(&server).await
}
