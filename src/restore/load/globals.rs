//! Settings of the whole server that a load changes, and puts back as it found them.
//!
//! What a setting was is written down before it is changed: whoever goes on after a kill knows what
//! to put back. The event scheduler is the exception: it stays quiet until the caller says that the
//! restore is over, for events on half a database do harm.

use crate::archive::manifest::Manifest;
use crate::mysql::{MysqlError, Session, TargetFacts};

use super::LoadOptions;
use super::steps::{Step, Steps};

/// What a server may be sent at most: a row of the source may be as large.
const PACKET_BYTES: u64 = 1 << 30;
/// Those with a name of their own.
const VARIABLES: [&str; 4] = [
    EVENTS,
    "local_infile",
    "max_allowed_packet",
    "innodb_flush_log_at_trx_commit",
];
/// The event scheduler's name.
const EVENTS: &str = "event_scheduler";
/// The redo log has statements instead of a variable.
const REDO: &str = "redo_log";
/// What the server says where the privilege is missing (1227), or where the statement is not known
/// (1064), or where the redo log is being archived (3984).
const NOT_ALLOWED: [u16; 3] = [1227, 1064, 3984];

/// What was changed.
#[derive(Debug, Default)]
pub(super) struct Globals {
    /// In the order of changing.
    before: Vec<(String, String)>,
    /// What the event scheduler was.
    pub(super) event_scheduler: String,
}

impl Globals {
    /// Keeps events from running, opens the door for LOAD DATA LOCAL and rows of any size, and makes
    /// commits cheap: what a crash of the server could lose is loaded again.
    pub(super) async fn change(
        &mut self,
        session: &mut Session,
        facts: &TargetFacts,
        manifest: &Manifest,
        options: &LoadOptions,
        steps: &Steps,
    ) -> Result<(), MysqlError> {
        self.know(facts, steps);
        let server = &facts.server;
        let on_off = |on: bool| if on { "ON" } else { "OFF" }.to_owned();
        let flush = server.innodb_flush_log_at_trx_commit;
        let packet = server.max_allowed_packet;
        for (name, found, wanted) in [
            (
                EVENTS,
                server.event_scheduler.clone(),
                // DISABLED cannot be changed, and is as quiet.
                (server.event_scheduler == "ON").then(|| "OFF".to_owned()),
            ),
            (
                "local_infile",
                on_off(server.local_infile),
                (!server.local_infile).then(|| "ON".to_owned()),
            ),
            (
                "max_allowed_packet",
                packet.to_string(),
                (packet < PACKET_BYTES).then(|| PACKET_BYTES.to_string()),
            ),
            (
                "innodb_flush_log_at_trx_commit",
                flush.to_string(),
                (flush != 0).then(|| "0".to_owned()),
            ),
        ] {
            let Some(wanted) = wanted else {
                continue;
            };
            self.note(session, steps, name, &found).await?;
            session.execute(statement(name, &wanted)).await?;
        }
        let pays = manifest.totals.raw_bytes >= options.redo_log_off_from;
        if pays && !options.keep_redo_log && redo_is_on(session).await? {
            self.note(session, steps, REDO, "ON").await?;
            match session.execute(statement(REDO, "OFF")).await {
                Err(error) if error.code().is_some_and(|code| NOT_ALLOWED.contains(&code)) => {
                    tracing::info!(
                        error = &error as &dyn std::error::Error,
                        "the redo log stays on during the load"
                    );
                    self.forget(session, steps, REDO).await?;
                }
                other => {
                    other?;
                }
            }
        }
        Ok(())
    }

    /// Takes over what an earlier run found before it changed anything.
    pub(super) fn know(&mut self, facts: &TargetFacts, steps: &Steps) {
        self.before = known(steps);
        let found = &facts.server.event_scheduler;
        self.event_scheduler = self.known(EVENTS).unwrap_or(found).to_owned();
    }

    /// Whether the redo log is off for this load's sake.
    pub(super) fn redo_is_off(&self) -> bool {
        self.known(REDO).is_some()
    }

