//! One step of a reseed: what it does, and how a person would do it by hand.
//!
//! The statements that a step prints are made by the same functions that the run calls; only the
//! password of the recovery account is another.

use serde::Serialize;
use uuid::Uuid;

use super::state::Stack;
use crate::archive::layout::{self, BranchNumber};
use crate::gtid::GtidSet;
use crate::mysql::quote;
use crate::mysql::server_url::HostPort;
use crate::mysql::version::ServerVersion;

/// What stands for the password wherever a statement is shown.
pub const HIDDEN: &str = "********";

/// The channel by which a member catches up with its group.
pub(super) const RECOVERY_CHANNEL: &str = "group_replication_recovery";
/// The channel by which a member applies what its group agrees on.
pub(super) const APPLIER_CHANNEL: &str = "group_replication_applier";

/// The privileges of a recovery account, and from which version on each exists (MySQL manual, "User
/// Credentials For Distributed Recovery").
const RECOVERY_PRIVILEGES: [(&str, (u16, u16, u16)); 4] = [
    ("REPLICATION SLAVE", (8, 0, 0)),
    ("BACKUP_ADMIN", (8, 0, 0)),
    ("CONNECTION_ADMIN", (8, 0, 0)),
    ("GROUP_REPLICATION_STREAM", (8, 0, 27)),
];

/// The account by which members catch up with each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveryAccount {
    /// Its name; its host is `%`.
    pub user: String,
    /// Whether it is there already, with its privileges, and nothing is changed about it.
    pub given: bool,
}

/// A server that is made ready for a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Its version.
    #[serde(skip)]
    pub version: ServerVersion,
    /// The group's name.
    pub group: Uuid,
    /// `group_replication_local_address`.
    pub local_address: String,
    /// `group_replication_group_seeds`.
    pub seeds: String,
    /// What the members talk with; none where the version has XCom only.
    pub stack: Option<Stack>,
    /// Plugins that it lacks, with their libraries.
    pub plugins: Vec<(&'static str, &'static str)>,
    /// Channels from other servers that are left over, and stopped.
    pub channels: Vec<String>,
    /// The statements that remove what else a ClusterSet has left.
    pub leftovers: Vec<String>,
    /// The recovery account.
    pub account: RecoveryAccount,
}

impl Ready {
    /// The statements, in their order.
    #[must_use]
    pub fn statements(&self, password: &str) -> Vec<String> {
        let mut sql = vec![
            // Ordinary accounts stay out; what is written here is in no binlog.
            "SET GLOBAL super_read_only = OFF".to_owned(),
            "SET GLOBAL read_only = ON".to_owned(),
            "SET SESSION sql_log_bin = 0".to_owned(),
        ];
        for (name, library) in &self.plugins {
            sql.push(format!("INSTALL PLUGIN {name} SONAME '{library}'"));
        }
        sql.push("SET GLOBAL group_replication_bootstrap_group = OFF".to_owned());
        let own = [APPLIER_CHANNEL, RECOVERY_CHANNEL].map(ToOwned::to_owned);
        for channel in self.channels.iter().chain(&own) {
            let name = quote::string(channel);
            sql.push(format!("RESET REPLICA ALL FOR CHANNEL {name}"));
        }
        sql.extend(self.leftovers.iter().cloned());
        if !self.account.given {
            sql.extend(self.account_statements(password));
        }
        sql.extend(self.settings());
        sql.push(self.credentials(password));
        sql.push("SET SESSION sql_log_bin = 1".to_owned());
        sql
    }

    /// Those that make the recovery account what it shall be, whatever it was.
    #[must_use]
    pub fn account_statements(&self, password: &str) -> Vec<String> {
        let account = quote::account(&self.account.user, "%");
        let secret = quote::string(password);
        let privileges: Vec<&str> = RECOVERY_PRIVILEGES
            .iter()
            .filter(|(_, (major, minor, patch))| self.version.at_least(*major, *minor, *patch))
            .map(|(privilege, _)| *privilege)
            .collect();
        vec![
            format!("CREATE USER IF NOT EXISTS {account} IDENTIFIED BY {secret}"),
            format!(
                "ALTER USER {account} IDENTIFIED BY {secret} PASSWORD EXPIRE NEVER ACCOUNT UNLOCK"
            ),
            format!("GRANT {} ON *.* TO {account}", privileges.join(", ")),
        ]
    }

