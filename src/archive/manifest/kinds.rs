//! The kinds of scripts in a snapshot, and the order in which they are run.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a script makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScriptKind {
    /// General tablespaces.
    Tablespaces,
    /// Spatial reference systems that users made.
    SpatialReferenceSystems,
    /// Functions in libraries; a failure here is a warning.
    LoadableFunctions,
    /// Resource groups; a failure here is a warning, since they name processors.
    ResourceGroups,
    /// Foreign servers, with their passwords.
    Servers,
    /// Schemas.
    Databases,
    /// Tables.
    Tables,
    /// The statements that load the rows, for whoever restores by hand.
    Rows,
    /// Histograms; a failure here is a warning.
    Histograms,
    /// Procedures and functions.
    Routines,
    /// Views.
    Views,
    /// Views that were broken already or that read what was left out; a failure here is a warning.
    InvalidViews,
    /// Triggers.
    Triggers,
    /// Events.
    Events,
    /// Schemas that nobody may change: said last.
    ReadOnly,
    /// The statement that sets the GTIDs, for whoever restores by hand.
    Gtids,
    /// Accounts, roles and grants.
    Accounts,
}

impl ScriptKind {
    /// The name of the script's file, numbered in the order of running.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Tablespaces => "01-tablespaces",
            Self::SpatialReferenceSystems => "02-spatial-reference-systems",
            Self::LoadableFunctions => "03-loadable-functions",
            Self::ResourceGroups => "04-resource-groups",
            Self::Servers => "05-servers",
            Self::Databases => "06-databases",
            Self::Tables => "07-tables",
            Self::Rows => "08-rows",
            Self::Histograms => "09-histograms",
            Self::Routines => "10-routines",
            Self::Views => "11-views",
            Self::InvalidViews => "12-invalid-views",
            Self::Triggers => "13-triggers",
            Self::Events => "14-events",
            Self::ReadOnly => "15-read-only",
            Self::Gtids => "16-gtids",
            Self::Accounts => "accounts",
        }
    }

    /// Whether a restore goes on, with a warning, when a statement of it fails.
    #[must_use]
    pub const fn may_fail(self) -> bool {
        matches!(
            self,
            Self::LoadableFunctions | Self::ResourceGroups | Self::Histograms | Self::InvalidViews
        )
    }

    /// Whether its statements hold secrets, so that no error may quote them.
    #[must_use]
    pub const fn is_secret(self) -> bool {
        matches!(self, Self::Servers | Self::Accounts)
    }
}

impl fmt::Display for ScriptKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tablespaces => "tablespaces",
            Self::SpatialReferenceSystems => "spatial reference systems",
            Self::LoadableFunctions => "loadable functions",
            Self::ResourceGroups => "resource groups",
            Self::Servers => "foreign servers",
            Self::Databases => "databases",
            Self::Tables => "tables",
            Self::Rows => "rows",
            Self::Histograms => "histograms",
            Self::Routines => "routines",
            Self::Views => "views",
            Self::InvalidViews => "invalid views",
            Self::Triggers => "triggers",
            Self::Events => "events",
            Self::ReadOnly => "read-only schemas",
            Self::Gtids => "GTIDs",
            Self::Accounts => "accounts",
        })
    }
}
