//! From a request to a plan: asks archive and server, changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::checks::{self, PartsState, Wanted};
use super::choose::{Chosen, Held, listed};
use super::error::{Cause, PartsError};
use super::inexact;
use super::journal::{PartsJournal, PartsRecord, PlacedTable};
use super::report::{PartsPlan, PartsRequest, PlannedTable};
use super::scan::{Log, Logged, Touched};
use crate::archive::history::{History, Member};
use crate::archive::manifest::{Manifest, ScriptKind};
use crate::archive::repository::Repository;
use crate::archive::script::Script;
use crate::clock::{Clock as _, SystemClock};
use crate::error::Class;
use crate::gtid::GtidSet;
use crate::mysql::ddl::Dialect;
use crate::mysql::ddl::statement::{NameCase, Statement, StatementKind, TableName};
use crate::mysql::server_url::ServerUrl;
use crate::mysql::session::Session;
use crate::mysql::version::ServerVersion;
use crate::observe::phase::PhaseClock;
use crate::restore::checks::Reason;
use crate::restore::error::RestoreError;
use crate::restore::estimate::Work;
use crate::restore::load;
use crate::restore::plan::PlanError;
use crate::restore::prepare::asked::Asked;
use crate::restore::prepare::{Archive, rates};
use crate::restore::skipped;

/// A plan with what the run needs besides.
#[derive(Debug)]
pub struct PreparedParts {
    /// The plan, as it is shown.
    pub plan: PartsPlan,
    pub(super) manifest: Manifest,
    pub(super) scripts: Vec<(ScriptKind, Script)>,
    pub(super) repository: Repository,
    pub(super) history: History,
    /// The transactions behind the snapshot.
    pub(super) set: GtidSet,
    pub(super) members: Vec<Member>,
    /// Those of the segments that hold any that concern the tables.
    pub(super) wanted: GtidSet,
    pub(super) server: ServerUrl,
    /// The server's version.
    pub(super) version: ServerVersion,
    pub(super) chosen: Chosen,
    pub(super) case: NameCase,
    pub(super) record: PartsRecord,
    pub(super) constraints: Vec<(String, String)>,
    pub(super) keyed: Vec<(TableName, bool)>,
    /// The tables whose rows are the snapshot's.
    pub(super) untouched: BTreeSet<TableName>,
    pub(super) journal: Option<PartsJournal>,
    pub(super) clock: PhaseClock,
}

impl PreparedParts {
    pub(super) fn wanted<'a>(&'a self, journal: Option<&'a PartsJournal>) -> Wanted<'a> {
        Wanted {
            manifest: &self.manifest,
            chosen: &self.chosen,
            placed: &self.record.tables,
            constraints: &self.constraints,
            keyed: &self.keyed,
            journal,
        }
    }
}