    /// Those that a member of the running group needs: the account's new password goes to all of them
    /// by the primary's binlog.
    #[must_use]
    pub fn renewed(&self, password: &str, primary: bool) -> Vec<String> {
        let mut sql = match primary && !self.account.given {
            true => self.account_statements(password),
            false => Vec::new(),
        };
        sql.push(self.credentials(password));
        sql
    }

    /// The settings of a group, kept over restarts. The server does not join by itself before it has
    /// joined once.
    #[must_use]
    pub fn settings(&self) -> Vec<String> {
        let mut pairs = vec![
            ("start_on_boot", "OFF".to_owned()),
            ("group_name", quote::string(&self.group.to_string())),
            ("local_address", quote::string(&self.local_address)),
            ("group_seeds", quote::string(&self.seeds)),
            ("single_primary_mode", "ON".to_owned()),
            ("enforce_update_everywhere_checks", "OFF".to_owned()),
            ("recovery_get_public_key", "ON".to_owned()),
        ];
        if let Some(stack) = self.stack {
            pairs.push(("communication_stack", quote::string(&stack.to_string())));
        }
        pairs
            .into_iter()
            .map(|(name, value)| format!("SET PERSIST group_replication_{name} = {value}"))
            .collect()
    }

    /// The statement by which the server knows how to log in at the others.
    #[must_use]
    pub fn credentials(&self, password: &str) -> String {
        credentials(&self.version, &self.account.user, password)
    }
}

/// The statement by which a member knows how to log in at the others of its group.
pub(super) fn credentials(version: &ServerVersion, user: &str, password: &str) -> String {
    let (statement, prefix) = match version.at_least(8, 0, 23) {
        true => ("CHANGE REPLICATION SOURCE TO", "SOURCE"),
        false => ("CHANGE MASTER TO", "MASTER"),
    };
    format!(
        "{statement} {prefix}_USER = {}, {prefix}_PASSWORD = {} FOR CHANNEL '{RECOVERY_CHANNEL}'",
        quote::string(user),
        quote::string(password)
    )
}

/// The statements that make a server take a copy of `donor`.
pub(super) fn clone_statements(donor: &HostPort, user: &str, password: &str) -> [String; 2] {
    [
        format!(
            "SET GLOBAL clone_valid_donor_list = {}",
            quote::string(&format!("{}:{}", donor.host, donor.port))
        ),
        format!(
            "CLONE INSTANCE FROM {}@{}:{} IDENTIFIED BY {}",
            quote::string(user),
            quote::string(&donor.host),
            donor.port,
            quote::string(password)
        ),
    ]
}

/// The statement that keeps everybody from writing.
pub(super) const fn fence_statement(lasting: bool) -> &'static str {
    if lasting {
        "SET PERSIST super_read_only = ON"
    } else {
        "SET GLOBAL super_read_only = ON"
    }
}

/// The statements that start a group on its first member.
pub(super) const BOOTSTRAP: [&str; 3] = [
    "SET GLOBAL group_replication_bootstrap_group = ON",
    "START GROUP_REPLICATION",
    "SET GLOBAL group_replication_bootstrap_group = OFF",
];

