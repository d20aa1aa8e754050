//! Which privilege each command needs, why, and what is lost without it.
//!
//! The table is the one truth: `quillback grants` prints it, snapshots are refused or warned by it,
//! and tests take each privilege away and look whether what it says comes true.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::mysql::version::ServerVersion;

/// A command that logs in to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// `quillback snapshot`.
    Snapshot,
    /// `quillback stream`.
    Stream,
    /// `quillback restore`, on its target.
    Restore,
    /// `quillback restore --tables`, on its target.
    RestoreTables,
    /// `quillback reseed`, on every server of the group.
    Reseed,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snapshot => "snapshot",
            Self::Stream => "stream",
            Self::Restore => "restore",
            Self::RestoreTables => "restore --tables",
            Self::Reseed => "reseed",
        })
    }
}

/// On what a privilege is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// `*.*`.
    Everything,
    /// A table, as `schema.table`.
    Table(&'static str),
    /// Every account, as PROXY has it.
    EveryAccount,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Everything => "*.*",
            Self::Table(name) => name,
            Self::EveryAccount => "''@''",
        })
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What happens without a privilege.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// The command ends at once.
    Refused,
    /// It works, and this is lost.
    Lost(&'static str),
}

/// A privilege that a command makes use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Its name, as GRANT uses it.
    pub privilege: &'static str,
    /// On what.
    pub on: Scope,
    /// Whether it is granted so that the account may hand it on.
    pub grant_option: bool,
    /// What it is for.
    pub why: &'static str,
    /// What happens without it.
    pub without: Without,
    /// The first version that knows it, where not all of 8.0 do.
    pub since: Option<(u16, u16, u16)>,
    /// Privileges that serve as well; the first one is granted where this one is not known.
    pub broader: &'static [&'static str],
}

impl Need {
    /// Whether the command ends without it.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.without == Without::Refused
    }

    /// What is lost without it, if the command works all the same.
    #[must_use]
    pub const fn loss(&self) -> Option<&'static str> {
        match self.without {
            Without::Refused => None,
            Without::Lost(what) => Some(what),
        }
    }

    /// The name to grant on a server of this version; `None` if it has nothing of the kind.
    #[must_use]
    pub fn name_on(&self, version: &ServerVersion) -> Option<&'static str> {
        match self.since {
            Some((major, minor, patch)) if !version.at_least(major, minor, patch) => {
                self.broader.first().copied()
            }
            _ => Some(self.privilege),
        }
    }
}

/// What a command needs, in the order of weight.
#[must_use]
pub const fn needs(purpose: Purpose) -> &'static [Need] {
    match purpose {
        Purpose::Snapshot => SNAPSHOT,
        Purpose::Stream => STREAM,
        Purpose::Restore => RESTORE,
        Purpose::RestoreTables => RESTORE_TABLES,
        Purpose::Reseed => RESEED,
    }
}

const fn required(privilege: &'static str, why: &'static str) -> Need {
    Need {
        privilege,
        on: Scope::Everything,
        grant_option: false,
        why,
        without: Without::Refused,
        since: None,
        broader: &[],
    }
}

const fn optional(privilege: &'static str, why: &'static str, lost: &'static str) -> Need {
    Need {
        without: Without::Lost(lost),
        ..required(privilege, why)
    }
}

const fn reading(table: &'static str, why: &'static str) -> Need {
    Need {
        on: Scope::Table(table),
        ..required("SELECT", why)
    }
}

/// With SELECT on all schemas SHOW_ROUTINE adds nothing (MySQL manual, "SHOW CREATE PROCEDURE
/// Statement").
const SNAPSHOT: &[Need] = &[
    required(
        "SELECT",
        "reads the rows, the routines, the accounts with their hashes, and who is in the group",
    ),
    required("SHOW VIEW", "reads how views are made"),
    required(
        "TRIGGER",
        "sees triggers, which are left out in silence without it",
    ),
    required(
        "EVENT",
        "sees events, which are left out in silence without it",
    ),
    required(
        "PROCESS",
        "sees general tablespaces, without which their tables cannot be made again, and prepared \
         XA transactions, whose rows are in no snapshot",
    ),
    required(
        "REPLICATION CLIENT",
        "asks each server from whom it replicates",
    ),
    optional(
        "REPLICATION SLAVE",
        "finds the replicas of a source, and DDL in the binlog that is not kept away",
        "replicas are found only if they are named, and DDL that is undone before the end goes \
         unseen where it is not kept away",
    ),
    optional(
        "BACKUP_ADMIN",
        "keeps DDL away meanwhile (LOCK INSTANCE FOR BACKUP)",
        "nothing keeps DDL away: if there is any, the snapshot fails",
    ),
    Need {
        since: Some((8, 0, 23)),
        broader: &["RELOAD"],
        ..optional(
            "FLUSH_TABLES",
            "takes a short FLUSH TABLES WITH READ LOCK if no quiet moment is found",
            "only the lock-free way can be tried, which may fail on a busy server",
        )
    },
    Need {
        broader: &["RESOURCE_GROUP_ADMIN"],
        ..optional(
            "RESOURCE_GROUP_USER",
            "sees resource groups",
            "resource groups cannot be seen and are left out",
        )
    },
];