/// Resolves target and tables, asks the server for its facts and plans. Nothing is changed.
///
/// # Errors
///
/// [`RestoreError`]: all that can be refused is refused here.
pub async fn prepare_parts(
    repository: Repository,
    request: PartsRequest,
) -> Result<PreparedParts, RestoreError> {
    let mut clock = PhaseClock::start();
    let mut session = Session::connect(&request.server).await?;
    let journal = match request.resume {
        true => Some(begun(&mut session, &request).await?),
        false => None,
    };
    let (address, version) = server(&mut session).await?;
    let asked = Asked::of_parts(&request, journal.as_ref())?;
    let archive = Archive::read(&repository, &asked).await?;
    let rates = rates(&repository).await;
    let (cut, way) = match archive.way(&asked.target, &rates).await {
        Ok(found) => found,
        Err(error) => return Err(archive.with_nearest(&asked, &rates, error).await),
    };
    let manifest = way.manifest.clone();
    let scripts = load::parts::scripts(&**repository.storage(), &manifest).await?;
    let case = NameCase::of(manifest.server.lower_case_table_names);
    let held = Held {
        manifest: &manifest,
        scripts: &scripts,
        case,
        version: &version,
    };
    let log = Log {
        repository: &repository,
        history: &archive.history,
        set: &way.set,
    };
    let logged = match way.set.is_empty() {
        true => Vec::new(),
        false => log.statements(&version, case).await?,
    };
    let chosen = Chosen::find(&held, &logged, &request.tables)?;
    let touched = match way.set.is_empty() {
        true => Touched::default(),
        false => log.touched(&chosen.names).await?,
    };
    no_rows_as_statements(&chosen, &logged, &touched, &version, case)?;
    let placed = placed(&chosen, request.into.as_deref())?;
    let mut notes = cut.notes.clone();
    if !way.skipped.is_empty() {
        notes.extend(skipped::consequences(&repository, &archive.history, &way).await?);
    }
    notes.extend(inexact::find(&held, &chosen, &log, &request).await?);
    if request.into.is_some() && !chosen.triggers.is_empty() {
        let names = chosen.triggers.iter().map(|trigger| &trigger.name);
        notes.push(format!(
            "triggers are left out, since the tables go into another schema: {}",
            listed(names)
        ));
    }
    let mut remarks = cut.remarks.clone();
    remarks.extend(inexact::remarks(&held, &chosen));

    let state = PartsState::load(&mut session, &placed).await?;
    session.close().await;
    let (constraints, keyed) = definitions(&held, &chosen, request.into.as_deref());
    let wanted = Wanted {
        manifest: &manifest,
        chosen: &chosen,
        placed: &placed,
        constraints: &constraints,
        keyed: &keyed,
        journal: journal.as_ref(),
    };
    let mut reasons = state.check(&wanted);
    if let Some(journal) = &journal
        && journal.run.server_uuid != state.facts.server.server_uuid
    {
        reasons.push(Reason::refused(
            format!(
                "what was begun on it was begun on the server with the UUID {}, and this one is a \
                 copy of that",
                journal.run.server_uuid
            ),
            format!(
                "to give that up, on the server: {};",
                journal.give_up().join("; ")
            ),
        ));
    }
    if !reasons.is_empty() {
        return Err(PlanError::Server {
            server: address,
            reasons,
        }
        .into());
    }
    remarks.extend(state.remarks(&wanted));
    let tables = planned(&manifest, &chosen, &placed, &touched);
    let sizes = Sizes::of(&manifest, &chosen);
    let mut needed = touched.wanted.clone();
    for gtid in chosen.statements.keys() {
        needed.insert(gtid);
    }
    let needed = needed.intersect(&way.set);
    let facts = &state.facts.server;
    let schemas: BTreeSet<&String> = placed.iter().map(|table| &table.to.database).collect();
    let plan = PartsPlan {
        target: asked.shown.clone(),
        skipped: way.skipped.clone(),
        branch: archive.history.branch,
        snapshot: manifest.id.clone(),
        besides: besides(&chosen),
        rows: sizes.rows,
        raw_bytes: sizes.raw_bytes,
        stored_bytes: sizes.stored_bytes,
        transactions: touched.transactions + chosen.statements.len() as u64,
        segments: touched.segments(),
        segment_bytes: touched.segment_bytes,
        server: address,
        server_uuid: facts.server_uuid,
        server_version: facts.version.to_string(),
        new_schemas: schemas
            .into_iter()
            .filter(|schema| !state.schemas.contains(*schema))
            .cloned()
            .collect(),
        resumes: journal.as_ref().map(|journal| journal.run.started),
        expected_seconds: rates
            .expect(&Work {
                load_bytes: sizes.raw_bytes,
                replay_bytes: touched.segment_bytes,
                transactions: touched.transactions,
            })
            .seconds,
        remarks,
        notes,
        tables,
        cut: cut.clone(),
    };
    let record = match &journal {
        Some(journal) => journal.run.clone(),
        None => PartsRecord {
            archive: repository.identity().archive,
            server_uuid: facts.server_uuid,
            target: asked.shown.clone(),
            cut: cut.set.clone(),
            skip: asked.skip.clone(),
            branch: archive.history.branch,
            snapshot: manifest.id.clone(),
            patterns: request.tables.clone(),
            into: request.into.clone(),
            tables: placed,
            staging: chosen.schemas.clone(),
            local_infile_was_off: !facts.local_infile,
            quillback: env!("CARGO_PKG_VERSION").to_owned(),
            started: SystemClock.now(),
        },
    };
    let untouched = untouched(&held, &chosen, &touched);
    let (set, members) = (way.set.clone(), way.members.clone());
    let history = archive.history.clone();
    clock.end("plan", 0);
    Ok(PreparedParts {
        plan,
        history,
        set,
        members,
        wanted: needed,
        server: request.server.clone(),
        version: facts.version.clone(),
        case,
        record,
        constraints,
        keyed,
        untouched,
        journal,
        clock,
        chosen,
        manifest,
        scripts,
        repository: repository.clone(),
    })
}