    /// Puts the redo log back on, once nothing more is loaded in bulk.
    pub(super) async fn redo_on(
        &mut self,
        session: &mut Session,
        steps: &Steps,
    ) -> Result<(), MysqlError> {
        if self.redo_is_off() {
            if !redo_is_on(session).await? {
                session.execute(statement(REDO, "ON")).await?;
            }
            self.forget(session, steps, REDO).await?;
        }
        Ok(())
    }

    /// Puts everything back but the event scheduler, at the end of a load.
    pub(super) async fn put_back(
        &mut self,
        session: &mut Session,
        steps: &Steps,
    ) -> Result<(), MysqlError> {
        self.redo_on(session, steps).await?;
        for (name, value) in self.before.clone() {
            if name != EVENTS {
                session.execute(statement(&name, &value)).await?;
                self.forget(session, steps, &name).await?;
            }
        }
        Ok(())
    }

    /// Puts everything back after a failure; what is written down stays so, for whoever goes on. The
    /// event scheduler stays off if somebody can know that it was on.
    pub(super) async fn give_up(
        &self,
        session: &mut Session,
        steps: &Steps,
    ) -> Result<(), MysqlError> {
        for (name, value) in &self.before {
            if name != EVENTS || !steps.is_kept() {
                back(session, name, value).await?;
            }
        }
        Ok(())
    }

    fn known(&self, name: &str) -> Option<&str> {
        let mut before = self.before.iter();
        let (_, value) = before.find(|(known, _)| known == name)?;
        Some(value)
    }

    async fn note(
        &mut self,
        session: &mut Session,
        steps: &Steps,
        name: &str,
        value: &str,
    ) -> Result<(), MysqlError> {
        if self.known(name).is_none() {
            steps.mark(session, &Step::before(name, value)).await?;
            self.before.push((name.to_owned(), value.to_owned()));
        }
        Ok(())
    }

    async fn forget(
        &mut self,
        session: &mut Session,
        steps: &Steps,
        name: &str,
    ) -> Result<(), MysqlError> {
        if let Some(at) = self.before.iter().position(|(known, _)| known == name) {
            let (_, value) = self.before.remove(at);
            steps
                .take_back(session, &Step::before(name, &value))
                .await?;
        }
        Ok(())
    }
}

/// Puts every setting back that the target's journal says was changed, the event scheduler among
/// them: for whoever gives an unfinished restore up. The journal's table must be there.
///
/// # Errors
///
/// What a statement fails with.
pub async fn put_back(session: &mut Session) -> Result<(), MysqlError> {
    for (name, value) in known(&Steps::open(session).await?) {
        back(session, &name, &value).await?;
    }
    Ok(())
}

/// What the journal says that was changed; what no load writes there is passed over.
fn known(steps: &Steps) -> Vec<(String, String)> {
    let is_word = |value: &str| value.bytes().all(|b| b.is_ascii_alphanumeric());
    let mut before = steps.befores();
    before.retain(|(name, value)| {
        (name == REDO || VARIABLES.contains(&name.as_str())) && !value.is_empty() && is_word(value)
    });
    before
}

async fn back(session: &mut Session, name: &str, value: &str) -> Result<(), MysqlError> {
    if name != REDO || !redo_is_on(session).await? {
        session.execute(statement(name, value)).await?;
    }
    Ok(())
}

fn statement(name: &str, value: &str) -> String {
    match (name, value) {
        (REDO, "OFF") => "ALTER INSTANCE DISABLE INNODB REDO_LOG".to_owned(),
        (REDO, _) => "ALTER INSTANCE ENABLE INNODB REDO_LOG".to_owned(),
        _ => format!("SET GLOBAL {name} = {value}"),
    }
}

/// Whether changes are logged; a server that does not tell (before 8.0.21) always does, and takes no
/// statement that changes it.
async fn redo_is_on(session: &mut Session) -> Result<bool, MysqlError> {
    let row: Option<(String, String)> = session
        .query_first("SHOW GLOBAL STATUS LIKE 'Innodb_redo_log_enabled'")
        .await?;
    Ok(row.is_none_or(|(_, value)| value == "ON"))
}
