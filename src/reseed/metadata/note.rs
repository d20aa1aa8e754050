//! What a person has to know or do after a repair.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that no statement can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "note")]
pub enum Note {
    /// A Router holds the old group in its state file and has closed its ports.
    BootstrapRouter {
        /// Its number in the metadata.
        router_id: u32,
        /// The host that it runs on.
        host: String,
        /// Its name among the Routers of that host; often empty.
        name: String,
        /// The port on which it takes writes, as it said.
        rw_port: Option<String>,
    },
    /// A server that replicates from the cluster was taken out.
    ReadReplica {
        /// Its address.
        address: String,
    },
    /// A member carries the tag by which Router leaves it out.
    Hidden {
        /// Its address.
        address: String,
    },
    /// The cluster is no longer part of a ClusterSet.
    LeftClusterSet {
        /// The ClusterSet's domain name.
        domain: String,
        /// Its other clusters.
        others: Vec<String>,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BootstrapRouter {
                host,
                name,
                rw_port,
                ..
            } => {
                write!(f, "the Router ")?;
                if !name.is_empty() {
                    write!(f, "{name} ")?;
                }
                write!(f, "on {host}")?;
                if let Some(port) = rw_port {
                    write!(f, " (writes on port {port})")?;
                }
                f.write_str(
                    " knows only the old group and lets nobody through: stop it, run `mysqlrouter --bootstrap` there \
                     again with --force and its --directory and --name, and start it",
                )
            }
            Self::ReadReplica { address } => write!(
                f,
                "the read replica {address} follows the old history and was taken out of the metadata: fill it anew, \
                 then cluster.addReplicaInstance('{address}')"
            ),
            Self::Hidden { address } => write!(
                f,
                "{address} has the tag _hidden, so no Router sends anyone there"
            ),
            Self::LeftClusterSet { domain, others } => {
                write!(
                    f,
                    "the cluster is no longer part of the ClusterSet {domain}"
                )?;
                if !others.is_empty() {
                    write!(
                        f,
                        "; {} of it follow another history and must be made anew from this one",
                        others.join(", ")
                    )?;
                }
                Ok(())
            }
        }
    }
}