/// The address and the version of a server.
async fn server(session: &mut Session) -> Result<(String, ServerVersion), RestoreError> {
    let version: String = session.query_one("SELECT @@GLOBAL.version").await?;
    let address = session.address().to_string();
    Ok((address, ServerVersion::parse(&version)?))
}

/// The journal of what was begun on a server, which must be what is asked.
async fn begun(
    session: &mut Session,
    request: &PartsRequest,
) -> Result<PartsJournal, RestoreError> {
    let refused = |what: String, remedy: String| {
        RestoreError::from(PlanError::Server {
            server: request.server.address().to_string(),
            reasons: vec![Reason {
                what,
                remedy,
                class: Class::Refused,
            }],
        })
    };
    let Some(journal) = PartsJournal::open(session).await? else {
        return Err(refused(
            "there is nothing to go on with: no restore of tables was begun on it, or it came to \
             its end"
                .to_owned(),
            "without --resume".to_owned(),
        ));
    };
    let differs = checks::differences(request, &journal);
    if differs.is_empty() {
        return Ok(journal);
    }
    Err(refused(
        format!(
            "what was begun on it is another restore: {}",
            differs.join(", ")
        ),
        format!(
            "--resume with what was asked then; or, to give that one up, on the server: {};",
            journal.give_up().join("; ")
        ),
    ))
}

/// Fails if rows of the tables may have been changed by a statement that was logged as such.
fn no_rows_as_statements(
    chosen: &Chosen,
    logged: &[Logged],
    touched: &Touched,
    version: &ServerVersion,
    case: NameCase,
) -> Result<(), PartsError> {
    let read: BTreeSet<&crate::gtid::Gtid> = logged.iter().map(|found| &found.cause.gtid).collect();
    let dialect = Dialect::of_scripts(version.clone());
    for (cause, text) in &touched.said {
        if read.contains(&cause.gtid) {
            continue;
        }
        let kind = Statement::parse(text.as_bytes(), None, &dialect, case).map(|found| found.kind);
        if matches!(
            kind,
            Ok(StatementKind::Elsewhere | StatementKind::Frame | StatementKind::Maintain)
        ) {
            continue;
        }
        return Err(PartsError::NotUnderstood {
            cause: Box::new(Cause::clone(cause)),
            tables: listed(chosen.tables.iter().map(|(name, _)| name)),
            reason: "it changes rows and was logged as a statement (the source's binlog_format \
                     was not ROW)"
                .to_owned(),
        });
    }
    Ok(())
}

/// Under which names the tables end up.
fn placed(chosen: &Chosen, into: Option<&str>) -> Result<Vec<PlacedTable>, PartsError> {
    let mut by_name: BTreeMap<TableName, &TableName> = BTreeMap::new();
    let mut placed = Vec::new();
    for (name, _) in &chosen.tables {
        let to = match into {
            Some(into) => TableName::new(into, &name.table),
            None => name.clone(),
        };
        if let Some(first) = by_name.insert(to.clone(), name) {
            return Err(PartsError::SameName {
                into: to.database,
                first: first.clone(),
                second: name.clone(),
            });
        }
        placed.push(PlacedTable {
            table: name.clone(),
            to,
        });
    }
    Ok(placed)
}

