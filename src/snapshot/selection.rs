//! What of a server is taken: patterns that match nothing, and tables that no read view covers.

use crate::mysql::schema::{Filter, Pattern, has_rows, is_innodb};

use super::error::SnapshotError;
use super::options::SnapshotOptions;
use super::plan::{SnapshotFacts, TableFacts};

/// An include pattern that matches nothing is refused, for what was meant would be missing, and so
/// are exclude patterns that leave nothing: nobody wants a snapshot of nothing. One that matches
/// nothing may be there for what comes and goes.
pub(super) fn warnings_of_filter(
    facts: &SnapshotFacts,
    options: &SnapshotOptions,
) -> Result<Vec<String>, SnapshotError> {
    let unmatched = |patterns: &[Pattern]| -> Vec<String> {
        let patterns = patterns.iter();
        patterns
            .filter(|pattern| facts.survey.unmatched.contains(pattern))
            .map(ToString::to_string)
            .collect()
    };
    let missing = unmatched(&options.filter.include);
    if !missing.is_empty() {
        return Err(SnapshotError::NothingMatches {
            server: facts.server.address.to_string(),
            patterns: missing,
        });
    }
    let leave_nothing = &facts.survey.leave_nothing;
    if !leave_nothing.is_empty() {
        let include = Filter {
            include: options.filter.include.clone(),
            exclude: Vec::new(),
        };
        return Err(SnapshotError::NothingLeft {
            server: facts.server.address.to_string(),
            patterns: leave_nothing.iter().map(ToString::to_string).collect(),
            of: match include.is_everything() {
                true => "what there is".to_owned(),
                false => format!("what {include} takes"),
            },
        });
    }
    Ok(unmatched(&options.filter.exclude)
        .into_iter()
        .map(|pattern| format!("--exclude {pattern} matches nothing on the server"))
        .collect())
}

/// What is to be known of a table whose rows no read view covers.
pub(super) fn warning_of_engine(table: &TableFacts) -> Option<String> {
    let name = format!("{}.{} ({})", table.database, table.name, table.engine);
    match (is_innodb(&table.engine), has_rows(&table.engine)) {
        (true, _) => None,
        (false, true) => Some(format!(
            "rows of {name} are those of some moment during the snapshot: they belong to no GTID set"
        )),
        (false, false) => Some(format!("{name} has no rows of its own: none are taken")),
    }
}

/// Refuses tables that InnoDB's read view does not cover.
pub(super) fn refuse_other_engines<'a>(
    tables: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
) -> Result<(), SnapshotError> {
    let tables: Vec<String> = tables
        .filter(|(_, _, engine)| !is_innodb(engine))
        .map(|(database, name, engine)| format!("{database}.{name} ({engine})"))
        .collect();
    if tables.is_empty() {
        Ok(())
    } else {
        Err(SnapshotError::NotInnodb { tables })
    }
}