const STREAM: &[Need] = &[
    required(
        "REPLICATION SLAVE",
        "reads the binlog, and sees whether another streamer does",
    ),
    required(
        "REPLICATION CLIENT",
        "asks where the binlog ends, what is purged, and who replicates from whom",
    ),
    reading(
        "performance_schema.replication_group_members",
        "finds the primary of a group",
    ),
    reading(
        "performance_schema.replication_group_member_stats",
        "finds the secondary that is least behind (--from secondary)",
    ),
    Need {
        without: Without::Lost(
            "what a new primary has received and not applied looks as though it were lost",
        ),
        ..reading(
            "performance_schema.replication_connection_status",
            "waits for a new primary to apply what it has received",
        )
    },
];

const RESTORE: &[Need] = &[
    Need {
        grant_option: true,
        ..required(
            "ALL PRIVILEGES",
            "makes schemas and accounts, sets gtid_purged, replays, and gives accounts what they \
             had, which nobody can who does not have it",
        )
    },
    Need {
        on: Scope::EveryAccount,
        grant_option: true,
        ..required(
            "PROXY",
            "gives accounts their PROXY, which ALL PRIVILEGES leaves out and root@localhost has \
             from the start",
        )
    },
];

/// On everything, since the schemas in which the tables are built do not exist when the account is
/// made.
const RESTORE_TABLES: &[Need] = &[
    required("SELECT", "looks at what is there, and at what was restored"),
    required("INSERT", "loads rows"),
    required("UPDATE", "replays, and writes down how far it is"),
    required("DELETE", "replays"),
    required("CREATE", "makes the tables, and schemas to build them in"),
    required(
        "DROP",
        "removes those schemas, and gives the tables their names",
    ),
    required("ALTER", "builds indexes after the rows, and replays DDL"),
    required("INDEX", "builds and drops indexes"),
    required("REFERENCES", "makes foreign keys"),
    required("TRIGGER", "makes the tables' triggers again"),
    Need {
        broader: &["SUPER"],
        ..required("REPLICATION_APPLIER", "says rows of the binlog (BINLOG)")
    },
    Need {
        broader: &["SYSTEM_VARIABLES_ADMIN", "SUPER"],
        ..required(
            "SESSION_VARIABLES_ADMIN",
            "runs DDL in the session that it was logged with",
        )
    },
    Need {
        broader: &["SUPER"],
        ..optional(
            "SYSTEM_VARIABLES_ADMIN",
            "switches local_infile on for the load, where it is off",
            "a server whose local_infile is off is refused",
        )
    },
    Need {
        since: Some((8, 2, 0)),
        broader: &["SET_USER_ID"],
        ..optional(
            "SET_ANY_DEFINER",
            "makes triggers that belong to others",
            "triggers that belong to others are not made",
        )
    },
];

/// What a member of a group is given must be the giver's own.
const fn handed_on(privilege: &'static str, why: &'static str) -> Need {
    Need {
        grant_option: true,
        ..required(privilege, why)
    }
}

const RESEED: &[Need] = &[
    required("SELECT", "looks at groups, plugins, tables and metadata"),
    required("REPLICATION CLIENT", "asks who replicates from whom"),
    required("CREATE USER", "makes the recovery account"),
    handed_on(
        "REPLICATION SLAVE",
        "gives it to the recovery account, which reads the binlog of other members",
    ),
    handed_on(
        "BACKUP_ADMIN",
        "gives it to the recovery account, from which members are cloned",
    ),
    handed_on(
        "CONNECTION_ADMIN",
        "gives it to the recovery account, and writes where ordinary accounts may not",
    ),
    Need {
        since: Some((8, 0, 27)),
        ..handed_on(
            "GROUP_REPLICATION_STREAM",
            "gives it to the recovery account, for groups that talk with MySQL's own protocol",
        )
    },
    Need {
        broader: &["SUPER"],
        ..required("GROUP_REPLICATION_ADMIN", "starts and stops the group")
    },
    Need {
        broader: &["SUPER"],
        ..required(
            "REPLICATION_SLAVE_ADMIN",
            "sets the group's channels up, and removes those that are left over",
        )
    },
    Need {
        broader: &["SUPER"],
        ..required(
            "SYSTEM_VARIABLES_ADMIN",
            "sets the group's settings, and keeps writers away",
        )
    },
    Need {
        on: Scope::Table("mysql.plugin"),
        ..required("INSERT", "installs the plugins group_replication and clone")
    },
    optional(
        "CLONE_ADMIN",
        "makes a member a clone",
        "members can only be filled from the archive (--fill archive)",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_servers_get_the_broader_privilege() {
        let flush = SNAPSHOT
            .iter()
            .find(|need| need.privilege == "FLUSH_TABLES")
            .expect("it is there");
        let on = |text: &str| flush.name_on(&ServerVersion::parse(text).expect("a version"));
        assert_eq!(on("8.0.22"), Some("RELOAD"));
        assert_eq!(on("8.0.23"), Some("FLUSH_TABLES"));
        assert_eq!(on("9.7.0"), Some("FLUSH_TABLES"));
    }

    #[test]
    fn the_texts_read_as_the_rest_of_a_line() {
        for purpose in [
            Purpose::Snapshot,
            Purpose::Stream,
            Purpose::Restore,
            Purpose::RestoreTables,
            Purpose::Reseed,
        ] {
            for need in needs(purpose) {
                for text in [Some(need.why), need.loss()].into_iter().flatten() {
                    let first = text.chars().next().expect("not empty");
                    assert!(first.is_lowercase() && !text.ends_with('.'), "{text}");
                    assert!(!text.contains('\n'), "{text}");
                }
            }
        }
    }
}