/// The names of constraints, with the schema that they go into, and which tables have a primary key.
#[expect(clippy::type_complexity, reason = "two lists that one reading gives")]
fn definitions(
    held: &Held<'_>,
    chosen: &Chosen,
    into: Option<&str>,
) -> (Vec<(String, String)>, Vec<(TableName, bool)>) {
    let (mut constraints, mut keyed) = (Vec::new(), Vec::new());
    let ids: BTreeSet<_> = chosen.tables.iter().map(|(_, id)| *id).collect();
    for (id, name, _) in chosen.lineage.from_snapshot() {
        let Some(create) = held.create(name) else {
            continue;
        };
        let text = String::from_utf8_lossy(create);
        keyed.push((name.clone(), text.contains("\n  PRIMARY KEY (")));
        let at_cut = chosen.lineage.name_at_cut(id).filter(|_| ids.contains(&id));
        let Some(at_cut) = at_cut else {
            continue;
        };
        let schema = into.unwrap_or(&at_cut.database);
        for line in text.lines() {
            let constraint = line.trim_start().strip_prefix("CONSTRAINT `");
            if let Some((constraint, _)) = constraint.and_then(|rest| rest.split_once('`')) {
                constraints.push((schema.to_owned(), constraint.to_owned()));
            }
        }
    }
    (constraints, keyed)
}

/// What is loaded.
#[derive(Debug, Default)]
struct Sizes {
    rows: u64,
    raw_bytes: u64,
    stored_bytes: u64,
}

impl Sizes {
    fn of(manifest: &Manifest, chosen: &Chosen) -> Self {
        let mut sizes = Self::default();
        for (id, name, _) in chosen.lineage.from_snapshot() {
            let mut tables = manifest.tables.iter();
            let is_it = |table: &&crate::archive::manifest::TableEntry| {
                table.database == name.database && table.name == name.table
            };
            let Some(table) = tables.find(is_it).filter(|_| chosen.needs_rows(id)) else {
                continue;
            };
            sizes.rows += table.rows;
            for file in &table.files {
                sizes.raw_bytes += file.file.raw_bytes;
                sizes.stored_bytes += file.file.stored_bytes;
            }
        }
        sizes
    }
}

fn planned(
    manifest: &Manifest,
    chosen: &Chosen,
    placed: &[PlacedTable],
    touched: &Touched,
) -> Vec<PlannedTable> {
    let firsts: BTreeMap<_, _> = chosen
        .lineage
        .from_snapshot()
        .map(|(id, name, _)| (id, name))
        .collect();
    let of = |((name, id), place): (&(TableName, _), &PlacedTable)| {
        let first = firsts.get(id);
        let entry = first.and_then(|first| {
            let mut tables = manifest.tables.iter();
            tables.find(|t| t.database == first.database && t.name == first.table)
        });
        let names: BTreeSet<String> = first
            .into_iter()
            .map(ToString::to_string)
            .chain([name.to_string()])
            .collect();
        let counts = names.iter().filter_map(|name| touched.by_table.get(name));
        PlannedTable {
            place: place.clone(),
            rows: entry.map(|entry| entry.rows),
            raw_bytes: entry.map_or(0, |entry| {
                entry.files.iter().map(|file| file.file.raw_bytes).sum()
            }),
            transactions: counts.sum(),
        }
    };
    chosen.tables.iter().zip(placed).map(of).collect()
}

/// The followed tables that are not chosen.
fn besides(chosen: &Chosen) -> Vec<String> {
    let ids: BTreeSet<_> = chosen.tables.iter().map(|(_, id)| *id).collect();
    let others = chosen
        .lineage
        .followed()
        .filter(|(id, _)| !ids.contains(id));
    let names = others.filter_map(|(id, _)| chosen.lineage.origin(id));
    names.map(|(_, name)| name.to_string()).collect()
}

/// The tables of the snapshot whose rows nothing of the log can have changed.
fn untouched(held: &Held<'_>, chosen: &Chosen, touched: &Touched) -> BTreeSet<TableName> {
    let keys = held.foreign_keys();
    let mut found = BTreeSet::new();
    for (name, id) in &chosen.tables {
        let first = chosen
            .lineage
            .from_snapshot()
            .find(|(known, ..)| known == id);
        let is_same = first.is_some_and(|(_, first, _)| first == name);
        let has_rows = touched.by_table.contains_key(&name.to_string());
        let cascades = keys.get(name).into_iter().flatten();
        let cascades = cascades
            .filter(|key| key.on_delete.changes_rows() || key.on_update.changes_rows())
            .count();
        if is_same && !has_rows && cascades == 0 && !chosen.altered.contains(id) {
            found.insert(name.clone());
        }
    }
    found
}
