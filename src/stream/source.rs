//! Real servers as sources of a stream.

mod dump;
mod settings;

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use uuid::Uuid;

use super::beside::Beside;
use super::cutter::SourcePosition;
use super::error::StreamError;
use super::lookout::{INTERVAL, Lookout};
use super::options::FollowFrom;
use super::privileges;
use super::upstream::{Answer, Dump, DumpWish, History, Mark, Source, SourceInfo, Upstream};
use crate::gtid::GtidSet;
use crate::mysql::discover::{discover, login_for};
use crate::mysql::facts::{
    ServerFacts, binlog_status, group_name, gtid_executed, gtid_purged, pending, server_time,
};
use crate::mysql::host_port::HostPort;
use crate::mysql::primary::{FoundPrimary, PrimaryError, find_settled_primary};
use crate::mysql::purge::{self, PurgeFacts, Survey};
use crate::mysql::replicas::registered_dumps;
use crate::mysql::role::{RoleNow, role_now};
use crate::mysql::server_url::ServerUrl;
use crate::mysql::session::Session;
use crate::mysql::topology::TopologyKind;
use crate::mysql::version::ServerVersion;
use crate::mysql::wire::{BinlogDump, DumpOptions, WireConnection, WireOptions};
use dump::WireDump;
use settings::{check_settings, semi_sync_warnings};

/// A source that does not answer a small question for so long is gone.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);
/// A source that took so long to answer may have been given up by the others meanwhile.
const SUSPICIOUS: Duration = Duration::from_secs(3);
/// How often the source says that there is nothing new, and so notices that we are gone.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A source that says nothing for so long is gone.
pub(super) const SILENCE: Duration = Duration::from_secs(15);

/// Knows every server that was named or met.
#[derive(Debug)]
pub struct Servers {
    servers: Vec<ServerUrl>,
    from: FollowFrom,
    semi_sync: bool,
}

impl Servers {
    /// The servers that were named.
    #[must_use]
    pub const fn new(servers: Vec<ServerUrl>, from: FollowFrom, semi_sync: bool) -> Self {
        Self {
            servers,
            from,
            semi_sync,
        }
    }

    fn login(&self, address: &HostPort) -> ServerUrl {
        login_for(address, &self.servers[0], &self.servers)
    }

    fn meet<'a>(&mut self, addresses: impl Iterator<Item = &'a HostPort>) {
        for address in addresses {
            if !self.servers.iter().any(|url| url.address() == *address) {
                let url = self.login(address);
                self.servers.push(url);
            }
        }
    }

    async fn connect(
        &self,
        address: &HostPort,
        kind: TopologyKind,
        wanted: Wanted,
        mut warnings: Vec<String>,
    ) -> Result<Box<dyn Source>, StreamError> {
        let url = self.login(address);
        let mut session = Session::connect(&url).await?;
        // The dump goes on meanwhile, but a server that hangs must show.
        session.set_timeout(Some(QUESTION_LIMIT));
        warnings.extend(privileges::check(&mut session, address).await?);
        let facts = ServerFacts::load(&mut session).await?;
        check_settings(&facts, kind)?;
        if facts.may_lose_sent_transactions() {
            warnings.push(format!(
                "{address} runs with sync_binlog={}: after a crash it may have lost transactions \
                 that the archive holds",
                facts.sync_binlog
            ));
        }
        if self.semi_sync {
            warnings.extend(semi_sync_warnings(&mut session, address).await?);
        }
        let lookout = |wait| Lookout::new(self.servers.clone(), wait);
        let watch = match &wanted {
            // While nobody writes, the others must confirm that nobody else does either.
            Wanted::Writable => Watch::All(lookout(Duration::ZERO)),
            Wanted::Secondary => Watch::Primary(Box::new(Beside::new(lookout(Duration::ZERO)))),
            // A group's members agree on who is in it.
            Wanted::Primary if kind != TopologyKind::GroupReplication => {
                Watch::All(lookout(INTERVAL))
            }
            Wanted::Primary | Wanted::Until(_) => Watch::Nobody,
        };
        Ok(Box::new(Server {
            info: SourceInfo {
                name: address.to_string(),
                uuid: facts.server_uuid,
                group: match kind.is_group() {
                    true => group_name(&mut session).await?,
                    false => None,
                },
                version: facts.version.to_string(),
                topology: kind.to_string(),
                may_lag: kind != TopologyKind::Single,
                warnings,
                until: match &wanted {
                    Wanted::Until(missing) => Some(missing.clone()),
                    _ => None,
                },
            },
            url,
            version: facts.version,
            kind,
            wanted,
            session,
            watch,
            warned: false,
        }))
    }
}

