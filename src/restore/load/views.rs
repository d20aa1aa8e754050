//! Views and grants, which need each other: making a view on a view asks for the privileges of that
//! one's definer, and a grant on a view asks for the view.
//!
//! So grants are tried first, and what names a thing that is not there yet waits. Then views are
//! made in their order; one that fails for want of a privilege waits too, and both are tried again
//! for as long as something new succeeds.

use crate::archive::manifest::ScriptKind;
use crate::archive::script::{Script, object_of};

use super::accounts::Accounts;
use super::error::LoadError;
use super::scripts::{ScriptRunner, start_of};

/// What the server says where another view, function or grant may still be missing: an unknown
/// table (1146) or function (1305), a view that is invalid (1356), a privilege that is denied (1142,
/// 1143, 1370), a definer that does not exist (1449).
const WAITING: [u16; 7] = [1142, 1143, 1146, 1305, 1356, 1370, 1449];

/// A view with the settings that it needs.
struct Unit<'a> {
    kind: ScriptKind,
    name: String,
    statements: &'a [Vec<u8>],
}

/// Cuts a script behind every statement that makes something.
fn units(kind: ScriptKind, script: &Script) -> Vec<Unit<'_>> {
    let statements = script.statements();
    let mut units = Vec::new();
    let mut from = 0;
    for (n, statement) in statements.iter().enumerate() {
        let name = match object_of(statement) {
            Some((name, _)) => name,
            // Snapshots of older versions do not name their objects.
            None if statement.starts_with(b"CREATE ") => start_of(statement),
            None => continue,
        };
        units.push(Unit {
            kind,
            name,
            statements: &statements[from..=n],
        });
        from = n + 1;
    }
    units
}

impl ScriptRunner<'_> {
    /// Makes all views and grants what can be granted by then.
    pub(super) async fn views(&mut self, accounts: &mut Accounts) -> Result<(), LoadError> {
        let wanted = [ScriptKind::Views, ScriptKind::InvalidViews];
        let scripts = wanted.iter().flat_map(|wanted| {
            let of_kind = self.scripts.iter().filter(move |(kind, _)| kind == wanted);
            of_kind.flat_map(|(kind, script)| units(*kind, script))
        });
        let mut waiting: Vec<Unit<'_>> = scripts.collect();
        loop {
            let before = waiting.len();
            let mut still = Vec::new();
            let mut failures = Vec::new();
            for unit in waiting {
                let Err(source) = self.make(&unit).await else {
                    continue;
                };
                if self.is_there(&source) {
                    continue;
                }
                let may_wait = source.code().is_some_and(|code| WAITING.contains(&code));
                if !may_wait && (source.is_connection_lost() || !unit.kind.may_fail()) {
                    return Err(failed(unit, source));
                }
                failures.push(source);
                still.push(unit);
            }
            let granted = accounts.again(self.session).await?;
            if granted == 0 && still.len() == before {
                return self.give_up(still, failures);
            }
            waiting = still;
        }
    }

    async fn make(&mut self, unit: &Unit<'_>) -> Result<(), crate::mysql::MysqlError> {
        for statement in unit.statements {
            let statement = object_of(statement).map_or(&statement[..], |(_, statement)| statement);
            self.session.execute(statement).await?;
        }
        Ok(())
    }

    fn give_up(
        &mut self,
        units: Vec<Unit<'_>>,
        failures: Vec<crate::mysql::MysqlError>,
    ) -> Result<(), LoadError> {
        for (unit, source) in units.into_iter().zip(failures) {
            if !unit.kind.may_fail() {
                return Err(failed(unit, source));
            }
            self.not_made(unit.kind, &unit.name, &source);
        }
        Ok(())
    }
}

fn failed(unit: Unit<'_>, source: crate::mysql::MysqlError) -> LoadError {
    LoadError::Statement {
        kind: unit.kind,
        object: unit.name,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::script::of_object;

    #[test]
    fn a_view_is_taken_with_its_settings() {
        let mut script = Script::new();
        script.push("SET NAMES utf8mb4");
        script.push(of_object(&["d", "a"], b"CREATE VIEW a"));
        script.push("USE d");
        script.push("SET x = 1");
        script.push("CREATE VIEW old");
        script.push("SET y = 1");
        let units = units(ScriptKind::Views, &script);
        let shape: Vec<(&str, usize)> = units
            .iter()
            .map(|unit| (unit.name.as_str(), unit.statements.len()))
            .collect();
        assert_eq!(shape, [("d.a", 2), ("CREATE VIEW old", 3)]);
    }
}
