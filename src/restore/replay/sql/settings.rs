//! The settings of a session to which statements of the log are said, as far as we have made them:
//! what a statement needs and the session has already is not said again.

use std::collections::HashMap;

use crate::mysql::version::ServerVersion;

/// A character set in which every statement of ours can be written: utf8mb4_general_ci.
const UTF8MB4: &str = "45";

/// The settings of a session that are known.
#[derive(Debug)]
pub(in crate::restore) struct SessionSettings {
    known: HashMap<&'static str, String>,
    knows_cascades: bool,
}

impl SessionSettings {
    /// Those of a new session, of which nothing is known.
    pub(in crate::restore) fn new(version: &ServerVersion) -> Self {
        Self {
            known: HashMap::new(),
            knows_cascades: version.at_least(9, 7, 0),
        }
    }

    /// The statement that makes settings what is wanted; none if they are that already. One that
    /// the server does not have is left out.
    pub(in crate::restore) fn change(
        &mut self,
        wanted: &[(&'static str, String)],
    ) -> Option<String> {
        let mut assignments = Vec::new();
        for (name, value) in wanted {
            if *name == "enable_cascade_triggers" && !self.knows_cascades {
                continue;
            }
            if self.known.get(name) != Some(value) {
                assignments.push(format!("@@SESSION.{name} = {value}"));
                self.known.insert(name, value.clone());
            }
        }
        (!assignments.is_empty()).then(|| format!("SET {}", assignments.join(", ")))
    }

    /// The same for a statement of our own that need not be ASCII.
    pub(in crate::restore) fn change_to_utf8(&mut self) -> Option<String> {
        self.change(&[("character_set_client", UTF8MB4.to_owned())])
    }

    /// Takes note of `USE`, which brings the schema's own collation.
    pub(in crate::restore) fn schema_changed(&mut self) {
        self.known.remove("collation_database");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(version: &str) -> SessionSettings {
        SessionSettings::new(&ServerVersion::parse(version).expect("a version"))
    }

    #[test]
    fn only_what_differs_is_said() {
        let mut settings = settings("8.4.0");
        let wanted = [
            ("sql_mode", "0".to_owned()),
            ("collation_database", "45".to_owned()),
        ];
        assert_eq!(
            settings.change(&wanted).as_deref(),
            Some("SET @@SESSION.sql_mode = 0, @@SESSION.collation_database = 45")
        );
        assert_eq!(settings.change(&wanted), None);
        let other = [wanted[0].clone(), ("collation_database", "8".to_owned())];
        assert_eq!(
            settings.change(&other).as_deref(),
            Some("SET @@SESSION.collation_database = 8")
        );
        settings.schema_changed();
        assert_eq!(
            settings.change(&other).as_deref(),
            Some("SET @@SESSION.collation_database = 8")
        );
        assert_eq!(
            settings.change_to_utf8().as_deref(),
            Some("SET @@SESSION.character_set_client = 45")
        );
        assert_eq!(settings.change_to_utf8(), None);
    }

    #[test]
    fn what_a_server_does_not_have_is_left_out() {
        let wanted = [("enable_cascade_triggers", "1".to_owned())];
        assert_eq!(settings("9.6.0").change(&wanted), None);
        assert_eq!(
            settings("9.7.0").change(&wanted).as_deref(),
            Some("SET @@SESSION.enable_cascade_triggers = 1")
        );
    }
}
