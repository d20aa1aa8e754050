//! A consistent logical dump of a server into the archive, light on the cluster.
//!
//! [`plan`] decides from facts what is read from where; [`run`](run::run) carries the plan out:
//! [`opening`] reads the schema and has [`consistency`] bring all connections to one GTID set, [`ddl`] writes the schema and [`changes`]
//! proves that it stayed, [`chunks`] cuts
//! tables for several readers, [`tables`] has their rows streamed by [`read`] and [`mod@write`], and
//! [`watch`] looks after it all meanwhile.
//! The invariant: the manifest is put last, and only if everything that it names is stored, no DDL
//! came between, and what the views hold is of the cluster's history; without it the snapshot does
//! not exist, and what a failed run leaves behind is only unnamed objects.

mod changes;
pub mod chunks;
pub mod consistency;
mod ddl;
pub mod error;
pub mod expect;
mod history;
mod opening;
pub mod options;
pub mod plan;
pub mod privileges;
pub mod progress;
mod read;
pub mod resume;
pub mod run;
mod selection;
mod tables;
mod warnings;
mod watch;
mod write;

pub use consistency::LockMode;
pub use error::SnapshotError;
pub use expect::expect;
pub use options::{OnLag, SnapshotOptions, SnapshotSource};
pub use plan::{SnapshotFacts, SnapshotPlan, load_facts};
pub use resume::{ResumePlan, ResumeReport, Unfinished, find_unfinished};
pub use run::{SnapshotProgress, SnapshotReport, run};
