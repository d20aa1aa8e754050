//! Tables as a server prints them (`SHOW CREATE TABLE`): under other names, and their foreign keys.

use super::lexer::{Dialect, Kind, Lexer, Misunderstood, Piece};
use super::staging::{StageError, StagedStatement, Staging};
use super::statement::{NameCase, Statement, TableName};
use crate::mysql::quote;
use crate::mysql::version::ServerVersion;

/// What happens to the rows that refer to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferentialAction {
    /// The change is refused: `NO ACTION`, which is also what is meant where nothing is said.
    NoAction,
    /// The change is refused: `RESTRICT`.
    Restrict,
    /// They are changed or deleted as well.
    Cascade,
    /// They refer to nothing then.
    SetNull,
    /// They have their default then (which InnoDB does not take).
    SetDefault,
}

impl ReferentialAction {
    /// Whether it changes rows of the table that has the foreign key.
    #[must_use]
    pub const fn changes_rows(self) -> bool {
        matches!(self, Self::Cascade | Self::SetNull | Self::SetDefault)
    }

    const fn sql(self) -> &'static str {
        match self {
            Self::NoAction => "NO ACTION",
            Self::Restrict => "RESTRICT",
            Self::Cascade => "CASCADE",
            Self::SetNull => "SET NULL",
            Self::SetDefault => "SET DEFAULT",
        }
    }
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// Its name, unique in its schema.
    pub name: String,
    /// The columns that refer.
    pub columns: Vec<String>,
    /// The table that they refer to.
    pub parent: TableName,
    /// The columns of that one.
    pub parent_columns: Vec<String>,
    /// What happens when a row of the parent is deleted.
    pub on_delete: ReferentialAction,
    /// What happens when the columns of a row of the parent change.
    pub on_update: ReferentialAction,
    /// The clause as it stands: `CONSTRAINT ... FOREIGN KEY ...`, for `ALTER TABLE ... ADD`.
    pub clause: Vec<u8>,
}

impl ForeignKey {
    /// The clause with another parent, or the same with its schema said: `CONSTRAINT ... FOREIGN KEY ...`, for
    /// `ALTER TABLE ... ADD`.
    #[must_use]
    pub fn clause_to(&self, parent: &TableName) -> String {
        let list = |columns: &[String]| {
            let columns = columns.iter().map(|column| quote::identifier(column));
            columns.collect::<Vec<String>>().join(", ")
        };
        let mut clause = format!(
            "CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({})",
            quote::identifier(&self.name),
            list(&self.columns),
            quote::qualified(&parent.database, &parent.table),
            list(&self.parent_columns),
        );
        // The server prints NO ACTION by saying nothing.
        for (what, action) in [("DELETE", self.on_delete), ("UPDATE", self.on_update)] {
            if action != ReferentialAction::NoAction {
                clause.push_str(&format!(" ON {what} {}", action.sql()));
            }
        }
        clause
    }
}

/// The statement that makes a table of the snapshot in its staging schema. The text is what the server
/// printed, its schema is `database`.
///
/// # Errors
///
/// [`StageError`]; [`StageError::NoStaging`] also for a parent of a foreign key.
pub fn staged(
    create: &[u8],
    database: &str,
    version: &ServerVersion,
    case: NameCase,
    staging: &Staging,
) -> Result<StagedStatement, StageError> {
    let dialect = Dialect::of_scripts(version.clone());
    Statement::parse(create, Some(database), &dialect, case)?.staged(staging)
}

