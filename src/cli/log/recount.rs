//! What a line does not tell, out of the events: rows that were not counted, tables beyond the limit.

use std::collections::BTreeMap;

use crate::archive::history::History;
use crate::archive::repository::Repository;
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::binlog::{GtidEvent, RawEvent, Summary, SummaryBuilder};
use crate::restore::feed::{Fed, Feed};

/// The whole summaries of these transactions.
pub(super) async fn summaries(
    repository: &Repository,
    history: &History,
    set: GtidSet,
) -> anyhow::Result<BTreeMap<Gtid, Summary>> {
    let members = history.needed(&set);
    let mut feed = Feed::new(repository.clone(), history.branch, members, set);
    let mut checksum = feed.first_checksum();
    let mut bytes = Vec::new();
    let mut open: Option<(Gtid, SummaryBuilder)> = None;
    let mut found = BTreeMap::new();
    loop {
        match feed.next(&mut bytes).await? {
            Fed::End => break,
            Fed::File(changed) => checksum = changed,
            Fed::Event => {
                let event = RawEvent::new(&bytes)?;
                if event.kind().is_gtid() {
                    let first = GtidEvent::parse(&event, checksum)?;
                    if let Some((gtid, done)) = open.replace((first.gtid, SummaryBuilder::whole()))
                    {
                        found.insert(gtid, done.finish());
                    }
                } else if let Some((_, summary)) = &mut open {
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
