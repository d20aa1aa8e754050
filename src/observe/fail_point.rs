//! Named places where a run may be made to die, so that tests can kill it at each of them.
//!
//! The tables [`FailPoint::STREAM`] and [`FailPoint::RESTORE`] are what such tests walk through. A run passes the points through
//! a [`FailPoints`]; what happens there is the caller's: nothing in production, the end of the
//! process where a test asks for it.

use std::fmt;
use std::sync::Arc;

macro_rules! fail_points {
    ($($(#[$of:meta])* $group:ident {
        $($(#[$doc:meta])* $variant:ident = $name:literal,)*
    })*) => {
        /// A place in the course of a run.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FailPoint {
            $($($(#[$doc])* $variant,)*)*
        }

        impl FailPoint {
            $($(#[$of])* pub const $group: &'static [Self] = &[$(Self::$variant,)*];)*

            /// Every point.
            const ALL: &'static [&'static [Self]] = &[$(Self::$group,)*];

            /// The point's name, as a test gives it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $($(Self::$variant => $name,)*)*
                }
            }
        }
    };
}

fail_points! {
/// The points of a stream.
STREAM {
    /// Before a claim is put.
    BeforeClaim = "before-claim",
    /// Behind the claim, before anything is read again.
    AfterClaim = "after-claim",
    /// A new history has been recorded and nothing written to it.
    BranchMade = "branch-made",
    /// The source has been asked for its binlog.
    Following = "following",
    /// A segment has been cut.
    Cut = "cut",
    /// A segment has been packed and is not yet on its way.
    Encoded = "encoded",
    /// A segment is about to be put.
    BeforePut = "before-put",
    /// A segment has been put and nobody knows.
    AfterPut = "after-put",
    /// A segment counts and its copy on disk is still there.
    Durable = "durable",
    /// A segment has been written to the spool.
    Spooled = "spooled",
    /// A segment's copy in the spool has been removed.
    Unspooled = "unspooled",
    /// Events are in the journal and on disk, not yet acknowledged.
    Journaled = "journaled",
    /// Transactions have been acknowledged to the source.
    Acknowledged = "acknowledged",
    /// What an earlier run left on disk has been archived and is still on disk.
    Recovered = "recovered",
    /// A compacted segment has been made and is not yet put.
    Merged = "merged",
    /// A compacted segment has been put beside those that it stands for.
    Compacted = "compacted",
    /// One of the segments that a compacted one stands for has been removed.
    Replaced = "replaced",
}
/// The points of a restore, in its order.
RESTORE {
    /// The server is about to be emptied and its journal says so.
    Wiping = "wiping",
    /// One of the schemas of a server that is being emptied has been dropped.
    Dropped = "dropped",
    /// The journal is there and nothing of the snapshot.
    Begun = "begun",
    /// A load has made the schemas and the tables.
    LoadSchema = "load-schema",
    /// A load has dropped the indexes of a table that wait for its rows.
    LoadPrepared = "load-prepared",
    /// The rows of a file have been sent and are not committed.
    LoadSent = "load-sent",
    /// The rows of a file are committed.
    LoadCommitted = "load-committed",
    /// The indexes of a table that waited are built.
    LoadIndexed = "load-indexed",
    /// A load has made routines, views, triggers, events and accounts.
    LoadObjects = "load-objects",
    /// A load has set `gtid_purged`.
    LoadGtids = "load-gtids",
    /// The load is over and nothing has been replayed.
    Loaded = "loaded",
    /// Something has been replayed.
    Replaying = "replaying",
    /// All is replayed and nothing is checked.
    Replayed = "replayed",
    /// The end was found right and the journal is still there.
    Checked = "checked",
    /// The journal is gone; nothing was reported.
    Finished = "finished",
}
/// Those that only a restore of chosen tables has.
PARTS {
    /// It is written down that a statement on a chosen table is about to be run.
    PartsStatement = "parts-statement",
    /// A statement on a chosen table was run, and that is not written down.
    PartsStatementDone = "parts-statement-done",
    /// The chosen tables are replayed and checked and do not have their names.
    PartsPlacing = "parts-placing",
    /// The chosen tables have their names, and that is not written down.
    PartsPlaced = "parts-placed",
}
/// The points of a reseed.
RESEED {
    /// A step is about to be taken.
    ReseedStep = "reseed-step",
    /// The new history is recorded, and the streams of the old one are not ended.
    ReseedRecorded = "reseed-recorded",
    /// The next start of a group would begin one.
    ReseedBootstrapping = "reseed-bootstrapping",
    /// A member is about to be emptied and filled.
    ReseedFilling = "reseed-filling",
    /// A member has been told to join.
    ReseedJoining = "reseed-joining",
    /// A step was taken.
    ReseedStepDone = "reseed-step-done",
}
}

impl FailPoint {
    /// The point of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied().flatten();
        all.find(|point| point.name() == name).copied()
    }
}

/// What happens at fail points: nothing, unless a test says otherwise.
#[derive(Clone, Default)]
pub struct FailPoints(Option<Arc<dyn Fn(FailPoint) + Send + Sync>>);

impl FailPoints {
    /// Calls `action` at every point.
    #[must_use]
    pub fn new(action: impl Fn(FailPoint) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(action)))
    }

    /// Passes a point.
    pub fn pass(&self, point: FailPoint) {
        if let Some(action) = &self.0 {
            action(point);
        }
    }
}

impl fmt::Debug for FailPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let armed = if self.0.is_some() { "armed" } else { "off" };
        write!(f, "FailPoints({armed})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn points_have_names_of_their_own() {
        for point in FailPoint::ALL.iter().copied().flatten() {
            assert_eq!(FailPoint::named(point.name()), Some(*point));
        }
        assert_eq!(FailPoint::named("nowhere"), None);
    }

    #[test]
    fn only_an_armed_run_notices_a_point() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let points = FailPoints::new(move |point| kept.lock().expect("unpoisoned").push(point));
        points.pass(FailPoint::Cut);
        FailPoints::default().pass(FailPoint::AfterPut);
        assert_eq!(*seen.lock().expect("unpoisoned"), [FailPoint::Cut]);
    }
}