/// The new history in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedBranch {
    /// Its number, if nobody else begins one before.
    pub number: BranchNumber,
    /// The history that it comes from.
    pub parent: BranchNumber,
    /// What it shares with that.
    pub fork: GtidSet,
    /// What the parent holds beyond.
    pub lost: GtidSet,
    /// The group's name.
    pub group: Uuid,
    /// The server that it goes on from.
    pub server: Uuid,
    /// Why.
    pub reason: String,
    /// Whether an earlier run has recorded it.
    pub recorded: bool,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Keeps writers away from a server of the old history.
    Fence {
        /// Whether it stays so over a restart: for servers that are left out.
        lasting: bool,
    },
    /// Takes a server out of the old group.
    Leave,
    /// Puts the list of what a server has and the new primary has not into the archive.
    List {
        /// The transactions.
        set: GtidSet,
    },
    /// Records the new history.
    Record(PlannedBranch),
    /// Makes a server ready for the group.
    Ready(Ready),
    /// Gives a member of the running group the recovery account's password of this run.
    Credentials {
        /// The member; the account is changed only on the primary.
        ready: Ready,
        /// Whether it is the primary.
        primary: bool,
    },
    /// Starts the group.
    Bootstrap,
    /// Lets the new primary take writes.
    Open {
        /// The statements.
        statements: Vec<String>,
    },
    /// Makes InnoDB Cluster's metadata match the group, or removes them.
    Metadata {
        /// The statements, with their transaction.
        statements: Vec<String>,
    },
    /// Makes a server a copy of the new primary.
    Clone {
        /// The new primary, as the others know it.
        donor: HostPort,
        /// The recovery account's name.
        user: String,
    },
    /// Fills a server from the archive.
    Load {
        /// The state that is loaded.
        set: GtidSet,
        /// The history that it is of.
        branch: BranchNumber,
    },
    /// Lets a server join.
    Join,
    /// Looks whether all is as it shall be.
    Check,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The phase of the report that it counts to.
    pub phase: &'static str,
    /// The server that it is about; none for the archive.
    pub server: Option<HostPort>,
    /// What it does, in words.
    pub what: String,
    /// How a person would do it by hand: SQL on that server, or lines that begin with `#`.
    pub commands: Vec<String>,
    /// What it does.
    #[serde(skip)]
    pub action: Action,
}

impl Step {
    /// A step with the commands that its action stands for.
    #[must_use]
    pub fn new(server: Option<&HostPort>, what: impl Into<String>, action: Action) -> Self {
        Self {
            phase: action.phase(),
            server: server.cloned(),
            what: what.into(),
            commands: action.commands(server),
            action,
        }
    }
}

impl Action {
    const fn phase(&self) -> &'static str {
        match self {
            Self::Fence { .. } | Self::Leave | Self::List { .. } => "fence",
            Self::Record(_) => "branch",
            Self::Ready(_) | Self::Credentials { .. } => "prepare",
            Self::Bootstrap | Self::Open { .. } => "bootstrap",
            Self::Metadata { .. } => "metadata",
            Self::Clone { .. } | Self::Load { .. } => "fill",
            Self::Join => "join",
            Self::Check => "check",
        }
    }

    fn commands(&self, server: Option<&HostPort>) -> Vec<String> {
        let at = server.map_or_else(String::new, ToString::to_string);
        match self {
            Self::Fence { lasting } => vec![fence_statement(*lasting).to_owned()],
            Self::Leave => vec![
                "STOP GROUP_REPLICATION".to_owned(),
                "SET GLOBAL super_read_only = ON".to_owned(),
            ],
            Self::List { set } => vec![format!("# the archive keeps the list of {set:#}")],
            Self::Record(branch) => vec![
                format!(
                    "# the archive: {}, from branch {} at {:#}, group {}",
                    layout::branch(branch.number),
                    branch.parent.0,
                    branch.fork,
                    branch.group
                ),
                "# a claim on it, which stops every stream of the old history".to_owned(),
            ],
            Self::Ready(ready) => ready.statements(HIDDEN),
            Self::Credentials { ready, primary } => ready.renewed(HIDDEN, *primary),
            Self::Bootstrap => BOOTSTRAP.map(ToOwned::to_owned).to_vec(),
            Self::Open { statements } | Self::Metadata { statements } => statements.clone(),
            Self::Clone { donor, user } => {
                let mut lines = clone_statements(donor, user, HIDDEN).to_vec();
                lines.push(
                    "# the server restarts by its supervisor, else start it again".to_owned(),
                );
                lines
            }
            Self::Load { set, branch } => vec![format!(
                "# quillback restore --until-gtid '{set:#}' --branch {} --to mysql://USER@{at} --wipe \
                 {at}",
                branch.0
            )],
            Self::Join => vec![
                "START GROUP_REPLICATION".to_owned(),
                "# wait until it is ONLINE in performance_schema.replication_group_members"
                    .to_owned(),
                "SET PERSIST group_replication_start_on_boot = ON".to_owned(),
            ],
            Self::Check => vec![
                "SELECT MEMBER_HOST, MEMBER_PORT, MEMBER_STATE, MEMBER_ROLE FROM \
                 performance_schema.replication_group_members"
                    .to_owned(),
                "SELECT @@GLOBAL.gtid_executed".to_owned(),
            ],
        }
    }
}
