//! What a line does not tell, out of the events: rows that were not counted, tables beyond the limit.

use std::collections::BTreeMap;

use crate::archive::history::History;
use crate::archive::repository::Repository;
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::binlog::{Summary, SummaryBuilder};
use crate::restore::feed::{Step, Walk};

/// The whole summaries of these transactions.
pub(super) async fn summaries(
    repository: &Repository,
    history: &History,
    set: GtidSet,
) -> anyhow::Result<BTreeMap<Gtid, Summary>> {
    let mut walk = Walk::new(repository, history, set);
    let mut open: Option<(Gtid, SummaryBuilder)> = None;
    let mut found = BTreeMap::new();
    while let Some(step) = walk.next().await? {
        match step {
            Step::Begins(first) => {
                if let Some((gtid, done)) = open.replace((first.gtid, SummaryBuilder::whole())) {
                    found.insert(gtid, done.finish());
                }
            }
            Step::Inside(event, checksum) => {
                if let Some((_, summary)) = &mut open {
                    summary.take(&event, checksum)?;
                }
            }
        }
    }
    if let Some((gtid, done)) = open {
        found.insert(gtid, done.finish());
    }
    Ok(found)
}
