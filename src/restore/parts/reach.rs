//! By which names a statement on rows reaches some tables.
//!
//! Rows that were logged as a statement are told by nothing but its text. It reaches a table whose name it
//! says, and one that it leads to: a view, a trigger, a routine or a foreign key whose own text says the name,
//! and so on. None of these can make up a statement as it runs (MySQL allows no prepared statements in
//! triggers and functions), so a table whose name nothing of it says is out of reach. The invariant: what
//! is called out of reach is; what is called reached may not be.

use std::collections::{BTreeMap, BTreeSet};

use crate::mysql::ddl::statement::TableName;

/// What leads from a name to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lead {
    /// The name by which a statement comes to it.
    pub(super) from: TableName,
    /// What it is, for a person: `the trigger d.t`.
    pub(super) what: String,
    /// What it says.
    pub(super) text: String,
    /// The schema of the names that it says without one; none if that is not known.
    pub(super) schema: Option<String>,
}

/// The names by which some tables are reached.
#[derive(Debug)]
pub(super) struct Reach {
    /// Each with the way, where it is not a table's own name.
    names: BTreeMap<TableName, Option<String>>,
}

impl Reach {
    /// All names that lead to `tables`, by their own names and by `leads`.
    pub(super) fn new(tables: &BTreeSet<TableName>, leads: &[Lead]) -> Self {
        let own = tables.iter().map(|table| (table.clone(), None));
        let mut reach = Self {
            names: own.collect(),
        };
        let texts: Vec<Text> = leads.iter().map(|lead| Text::new(&lead.text)).collect();
        let mut taken = vec![false; leads.len()];
        loop {
            let mut found = Vec::new();
            for (at, lead) in leads.iter().enumerate() {
                if taken[at] {
                    continue;
                }
                let Some((name, way)) = reach.said_in(&texts[at], lead.schema.as_deref()) else {
                    continue;
                };
                taken[at] = true;
                let way = match way {
                    Some(way) => format!("{} names {name}, {way}", lead.what),
                    None => format!("{} names {name}", lead.what),
                };
                found.push((lead.from.clone(), way));
            }
            if found.is_empty() {
                return reach;
            }
            for (name, way) in found {
                reach.names.entry(name).or_insert(Some(way));
            }
        }
    }

    /// Which name a statement says, and how that leads to the tables if it is not one of theirs.
    pub(super) fn of(
        &self,
        statement: &str,
        schema: Option<&str>,
    ) -> Option<(&TableName, Option<&str>)> {
        self.said_in(&Text::new(statement), schema)
    }

    fn said_in(&self, text: &Text, schema: Option<&str>) -> Option<(&TableName, Option<&str>)> {
        let schema = schema.filter(|schema| !schema.is_empty());
        let said = |(name, _): &(&TableName, &Option<String>)| text.says(name, schema);
        let direct = self.names.iter().filter(|(_, way)| way.is_none());
        let others = self.names.iter().filter(|(_, way)| way.is_some());
        let (name, way) = direct.chain(others).find(said)?;
        Some((name, way.as_deref()))
    }
}

/// A statement's text, in lower case.
struct Text {
    text: String,
    /// Whether some of it could not be read as UTF-8.
    is_garbled: bool,
}

impl Text {
    fn new(text: &str) -> Self {
        Self {
            text: text.to_lowercase(),
            is_garbled: text.contains(char::REPLACEMENT_CHARACTER),
        }
    }

    /// Whether it may say a table's name; names without a schema are of `schema`.
    fn says(&self, name: &TableName, schema: Option<&str>) -> bool {
        let (database, table) = (name.database.to_lowercase(), name.table.to_lowercase());
        if self.is_garbled && !table.is_ascii() {
            return true;
        }
        let is_elsewhere = schema.is_some_and(|schema| schema.to_lowercase() != database);
        let mut places = self.places(&table);
        places.any(|at| match qualifier(&self.text[..at]) {
            Some(found) => found == database || self.is_garbled && !database.is_ascii(),
            // The schema may stand where it is not looked for, as before a comment.
            None => !is_elsewhere || self.places(&database).next().is_some(),
        })
    }

    /// Where a name stands as a word of its own, as it is or in quotes that it has itself.
    fn places<'t>(&'t self, name: &'t str) -> impl Iterator<Item = usize> + 't {
        let of = |needle: String| {
            let found = self.text.match_indices(&needle).map(|(at, _)| at);
            let found: Vec<usize> = found
                .filter(|at| {
                    let before = self.text[..*at].chars().next_back();
                    let behind = self.text[at + needle.len()..].chars().next();
                    !before.is_some_and(is_word) && !behind.is_some_and(is_word)
                })
                .collect();
            found
        };
        let mut found = of(name.to_owned());
        for quote in ['`', '"'] {
            if name.contains(quote) {
                found.extend(of(name.replace(quote, &format!("{quote}{quote}"))));
            }
        }
        found.into_iter()
    }
}