impl Servers {
    async fn find_source(&mut self) -> Result<Box<dyn Source>, StreamError> {
        match self.from {
            FollowFrom::Primary => {
                let found = find_settled_primary(&self.servers).await?;
                self.meet(found.met());
                let mut warnings = found.topology.notes.clone();
                let wanted = if found.read_only {
                    warnings.push(format!(
                        "{} takes no writes at present",
                        found.member.address
                    ));
                    Wanted::Writable
                } else {
                    Wanted::Primary
                };
                self.connect(&found.member.address, found.topology.kind, wanted, warnings)
                    .await
            }
            FollowFrom::Secondary => {
                let topology = discover(&self.servers).await?;
                self.meet(topology.members.iter().map(|member| &member.address));
                let choice =
                    topology
                        .choose_secondary(false)
                        .map_err(|error| StreamError::NoPrimary {
                            reason: error.to_string(),
                        })?;
                let address = choice.member.address;
                self.connect(&address, topology.kind, Wanted::Secondary, topology.notes)
                    .await
            }
        }
    }

    async fn ask_for_dump(&self, replica_uuid: Uuid) -> Result<bool, StreamError> {
        let answers = join_all(self.servers.iter().map(async |url| {
            let mut session = Session::connect(url).await?;
            session.set_timeout(Some(QUESTION_LIMIT));
            let facts = ServerFacts::load(&mut session).await?;
            let dumps = registered_dumps(&mut session, &facts.version).await?;
            session.close().await;
            Ok::<_, StreamError>(dumps.iter().any(|dump| dump.replica_uuid == replica_uuid))
        }))
        .await;
        let mut failure = None;
        let mut answered = false;
        for answer in answers {
            match answer {
                Ok(true) => return Ok(true),
                Ok(false) => answered = true,
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if !answered => Err(error),
            _ => Ok(false),
        }
    }
}

#[async_trait::async_trait]
impl Upstream for Servers {
    async fn find(&mut self) -> Result<Box<dyn Source>, StreamError> {
        match self.find_source().await {
            Err(error) => Err(privileges::explain(error, &self.servers).await),
            found => found,
        }
    }

    async fn find_that(
        &mut self,
        wanted: &(dyn for<'i> Fn(&'i SourceInfo) -> bool + Sync),
    ) -> Result<Option<Box<dyn Source>>, StreamError> {
        for url in self.servers.clone() {
            // With the servers that belong to it: what others are now is not asked any more.
            let mut alone = Self::new(vec![url], self.from, self.semi_sync);
            match alone.find_source().await {
                Ok(source) if wanted(source.info()) => return Ok(Some(source)),
                // One that cannot be followed is none to turn to.
                _ => {}
            }
        }
        Ok(None)
    }

    async fn find_holder(
        &mut self,
        missing: &GtidSet,
        held: &GtidSet,
        source: &mut dyn Source,
    ) -> Result<Option<Box<dyn Source>>, StreamError> {
        let survey = Survey::of(&self.servers).await;
        // Asked for last, so that what is on its way to the others is no stranger.
        let executed = source.history().await?.executed;
        let found = survey.holders(purge::Wanted {
            missing,
            held,
            executed: &executed,
        });
        let Some(address) = found.holders.first() else {
            return Ok(None);
        };
        let note = format!("{address} still has what the source has purged: {missing:#}");
        let source = self
            .connect(
                address,
                TopologyKind::Single,
                Wanted::Until(missing.clone()),
                vec![note],
            )
            .await?;
        Ok(Some(source))
    }

