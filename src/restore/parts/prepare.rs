//! From a request to a plan: asks archive and server, changes nothing.

use std::collections::BTreeSet;

use super::checks::{self, PartsState, Wanted};
use super::choose::{Chosen, Held, listed};
use super::inexact;
use super::journal::{PartsJournal, PartsRecord};
use super::report::{PartsPlan, PartsRequest};
use super::scan::{Log, Touched};
use super::survey::{Sizes, besides, definitions, placed, planned, untouched};
use crate::archive::history::{History, Member};
use crate::archive::manifest::{Manifest, ScriptKind};
use crate::archive::repository::Repository;
use crate::archive::script::Script;
use crate::clock::{Clock as _, SystemClock};
use crate::error::Class;
use crate::gtid::GtidSet;
use crate::mysql::ddl::statement::{NameCase, TableName};
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
    /// Whether the plan says that triggers cannot be made.
    pub(super) triggers_told: bool,
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
    let said = log.statements(&version, case).await?;
    let chosen = Chosen::find(&held, &said.statements, &request.tables)?;
    log.no_rows_as_statements(&held, &chosen, &said).await?;
    let touched = match way.set.is_empty() {
        true => Touched::default(),
        false => log.touched(&chosen.names).await?,
    };
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
    let triggers_told =
        request.into.is_none() && !chosen.triggers.is_empty() && !state.may_make_triggers();
    if triggers_told {
        let names = chosen.triggers.iter().map(|trigger| &trigger.name);
        notes.push(format!(
            "these triggers cannot be made, since the server writes a binlog and the account lacks \
             SUPER: {}; SET GLOBAL log_bin_trust_function_creators = ON on it, meanwhile, lets \
             them be made",
            listed(names)
        ));
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
        triggers_told,
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
