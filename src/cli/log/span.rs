//! Where knowledge ends: what was searched, what is missing there, and which tables there are.

use std::collections::BTreeSet;

use super::super::render;
use crate::archive::catalog::AcceptedGap;
use crate::archive::history::{History, Member};
use crate::archive::search::Filter;
use crate::clock::rfc3339;

/// So many names of tables are offered.
const NEAREST: usize = 3;

/// The accepted gaps that may lie between the moments of a filter.
pub(super) fn gaps_within<'a>(
    history: &'a History,
    filter: &'a Filter,
) -> impl Iterator<Item = &'a AcceptedGap> {
    history.gaps.iter().filter(|gap| {
        let ends_before = filter
            .since
            .zip(gap.first_commit)
            .is_some_and(|(since, behind)| behind < since);
        let begins_after = filter
            .until
            .zip(gap.last_commit)
            .is_some_and(|(until, before)| before > until);
        !ends_before && !begins_after
    })
}

/// What is told at the end.
pub(super) fn footer(history: &History, filter: &Filter, found: u64, is_cut: bool) -> Vec<String> {
    let complete_to = history.complete_to();
    let complete =
        complete_to.map_or_else(String::new, |to| format!(", complete to {}", rfc3339(to)));
    let (shown, held) = (
        render::plural(found, "transaction"),
        render::count(history.transactions()),
    );
    let mut lines = vec![match is_cut {
        true => format!("{shown} shown, there may be more; {held} archived{complete}"),
        false => format!("{shown} of {held} archived{complete}"),
    }];
    if let (Some(until), Some(to)) = (filter.until, complete_to)
        && until > to
    {
        lines.push(format!(
            "nothing is known of the time behind {} (--until {})",
            rfc3339(to),
            rfc3339(until)
        ));
    }
    if let (Some(since), Some(to)) = (filter.since, complete_to)
        && since > to
    {
        lines.push(format!("--since {} is behind that", rfc3339(since)));
    }
    let first = history
        .members
        .iter()
        .find_map(|member| member.first_commit);
    if let (Some(since), Some(first)) = (filter.since, first)
        && since < first
        && found > 0
    {
        lines.push(format!("the log begins at {}", rfc3339(first)));
    }
    if found == 0 {
        lines.extend(nothing(history, filter, first));
    }
    lines
}

/// What was searched in vain.
fn nothing(
    history: &History,
    filter: &Filter,
    first: Option<chrono::DateTime<chrono::Utc>>,
) -> Vec<String> {
    let mut lines = Vec::new();
    let from = filter.since.max(first);
    let to = match (filter.until, history.complete_to()) {
        (Some(until), Some(to)) => Some(until.min(to)),
        (until, to) => until.or(to),
    };
    if let (Some(from), Some(to)) = (from, to)
        && from <= to
    {
        lines.push(format!("searched: {} to {}", rfc3339(from), rfc3339(to)));
    }
    if filter.tables.include.is_empty() {
        return lines;
    }
    let within = |member: &&Member| {
        filter
            .since
            .is_none_or(|since| member.last_commit >= Some(since))
    };
    let members = history.members.iter().filter(within);
    let known: BTreeSet<&str> = members
        .flat_map(|member| member.stored.index.tables.iter().map(String::as_str))
        .collect();
    if known.iter().any(|name| filter.hits(name)) {
        return lines;
    }
    let patterns: Vec<String> = filter
        .tables
        .include
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut near: Vec<(usize, &str)> = known
        .iter()
        .filter_map(|name| {
            let distances = patterns.iter().map(|pattern| distance(pattern, name));
            let nearest = distances.min()?;
            let is_near = nearest <= 2 + name.len() / 5;
            let has_table = patterns.iter().any(|pattern| same_table(pattern, name));
            (is_near || has_table).then_some((nearest, *name))
        })
        .collect();
    near.sort_unstable();
    let names: Vec<&str> = near.iter().take(NEAREST).map(|(_, name)| *name).collect();
    lines.push(match names.is_empty() {
        true => format!(
            "no rows of {} changed there; rows of {} did",
            patterns.join(", "),
            render::plural(known.len() as u64, "other table")
        ),
        false => format!(
            "no rows of {} changed there; nearest: {}",
            patterns.join(", "),
            names.join(", ")
        ),
    });
    lines
}

/// Whether only the schema differs, or the case.
fn same_table(pattern: &str, name: &str) -> bool {
    let table = |text: &str| text.split_once('.').map(|(_, table)| table.to_lowercase());
    table(pattern).is_some_and(|wanted| table(name) == Some(wanted))
}

/// How many letters must be put in, taken out or changed, whatever their case.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_near_by_their_letters() {
        assert_eq!(distance("shop.page", "shop.pages"), 1);
        assert_eq!(distance("shop.Page", "shop.page"), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert!(same_table("crm.users", "shop.users"));
        assert!(!same_table("users", "shop.users"));
    }
}