    async fn is_registered(&mut self, replica_uuid: Uuid) -> Result<bool, StreamError> {
        match self.ask_for_dump(replica_uuid).await {
            Err(error) => Err(privileges::explain(error, &self.servers).await),
            found => found,
        }
    }
}

/// What a server must be as long as it is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Primary,
    /// The primary, that should become writable.
    Writable,
    Secondary,
    /// It is followed for what it still has.
    Until(GtidSet),
}

impl Wanted {
    fn fits(&self, role: &RoleNow) -> bool {
        match self {
            Self::Primary => role.is_primary(),
            Self::Writable => role.is_primary() || *role == RoleNow::ReadOnly,
            Self::Secondary => role.is_secondary(),
            Self::Until(_) => true,
        }
    }
}

#[derive(Debug)]
struct Server {
    info: SourceInfo,
    url: ServerUrl,
    version: ServerVersion,
    kind: TopologyKind,
    wanted: Wanted,
    /// For questions beside the dump.
    session: Session,
    watch: Watch,
    /// Whether it was said that nobody knows how far the archive is complete.
    warned: bool,
}

/// Who is asked besides the server itself.
#[derive(Debug)]
enum Watch {
    /// Nobody: the server knows, or it does not matter.
    Nobody,
    /// All servers, whether it is the one to follow.
    All(Lookout),
    /// The primary, how far it has come.
    Primary(Box<Beside>),
}

#[async_trait::async_trait]
impl Source for Server {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    async fn history(&mut self) -> Result<History, StreamError> {
        // One after the other: what moves on meanwhile shows in the next.
        let pending = pending(&mut self.session).await?;
        let executed = gtid_executed(&mut self.session).await?;
        let purged = gtid_purged(&mut self.session).await?;
        Ok(History {
            pending,
            executed,
            purged,
        })
    }

    async fn dump(&mut self, wish: DumpWish, have: &GtidSet) -> Result<Box<dyn Dump>, StreamError> {
        let options = WireOptions {
            program_name: "quillback stream".to_owned(),
            // The start of a dump has no heartbeats that would be missed.
            read_timeout: Some(SILENCE),
            ..WireOptions::default()
        };
        let mut connection = WireConnection::connect(&self.url, &options).await?;
        self.require_same(&mut connection).await?;
        let options = DumpOptions {
            // Above the ids that people give; what keeps dumps apart is the UUID.
            server_id: 0xF000_0000 | (wish.replica_uuid.as_fields().0 & 0x0FFF_FFFF),
            replica_uuid: wish.replica_uuid,
            heartbeat: HEARTBEAT,
            semi_sync: wish.semi_sync,
        };
        let dump = BinlogDump::start(connection, &options, have).await?;
        Ok(Box::new(WireDump(dump)))
    }

    async fn ask(&mut self, purge: bool) -> Result<Answer, StreamError> {
        let asked = Instant::now();
        let mark = match self.wanted {
            Wanted::Until(_) => None,
            _ => Some(self.mark().await?),
        };
        // Asked last: if it is still the right one, no other has committed anything by that time.
        let role = role_now(&mut self.session, &self.version, self.kind).await?;
        let mut answer = Answer {
            unfit: (!self.wanted.fits(&role)).then(|| format!("{} is now {role}", self.info.name)),
            mark: None,
            warning: None,
            purge: None,
        };
        if answer.unfit.is_some() {
            return Ok(answer);
        }
        if let Some(mut mark) = mark {
            let seen = self.look(asked.elapsed(), &role).await;
            answer.unfit = self.judge(&seen)?;
            let reason = self.complete(&mut mark, &role, &seen).await;
            answer.mark = Some(mark);
            if !self.warned {
                answer.warning = reason.as_ref().map(|reason| {
                    format!("how far the archive is complete is not known at present: {reason}")
                });
            }
            self.warned = reason.is_some();
        }
        if purge {
            answer.purge = Some(PurgeFacts::load(&mut self.session).await?);
        }
        Ok(answer)
    }
}

