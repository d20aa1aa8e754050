//! Which schemas and tables are meant: `--include` and `--exclude`.
//!
//! A pattern is `schema` or `schema.table`, where `*` stands for any run of characters and `?`
//! for one. An object is meant if some include pattern matches (or none is given) and no exclude
//! pattern does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    database: String,
    object: Option<String>,
}

impl Pattern {
    /// Whether it matches this schema (no object given) or this object.
    #[must_use]
    pub fn hits(&self, database: &str, object: Option<&str>) -> bool {
        matches(&self.database, database)
            && match (&self.object, object) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(wanted), Some(object)) => matches(wanted, object),
            }
    }
}

/// The text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no pattern: {reason}")]
pub struct PatternError {
    text: String,
    reason: &'static str,
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let error = |reason| PatternError {
            text: text.to_owned(),
            reason,
        };
        let (database, object) = match text.split_once('.') {
            Some((database, object)) => (database, Some(object)),
            None => (text, None),
        };
        if database.is_empty() || object == Some("") {
            return Err(error(
                "a name is empty (patterns are schema or schema.table)",
            ));
        }
        if object.is_some_and(|object| object.contains('.')) {
            return Err(error(
                "it has more than one dot; write ? for a dot in a name",
            ));
        }
        Ok(Self {
            database: database.to_owned(),
            object: object.map(ToOwned::to_owned),
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.database)?;
        match &self.object {
            Some(object) => write!(f, ".{object}"),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

/// What is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// What to take; everything if this is empty.
    #[serde(default)]
    pub include: Vec<Pattern>,
    /// What to leave out even so.
    #[serde(default)]
    pub exclude: Vec<Pattern>,
}

/// As the flags that make it.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [("--include", &self.include), ("--exclude", &self.exclude)];
        let mut space = "";
        for (flag, patterns) in flags {
            for pattern in patterns {
                write!(f, "{space}{flag} {pattern}")?;
                space = " ";
            }
        }
        Ok(())
    }
}

impl Filter {
    /// Whether everything passes.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether anything in this schema may pass.
    #[must_use]
    pub fn passes_database(&self, database: &str) -> bool {
        let included = self.include.is_empty()
            || self
                .include
                .iter()
                .any(|pattern| matches(&pattern.database, database));
        included
            && !self
                .exclude
                .iter()
                .any(|pattern| pattern.object.is_none() && matches(&pattern.database, database))
    }

    /// Whether this object passes.
    #[must_use]
    pub fn passes(&self, database: &str, object: &str) -> bool {
        let hits = |pattern: &Pattern| pattern.hits(database, Some(object));
        (self.include.is_empty() || self.include.iter().any(hits)) && !self.exclude.iter().any(hits)
    }
}

/// What the patterns of a filter do to what there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterSurvey {
    /// Those that match nothing.
    pub unmatched: Vec<Pattern>,
    /// Those of the exclude patterns that together leave nothing of what is included; none if
    /// something is left.
    pub leave_nothing: Vec<Pattern>,
}

impl Filter {
    /// Holds the patterns against the names of schemas (no object given) and of the objects in them.
    #[must_use]
    pub fn survey(&self, names: &[(String, Option<String>)]) -> FilterSurvey {
        let is_hit = |pattern: &Pattern| {
            let mut names = names.iter();
            names.any(|(database, object)| pattern.hits(database, object.as_deref()))
        };
        let patterns = self.include.iter().chain(&self.exclude);
        let unmatched = patterns
            .filter(|pattern| !is_hit(pattern))
            .cloned()
            .collect();
        let mut meant: Vec<(&str, Option<&str>)> = names
            .iter()
            .map(|(database, object)| (database.as_str(), object.as_deref()))
            .filter(|(database, object)| {
                self.include.is_empty()
                    || self
                        .include
                        .iter()
                        .any(|pattern| pattern.hits(database, *object))
            })
            .collect();
        // What counts are objects; schemas do where there is nothing else.
        if meant.iter().any(|(_, object)| object.is_some()) {
            meant.retain(|(_, object)| object.is_some());
        }
        let is_excluded = |(database, object): &(&str, Option<&str>)| {
            let mut patterns = self.exclude.iter();
            patterns.any(|pattern| pattern.hits(database, *object))
        };
        let leave_nothing = match !meant.is_empty() && meant.iter().all(is_excluded) {
            true => {
                let hits = |pattern: &&Pattern| {
                    let mut meant = meant.iter();
                    meant.any(|(database, object)| pattern.hits(database, *object))
                };
                self.exclude.iter().filter(hits).cloned().collect()
            }
            false => Vec::new(),
        };
        FilterSurvey {
            unmatched,
            leave_nothing,
        }
    }
}

