//! What became of a transaction in two halves, out of the log behind its first one.

use memchr::memmem;

use crate::archive::history::{History, Member};
use crate::archive::repository::{ArchiveError, Repository};
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::binlog::{Checksum, EVENT_LIMIT, EventKind, Inner, PayloadEvents, RawEvent};
use crate::restore::feed::{Step, Walk};
use crate::restore::replay::BlamedTransaction;
use crate::restore::replay::blame;

/// What became of it within the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was committed.
    Committed,
    /// It was rolled back.
    RolledBack,
    /// Neither.
    InDoubt,
}

/// The log of the cut.
#[derive(Debug)]
pub(super) struct Log<'a> {
    pub(super) repository: &'a Repository,
    pub(super) history: &'a History,
    /// The transactions behind the snapshot.
    pub(super) set: &'a GtidSet,
    /// What the history has them from.
    pub(super) members: &'a [Member],
}

impl Log<'_> {
    /// What the archive knows of a transaction.
    pub(super) async fn look_up(&self, gtid: &Gtid) -> BlamedTransaction {
        blame::look_up(self.repository, self.members, gtid.clone()).await
    }

    /// What became of a transaction that was prepared by `gtid` and began with the statement `start`.
    pub(super) async fn outcome(&self, gtid: &Gtid, start: &[u8]) -> Result<Outcome, ArchiveError> {
        let Some(xid) = strip(start, b"XA START ") else {
            return Ok(Outcome::InDoubt);
        };
        let mut is_behind = false;
        for member in self.members {
            if !is_behind && !member.gives(gtid) {
                continue;
            }
            let lines = self.repository.read_transactions(&member.stored).await?;
            let mut ends = GtidSet::new();
            for line in member.own_lines(lines) {
                // The second half has neither rows nor a statement that a line would tell.
                let is_bare = line.summary.tables.is_empty() && line.summary.statement.is_none();
                if is_behind && is_bare && self.set.contains(&line.gtid) {
                    ends.insert(&line.gtid);
                }
                is_behind |= line.gtid == *gtid;
            }
            // A first half in several segments ends with the last of them.
            is_behind |= member.added.contains(gtid);
            if ends.is_empty() {
                continue;
            }
            let mut walk = Walk::new(self.repository, self.history, ends);
            while let Some(step) = walk.next().await? {
                let Step::Inside(event, checksum) = step else {
                    continue;
                };
                if let Some(outcome) = of_event(&event, checksum, xid) {
                    return Ok(outcome);
                }
            }
        }
        Ok(Outcome::InDoubt)
    }
}

fn strip<'t>(text: &'t [u8], words: &[u8]) -> Option<&'t [u8]> {
    let start = text.get(..words.len())?;
    start
        .eq_ignore_ascii_case(words)
        .then(|| text[words.len()..].trim_ascii())
}

fn of_event(event: &RawEvent<'_>, checksum: Checksum, xid: &[u8]) -> Option<Outcome> {
    if event.kind() == EventKind::TRANSACTION_PAYLOAD {
        let mut payload = PayloadEvents::open(event, checksum, EVENT_LIMIT).ok()?;
        while let Ok(Some(inner)) = payload.next_event() {
            if let Inner::Event(inner) = inner
                && let Some(outcome) = of_event(&inner, Checksum::None, xid)
            {
                return Some(outcome);
            }
        }
        return None;
    }
    if event.kind() != EventKind::QUERY {
        return None;
    }
    let (_, text) = event.query(checksum).ok()?;
    if strip(text, b"XA COMMIT ").is_some_and(|found| is_xid(found, xid)) {
        return Some(Outcome::Committed);
    }
    strip(text, b"XA ROLLBACK ")
        .is_some_and(|found| is_xid(found, xid))
        .then_some(Outcome::RolledBack)
}

/// The server writes them all in the same way.
fn is_xid(found: &[u8], xid: &[u8]) -> bool {
    memmem::find(found, xid) == Some(0)
        && !found[xid.len()..]
            .first()
            .is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_transactions_are_compared_whole() {
        let xid = b"X'61',X'',1";
        assert!(is_xid(b"X'61',X'',1", xid) && is_xid(b"X'61',X'',1 ", xid));
        assert!(!is_xid(b"X'61',X'',12", xid) && !is_xid(b"X'6161',X'',1", xid));
        assert_eq!(strip(b"xa start X'61',X'',1", b"XA START "), Some(&xid[..]));
        assert_eq!(strip(b"XA END X'61',X'',1", b"XA START "), None);
    }
}
