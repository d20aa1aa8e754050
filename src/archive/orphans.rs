//! What dead snapshots have left behind.
//!
//! A snapshot exists once its manifest does. Objects without one are of a run that goes on still,
//! or of one that is dead; from the outside only time tells the two apart, so whoever removes
//! orphans grants more of it than any snapshot takes. Pure: the caller lists, and deletes.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::layout::{self, SnapshotId};

/// The objects of a snapshot that nobody will miss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphans {
    /// The snapshot.
    pub id: SnapshotId,
    /// Whether it has a manifest: then these are what its own run should have removed at its end.
    pub finished: bool,
    /// The keys, in their order.
    pub keys: Vec<String>,
}

/// Finds the orphans among `keys`, which hold every key below [`layout::SNAPSHOTS`].
///
/// What began less than `grace` ago, and what bears the name of no snapshot, is left alone.
#[must_use]
pub fn orphans<'a>(
    keys: impl IntoIterator<Item = &'a str>,
    now: DateTime<Utc>,
    grace: TimeDelta,
) -> Vec<Orphans> {
    let mut snapshots: BTreeMap<SnapshotId, Vec<&str>> = BTreeMap::new();
    for key in keys {
        if let Some(id) = layout::parse_snapshot_key(key) {
            snapshots.entry(id).or_default().push(key);
        }
    }
    snapshots
        .into_iter()
        .filter(|(id, _)| now.signed_duration_since(id.started()) > grace)
        .filter_map(|(id, mut keys)| {
            let manifest = layout::snapshot_manifest(&id);
            let finished = keys.contains(&manifest.as_str());
            if finished {
                keys.retain(|key| layout::is_snapshot_progress(key));
            }
            keys.sort_unstable();
            (!keys.is_empty()).then(|| Orphans {
                id,
                finished,
                keys: keys.into_iter().map(ToOwned::to_owned).collect(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_old_and_unnamed_is_an_orphan() {
        let at = |hours: i64| DateTime::UNIX_EPOCH + TimeDelta::hours(hours);
        let id = |hours, random| SnapshotId::new(at(hours), random);
        let (whole, dead, young) = (id(1, 1), id(2, 2), id(40, 3));
        let keys = [
            layout::snapshot_manifest(&whole),
            layout::snapshot_data(&whole, "d", "t", 0),
            layout::snapshot_view(&whole),
            layout::snapshot_data(&dead, "d", "t", 0),
            layout::snapshot_progress(&dead, 1),
            layout::snapshot_data(&young, "d", "t", 0),
            "snapshots/something/else".to_owned(),
        ];
        let found = orphans(
            keys.iter().map(String::as_str),
            at(48),
            TimeDelta::hours(24),
        );
        assert_eq!(
            found,
            [
                Orphans {
                    id: whole,
                    finished: true,
                    keys: vec![keys[2].clone()],
                },
                Orphans {
                    id: dead,
                    finished: false,
                    keys: vec![keys[3].clone(), keys[4].clone()],
                },
            ]
        );
        let none = orphans(
            keys.iter().map(String::as_str),
            at(48),
            TimeDelta::hours(72),
        );
        assert!(none.is_empty(), "{none:?}");
    }
}