impl Server {
    /// Fails if a connection has led to another server than the one that was checked.
    async fn require_same(&self, connection: &mut WireConnection) -> Result<(), StreamError> {
        let found = connection.query_text("SELECT @@GLOBAL.server_uuid").await?;
        let found = found.unwrap_or_default();
        if Uuid::try_parse(&found) == Ok(self.info.uuid) {
            return Ok(());
        }
        Err(StreamError::Moved {
            server: self.info.name.clone(),
            expected: self.info.uuid,
            found,
        })
    }

    /// How far the server has come, by its own word.
    async fn mark(&mut self) -> Result<Mark, StreamError> {
        let time = server_time(&mut self.session).await?;
        let status = binlog_status(&mut self.session, &self.version)
            .await?
            .ok_or_else(|| StreamError::Unsuitable {
                server: self.info.name.clone(),
                reason: "it writes no binlog".to_owned(),
            })?;
        Ok(Mark {
            end: SourcePosition {
                file: status.file,
                position: status.position,
            },
            complete_to: Some(time),
            executed: None,
        })
    }

    /// What the servers say of who takes the writes, if it was time to ask them. While this one is
    /// the primary by its own word they are asked beside it, unless it has answered slowly: then
    /// it may have been given up meanwhile.
    async fn look(
        &mut self,
        took: Duration,
        role: &RoleNow,
    ) -> Option<Result<FoundPrimary, PrimaryError>> {
        let Watch::All(lookout) = &mut self.watch else {
            return None;
        };
        if took > SUSPICIOUS {
            lookout.hurry(Duration::ZERO);
        } else if *role == RoleNow::Primary {
            return lookout.look_aside().await;
        }
        if lookout.is_due() {
            Some(lookout.look().await)
        } else {
            None
        }
    }

    /// Why this server is not the one to follow, by what was seen.
    ///
    /// # Errors
    ///
    /// Two take writes: to go on with either would fork the history.
    fn judge(
        &self,
        seen: &Option<Result<FoundPrimary, PrimaryError>>,
    ) -> Result<Option<String>, StreamError> {
        match seen {
            Some(Ok(found)) if found.member.uuid != Some(self.info.uuid) => Ok(Some(format!(
                "{} takes the writes now, and {} does not know it",
                found.member.address, self.info.name
            ))),
            Some(Err(PrimaryError::SplitBrain { servers })) => Err(PrimaryError::SplitBrain {
                servers: servers.clone(),
            }
            .into()),
            // That others cannot be asked is no reason to leave a server that works.
            _ => Ok(None),
        }
    }

    /// Takes back what the mark claims, or adds to it, where the server's own word is not enough;
    /// and says why nothing is claimed.
    async fn complete(
        &mut self,
        mark: &mut Mark,
        role: &RoleNow,
        seen: &Option<Result<FoundPrimary, PrimaryError>>,
    ) -> Option<String> {
        match &mut self.watch {
            Watch::Primary(beside) => match beside.ask(QUESTION_LIMIT).await {
                Ok(word) => {
                    // Its transactions carry the source's commit times, by which they are found.
                    mark.complete_to = mark.complete_to.min(Some(word.time));
                    mark.executed = Some(word.executed);
                    None
                }
                Err(reason) => {
                    mark.complete_to = None;
                    Some(reason)
                }
            },
            Watch::Nobody | Watch::All(_) => {
                // Who takes no writes may have been given up: the others, asked after the time
                // was taken, must know of nobody else.
                if *role != RoleNow::Primary && !matches!(seen, Some(Ok(_))) {
                    mark.complete_to = None;
                }
                None
            }
        }
    }
}
