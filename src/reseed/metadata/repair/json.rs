//! Changes of a JSON column, key by key, so that what is not known stays.

use serde_json::Value;

use crate::mysql::quote;

use super::super::facts::Object;

/// What is to become of one JSON column of one row.
#[derive(Debug)]
pub(super) struct JsonChange<'a> {
    column: &'static str,
    old: &'a Object,
    set: Vec<(&'static str, String)>,
    removed: Vec<&'static str>,
}

impl<'a> JsonChange<'a> {
    pub(super) const fn new(column: &'static str, old: &'a Object) -> Self {
        Self {
            column,
            old,
            set: Vec::new(),
            removed: Vec::new(),
        }
    }

    /// Gives a key a text; whether that is a change.
    pub(super) fn text(&mut self, key: &'static str, text: &str) -> bool {
        if self.old.get(key).and_then(Value::as_str) == Some(text) {
            return false;
        }
        self.set.push((key, quote::string(text)));
        true
    }

    /// Gives a key a number; whether that is a change.
    pub(super) fn number(&mut self, key: &'static str, number: u32) -> bool {
        if self.old.get(key).and_then(Value::as_u64) == Some(u64::from(number)) {
            return false;
        }
        self.set.push((key, number.to_string()));
        true
    }

    /// Takes a key away; whether that is a change.
    pub(super) fn remove(&mut self, key: &'static str) -> bool {
        let is_there = self.old.contains_key(key);
        if is_there {
            self.removed.push(key);
        }
        is_there
    }

    /// The assignment, as `SET` takes it, if there is a change.
    pub(super) fn assignment(&self) -> Option<String> {
        if self.set.is_empty() && self.removed.is_empty() {
            return None;
        }
        let column = self.column;
        let mut expression = format!("IFNULL({column}, JSON_OBJECT())");
        if !self.removed.is_empty() {
            let paths: Vec<String> = self
                .removed
                .iter()
                .map(|key| format!("'$.{key}'"))
                .collect();
            expression = format!("JSON_REMOVE({expression}, {})", paths.join(", "));
        }
        if !self.set.is_empty() {
            let pairs: Vec<String> = self
                .set
                .iter()
                .map(|(key, value)| format!("'$.{key}', {value}"))
                .collect();
            expression = format!("JSON_SET({expression}, {})", pairs.join(", "));
        }
        Some(format!("{column} = {expression}"))
    }
}

/// A JSON object of these texts and numbers, as an expression.
pub(super) fn object(pairs: &[(&str, String)]) -> String {
    let fields: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("'{key}', {value}"))
        .collect();
    format!("JSON_OBJECT({})", fields.join(", "))
}
