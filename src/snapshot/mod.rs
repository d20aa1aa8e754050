//! A consistent logical dump of a server into the archive, light on the cluster.
//!
//! [`plan`] decides from facts what is read from where; [`run`](run::run) carries the plan out:
//! [`consistency`] brings all connections to one GTID set, [`ddl`] writes the schema and [`changes`] proves that
//! it stayed, [`read`] and
//! [`mod@write`] stream the rows. The invariant: the manifest is put last, and only if everything that
//! it names is stored and no DDL came between; without it the snapshot does not exist, and what a
//! failed run leaves behind is only unnamed objects.

mod changes;
pub mod consistency;
mod ddl;
pub mod error;
pub mod plan;
mod read;
pub mod run;
mod selection;
mod tables;
mod warnings;
mod write;

pub use consistency::LockMode;
pub use error::SnapshotError;
pub use plan::{SnapshotFacts, SnapshotOptions, SnapshotPlan, load_facts};
pub use run::{SnapshotProgress, SnapshotReport, run};