/// The foreign keys of a table that the server printed, in the order of the text. The table's
/// schema is `database`.
///
/// # Errors
///
/// [`Misunderstood`] if it is not what a server prints.
pub fn foreign_keys(
    create: &[u8],
    database: &str,
    version: &ServerVersion,
) -> Result<Vec<ForeignKey>, Misunderstood> {
    let dialect = Dialect::of_scripts(version.clone());
    let pieces = Lexer::new(create, &dialect)?.pieces()?;
    let mut keys = Vec::new();
    let mut depth = 0_u32;
    for (at, piece) in pieces.iter().enumerate() {
        match piece.kind {
            Kind::Sign(b'(') => depth += 1,
            Kind::Sign(b')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        let is_key = |from: usize| {
            let after = &pieces[from..];
            matches!(after, [a, b, ..] if a.is_word("FOREIGN") && b.is_word("KEY"))
        };
        if depth == 1 && piece.is_word("CONSTRAINT") && at + 2 <= pieces.len() && is_key(at + 2) {
            let clause = Clause {
                pieces: &pieces,
                at: at + 1,
            };
            keys.push(clause.read(create, database)?);
        }
    }
    Ok(keys)
}

/// A clause, behind its first word.
struct Clause<'a> {
    pieces: &'a [Piece],
    at: usize,
}