/// What stands before a name and a dot, at the end of a text: of one in quotes its last word.
fn qualifier(before: &str) -> Option<&str> {
    let is_quote = |c: char| matches!(c, '`' | '"');
    let rest = before.strip_suffix(is_quote).unwrap_or(before).trim_end();
    let rest = rest.strip_suffix('.')?.trim_end();
    // A name in quotes may hold anything.
    if let Some(quote) = rest.chars().next_back().filter(|c| is_quote(*c)) {
        let inner = &rest[..rest.len() - 1];
        return inner.rfind(quote).map(|start| &inner[start + 1..]);
    }
    let start = rest
        .char_indices()
        .rev()
        .take_while(|(_, c)| is_word(*c))
        .last();
    start.map(|(at, _)| &rest[at..])
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TableName {
        let (schema, table) = text.split_once('.').expect("schema.table");
        TableName::new(schema, table)
    }

    fn reach(leads: &[(&str, &str, &str)]) -> Reach {
        let leads: Vec<Lead> = leads
            .iter()
            .map(|(from, what, text)| Lead {
                from: name(from),
                what: (*what).to_owned(),
                text: (*text).to_owned(),
                schema: Some(name(from).database),
            })
            .collect();
        Reach::new(&[name("shop.Page")].into(), &leads)
    }

    #[test]
    fn names_are_said_with_and_without_their_schema() {
        let reach = reach(&[]);
        for (schema, text, expected) in [
            (Some("shop"), "UPDATE page SET a = 1", true),
            (Some("shop"), "UPDATE pages SET a = 1", false),
            (Some("shop"), "UPDATE other.page SET a = 1", false),
            (Some("shop"), "UPDATE `other` . `page` SET a = 1", false),
            (Some("other"), "UPDATE page SET a = 1", false),
            (Some("other"), "UPDATE `Shop`.`PAGE` SET a = 1", true),
            (Some("other"), "UPDATE shop . page SET a = 1", true),
            (Some("other"), "UPDATE shop./* x */page SET a = 1", true),
            (Some(""), "LOAD DATA INFILE 'x' INTO TABLE `page`", true),
            (None, "INSERT INTO page VALUES (1)", true),
            (None, "INSERT INTO t VALUES ('page')", true),
            (None, "INSERT INTO homepage VALUES (1)", false),
        ] {
            assert_eq!(reach.of(text, schema).is_some(), expected, "{text}");
        }
    }

    #[test]
    fn odd_names_are_found_in_their_quotes() {
        let odd = Reach::new(&[name("s.a`b c")].into(), &[]);
        assert!(odd.of("DELETE FROM s.`a``b c`", Some("x")).is_some());
        assert!(odd.of("DELETE FROM \"a`b c\"", Some("s")).is_some());
        assert!(odd.of("DELETE FROM `a`", Some("s")).is_none());
        let dotted = Reach::new(&[name("s.t")].into(), &[]);
        assert!(dotted.of("DELETE FROM `x.s`.`t`", Some("s")).is_none());
        // Bytes of another character set.
        let foreign = Reach::new(&[name("s.strona_ż")].into(), &[]);
        assert!(
            foreign
                .of("DELETE FROM strona_\u{fffd}", Some("s"))
                .is_some()
        );
    }

    #[test]
    fn what_leads_to_a_table_reaches_it() {
        let reach = reach(&[
            (
                "shop.b",
                "the trigger shop.tr",
                "INSERT INTO audit SELECT f()",
            ),
            (
                "shop.f",
                "the function shop.f",
                "BEGIN UPDATE v SET x = 1; END",
            ),
            ("shop.v", "the view shop.v", "select x from `shop`.`page`"),
            (
                "shop.c",
                "the trigger shop.tc",
                "INSERT INTO audit VALUES (1)",
            ),
        ]);
        let (found, way) = reach
            .of("INSERT INTO b VALUES (1)", Some("shop"))
            .expect("reached");
        assert_eq!(found, &name("shop.b"));
        assert_eq!(
            way,
            Some(
                "the trigger shop.tr names shop.f, the function shop.f names shop.v, the view \
                 shop.v names shop.Page"
            )
        );
        assert_eq!(reach.of("INSERT INTO c VALUES (1)", Some("shop")), None);
        // The table's own name is told first.
        let own = reach.of("UPDATE v, page SET v.x = 1", Some("shop"));
        assert_eq!(own, Some((&name("shop.Page"), None)));
    }
}
