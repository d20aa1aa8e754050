//! Puts things after those that they need.

use std::collections::{BTreeMap, BTreeSet};

/// The items in an order in which each stands after those that it needs; otherwise in the order
/// given. Items in a circle, which a server does not make, come last in the order given.
pub(super) fn topological<T, K: Ord + Clone>(
    items: Vec<T>,
    key: impl Fn(&T) -> K,
    needs: &BTreeMap<K, BTreeSet<K>>,
) -> Vec<T> {
    let known: BTreeSet<K> = items.iter().map(&key).collect();
    let mut done: BTreeSet<K> = BTreeSet::new();
    let mut ordered = Vec::with_capacity(items.len());
    let mut waiting = items;
    loop {
        let before = waiting.len();
        let mut still = Vec::new();
        for item in waiting {
            let name = key(&item);
            let ready = needs.get(&name).is_none_or(|needed| {
                needed
                    .iter()
                    .all(|other| *other == name || done.contains(other) || !known.contains(other))
            });
            if ready {
                done.insert(name);
                ordered.push(item);
            } else {
                still.push(item);
            }
        }
        if still.is_empty() || still.len() == before {
            ordered.extend(still);
            return ordered;
        }
        waiting = still;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_come_first_and_circles_last() {
        let needs = BTreeMap::from([
            ("a", BTreeSet::from(["c", "gone"])),
            ("c", BTreeSet::from(["d"])),
            ("x", BTreeSet::from(["y"])),
            ("y", BTreeSet::from(["x"])),
            ("self", BTreeSet::from(["self"])),
        ]);
        let items = vec!["a", "b", "x", "c", "y", "d", "self"];
        let ordered = topological(items, |item| *item, &needs);
        assert_eq!(ordered, ["b", "d", "self", "c", "a", "x", "y"]);
    }
}
