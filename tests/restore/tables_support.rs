//! What the tests of tables alone share: asking for them, and what is true of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use quillback::mysql::schema::Pattern;
use quillback::restore::parts::{PartsPlan, PartsReport, PartsRequest, prepare_parts, run_parts};
use quillback::restore::target::Target;
use quillback::restore::{self, RestoreError, RestoreOptions, Verify};
use quillback_harness::{Server, checksum};
use tokio_util::sync::CancellationToken;

use crate::support::{Archive, assert_settings, exec_all, request, restore, url};

/// A request for tables.
pub(crate) fn tables(target: Target, server: &Server, patterns: &[&str]) -> PartsRequest {
    let patterns = patterns.iter().map(|text| text.parse::<Pattern>());
    PartsRequest {
        target: Some(target),
        server: url(server),
        snapshot: None,
        branch: None,
        skip: quillback::gtid::GtidSet::new(),
        tables: patterns.map(|parsed| parsed.expect("a pattern")).collect(),
        into: None,
        resume: false,
    }
}

/// The same, into another schema.
pub(crate) fn into(
    target: Target,
    server: &Server,
    patterns: &[&str],
    schema: &str,
) -> PartsRequest {
    PartsRequest {
        into: Some(schema.to_owned()),
        ..tables(target, server, patterns)
    }
}

/// Plans and restores, with checksums of what the replay leaves alone.
pub(crate) async fn bring_back(
    archive: &Archive,
    request: PartsRequest,
) -> Result<PartsReport, RestoreError> {
    let prepared = prepare_parts(archive.repository.clone(), request).await?;
    let options = RestoreOptions {
        verify: Verify::Checksums,
        ..RestoreOptions::default()
    };
    let observer: restore::Observer = Arc::new(|_| {});
    run_parts(prepared, options, observer, CancellationToken::new()).await
}

/// The plan alone.
pub(crate) async fn plan(
    archive: &Archive,
    request: PartsRequest,
) -> Result<PartsPlan, RestoreError> {
    Ok(prepare_parts(archive.repository.clone(), request)
        .await?
        .plan)
}

/// A table as it can be compared: its rows and its definition.
pub(crate) type Looks = BTreeMap<String, String>;

/// What tables look like, by their names without the schema, if they are in `schema`.
pub(crate) async fn looks(server: &Server, schema: &str, names: &[&str]) -> Result<Looks> {
    let mut conn = server.conn().await?;
    let sums = checksum::all(&mut conn).await?;
    conn.disconnect().await?;
    let mut found = Looks::new();
    for name in names {
        let whole = format!("{schema}.{name}");
        let sum = sums
            .iter()
            .find(|(table, _)| table.to_string() == whole)
            .with_context(|| format!("{whole} is not there"))?;
        let (_, create): (String, String) =
            server.one(&format!("SHOW CREATE TABLE {whole}")).await?;
        // The next number is not what a row has.
        let create: Vec<&str> = create
            .split(' ')
            .filter(|word| !word.starts_with("AUTO_INCREMENT="))
            .collect();
        found.insert(
            (*name).to_owned(),
            format!("{:?} {}", sum.1, create.join(" ")),
        );
    }
    Ok(found)
}

/// The truth: the tables of a whole restore to the same target.
pub(crate) async fn truth(
    archive: &Archive,
    target: Target,
    schema: &str,
    names: &[&str],
) -> Result<Looks> {
    let server = Server::start().await?;
    let report = restore(&archive.repository, request(target, &server)).await?;
    let opening: Vec<&str> = report.open_with.iter().map(String::as_str).collect();
    exec_all(&server, &opening).await?;
    looks(&server, schema, names).await
}

/// Fails if a restore of tables left anything but the tables.
pub(crate) async fn assert_nothing_left(server: &Server) -> Result<()> {
    let schemas: Vec<String> = server
        .query("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE 'quillback%'")
        .await?;
    ensure!(schemas.is_empty(), "left: {schemas:?}");
    assert_settings(server).await
}