/// Matches with `*` and `?`, without backtracking over more than the last `*`.
fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        let parse = |texts: &[&str]| {
            let patterns = texts.iter().map(|text| text.parse().expect("a pattern"));
            patterns.collect::<Vec<Pattern>>()
        };
        Filter {
            include: parse(include),
            exclude: parse(exclude),
        }
    }

    #[test]
    fn include_and_exclude_decide_together() {
        let everything = filter(&[], &[]);
        assert!(everything.passes("a", "b") && everything.is_everything());
        let shop = filter(&["shop*", "crm.user?"], &["shop.tmp_*", "shop_old"]);
        for (database, table, passes) in [
            ("shop", "item", true),
            ("shop2", "item", true),
            ("shop", "tmp_1", false),
            ("shop_old", "item", false),
            ("crm", "users", true),
            ("crm", "user", false),
            ("other", "item", false),
        ] {
            assert_eq!(shop.passes(database, table), passes, "{database}.{table}");
        }
        assert_eq!(
            shop.to_string(),
            "--include shop* --include crm.user? --exclude shop.tmp_* --exclude shop_old"
        );
        assert_eq!(everything.to_string(), "");
        assert!(shop.passes_database("crm") && !shop.passes_database("shop_old"));
    }

    #[test]
    fn what_patterns_leave_is_known() {
        let names: Vec<(String, Option<String>)> = [
            ("shop", None),
            ("shop", Some("item")),
            ("shop", Some("page")),
            ("crm", None),
            ("crm", Some("user")),
            ("empty", None),
        ]
        .map(|(database, object)| (database.to_owned(), object.map(ToOwned::to_owned)))
        .into();
        let texts = |patterns: &[Pattern]| -> Vec<String> {
            patterns.iter().map(ToString::to_string).collect()
        };
        type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], &'a [&'a str]);
        let cases: [Case<'_>; 10] = [
            (&[], &["*"], &[], &["*"]),
            (&[], &["*.*"], &[], &["*.*"]),
            (&[], &["shop", "x", "crm.*"], &["x"], &["shop", "crm.*"]),
            (&[], &["shop"], &[], &[]),
            (&["crm"], &["shop"], &[], &[]),
            (&["crm"], &["shop", "crm.user"], &[], &["crm.user"]),
            (&["crm", "shop.itme"], &["*"], &["shop.itme"], &["*"]),
            // A schema without anything in it is something.
            (&["empty"], &[], &[], &[]),
            (&["empty"], &["empty"], &[], &["empty"]),
            (&["nothing"], &["*"], &["nothing"], &[]),
        ];
        for (include, exclude, unmatched, nothing) in cases {
            let survey = filter(include, exclude).survey(&names);
            assert_eq!(
                texts(&survey.unmatched),
                unmatched,
                "{include:?} {exclude:?}"
            );
            assert_eq!(
                texts(&survey.leave_nothing),
                nothing,
                "{include:?} {exclude:?}"
            );
        }
        let survey = filter(&[], &["*"]).survey(&[]);
        assert_eq!(texts(&survey.unmatched), ["*"]);
        assert!(survey.leave_nothing.is_empty(), "there is nothing to leave");
    }

    #[test]
    fn a_pattern_for_objects_does_not_hit_their_schema() {
        let pattern: Pattern = "shop.*".parse().expect("a pattern");
        assert!(pattern.hits("shop", Some("item")) && !pattern.hits("shop", None));
        let pattern: Pattern = "sh*".parse().expect("a pattern");
        assert!(pattern.hits("shop", Some("item")) && pattern.hits("shop", None));
    }

    #[test]
    fn stars_match_runs_and_question_marks_one() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("?", "", false),
            ("ż?", "żó", true),
            ("**x", "x", true),
            ("a*", "b", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn half_patterns_are_refused() {
        for text in ["", ".t", "db.", "a.b.c"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }
}