impl Clause<'_> {
    fn read(mut self, text: &[u8], database: &str) -> Result<ForeignKey, Misunderstood> {
        let from = self.pieces[self.at - 1].span.start;
        let name = self.name()?;
        self.at += 2;
        let columns = self.columns()?;
        self.word("REFERENCES")?;
        let mut parent = TableName::new(database, self.name()?);
        if self.sign(b'.') {
            parent = TableName::new(parent.table, self.name()?);
        }
        let parent_columns = self.columns()?;
        let (mut on_delete, mut on_update) =
            (ReferentialAction::NoAction, ReferentialAction::NoAction);
        while self.is_word("ON") {
            self.at += 1;
            let of_delete = self.is_word("DELETE");
            self.at += 1;
            let action = self.action()?;
            match of_delete {
                true => on_delete = action,
                false => on_update = action,
            }
        }
        let is_end = |piece: &Piece| piece.is_sign(b',') || piece.is_sign(b')');
        if !self.pieces.get(self.at).is_some_and(is_end) {
            return Err(self.refuse("a foreign key that is not understood"));
        }
        let to = self.pieces[self.at - 1].span.end;
        Ok(ForeignKey {
            name,
            columns,
            parent,
            parent_columns,
            on_delete,
            on_update,
            clause: text.get(from..to).unwrap_or_default().to_vec(),
        })
    }

    fn refuse(&self, reason: &str) -> Misunderstood {
        let at = self.pieces.get(self.at).map(|piece| piece.span.start);
        Misunderstood::new(reason, at.unwrap_or_default())
    }

    fn is_word(&self, word: &str) -> bool {
        let piece = self.pieces.get(self.at);
        piece.is_some_and(|piece| piece.is_word(word))
    }

    fn word(&mut self, word: &str) -> Result<(), Misunderstood> {
        if !self.is_word(word) {
            return Err(self.refuse(&format!("{word} is expected here")));
        }
        self.at += 1;
        Ok(())
    }

    fn sign(&mut self, sign: u8) -> bool {
        let piece = self.pieces.get(self.at);
        let fits = piece.is_some_and(|piece| piece.is_sign(sign));
        self.at += usize::from(fits);
        fits
    }

    fn name(&mut self) -> Result<String, Misunderstood> {
        match self.pieces.get(self.at).map(|piece| &piece.kind) {
            Some(Kind::Quoted(name)) => {
                self.at += 1;
                Ok(name.clone())
            }
            _ => Err(self.refuse("a name in backticks is expected here")),
        }
    }

    fn columns(&mut self) -> Result<Vec<String>, Misunderstood> {
        if !self.sign(b'(') {
            return Err(self.refuse("columns are expected here"));
        }
        let mut columns = vec![self.name()?];
        while self.sign(b',') {
            columns.push(self.name()?);
        }
        match self.sign(b')') {
            true => Ok(columns),
            false => Err(self.refuse("a parenthesis is expected here")),
        }
    }

    fn action(&mut self) -> Result<ReferentialAction, Misunderstood> {
        for (words, action) in [
            (&["CASCADE"][..], ReferentialAction::Cascade),
            (&["RESTRICT"], ReferentialAction::Restrict),
            (&["SET", "NULL"], ReferentialAction::SetNull),
            (&["SET", "DEFAULT"], ReferentialAction::SetDefault),
            (&["NO", "ACTION"], ReferentialAction::NoAction),
        ] {
            let ahead = self.pieces.get(self.at..).unwrap_or_default();
            let mut pairs = words.iter().zip(ahead);
            if ahead.len() >= words.len() && pairs.all(|(word, piece)| piece.is_word(word)) {
                self.at += words.len();
                return Ok(action);
            }
        }
        Err(self.refuse("an action is expected here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATE: &str = "CREATE TABLE `t` (\n  `a` int DEFAULT NULL COMMENT 'CONSTRAINT `x` FOREIGN KEY',\n  `b` int DEFAULT NULL,\n  \
        KEY `k` (`a`,`b`),\n  CONSTRAINT `t_ibfk_1` FOREIGN KEY (`a`, `b`) REFERENCES `p``,` (`x`, `y`) ON DELETE CASCADE ON UPDATE SET NULL,\n  \
        CONSTRAINT `far` FOREIGN KEY (`a`) REFERENCES `o`.`q` (`z`),\n  CONSTRAINT `own` FOREIGN KEY (`b`) REFERENCES `t` (`a`) ON DELETE RESTRICT,\n  \
        CONSTRAINT `t_chk_1` CHECK ((`a` > 0))\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4\n/*!50100 PARTITION BY HASH (`a`) */";

    fn version() -> ServerVersion {
        ServerVersion::parse("8.4.6").expect("a version")
    }

    #[test]
    fn foreign_keys_are_read_whole() {
        let keys = foreign_keys(CREATE.as_bytes(), "d", &version()).expect("good");
        let clauses: Vec<String> = keys.iter().map(|key| key.clause_to(&key.parent)).collect();
        assert_eq!(
            clauses,
            [
                "CONSTRAINT `t_ibfk_1` FOREIGN KEY (`a`, `b`) REFERENCES `d`.`p``,` (`x`, `y`) ON DELETE CASCADE ON UPDATE SET NULL",
                "CONSTRAINT `far` FOREIGN KEY (`a`) REFERENCES `o`.`q` (`z`)",
                "CONSTRAINT `own` FOREIGN KEY (`b`) REFERENCES `d`.`t` (`a`) ON DELETE RESTRICT",
            ]
        );
        assert_eq!(
            String::from_utf8_lossy(&keys[1].clause),
            "CONSTRAINT `far` FOREIGN KEY (`a`) REFERENCES `o`.`q` (`z`)"
        );
        assert!(keys[0].on_update.changes_rows() && !keys[2].on_delete.changes_rows());
        assert_eq!(keys[0].parent_columns, ["x", "y"]);
        for end in 0..CREATE.len() {
            // It ends somewhere, whatever is cut off.
            let _ = foreign_keys(&CREATE.as_bytes()[..end], "d", &version());
        }
    }

    #[test]
    fn a_table_is_made_in_its_staging_schema() {
        let pairs = [("d", "s1"), ("o", "s2")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        let staging = Staging::new(pairs, NameCase::Distinct).expect("distinct");
        let made = staged(
            CREATE.as_bytes(),
            "d",
            &version(),
            NameCase::Distinct,
            &staging,
        );
        let made = made.expect("good");
        let expected = CREATE
            .replacen("TABLE `t`", "TABLE `s1`.`t`", 1)
            .replace("REFERENCES `p``", "REFERENCES `s1`.`p``")
            .replace("REFERENCES `o`", "REFERENCES `s2`")
            .replace("REFERENCES `t`", "REFERENCES `s1`.`t`");
        assert_eq!(String::from_utf8_lossy(&made.text), expected);
    }
}
