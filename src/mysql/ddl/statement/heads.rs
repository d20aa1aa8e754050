//! What a statement is, by its first words, and the names that stand there.

use super::super::lexer::{Dialect, Kind, Lexer, Misunderstood, Piece};
use super::body::{self, Body};
use super::cursor::Cursor;
use super::{NameCase, NameUse, Refusal, Role, Statement, StatementKind, TableName};

/// The first words of statements that frame a transaction.
const FRAMES: [&str; 8] = [
    "BEGIN",
    "START",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT",
    "RELEASE",
    "XA",
    "END",
];
/// The first words of statements that change rows, or may.
const ROWS: [&str; 9] = [
    "INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "WITH", "CALL", "DO", "SELECT",
];
/// The first words of statements that touch no table whatever follows.
const ELSEWHERE: [&str; 5] = ["GRANT", "REVOKE", "INSTALL", "UNINSTALL", "FLUSH"];
/// What CREATE, ALTER and DROP can be done to that is no table.
const OTHERS: [&str; 16] = [
    "USER",
    "ROLE",
    "PROCEDURE",
    "FUNCTION",
    "EVENT",
    "TABLESPACE",
    "UNDO",
    "LOGFILE",
    "SERVER",
    "RESOURCE",
    "SPATIAL",
    "INSTANCE",
    "LIBRARY",
    "MASKING",
    "COMPONENT",
    "PREPARE",
];

/// Reads a statement.
pub(super) fn read(
    text: &[u8],
    database: Option<&str>,
    dialect: &Dialect,
    case: NameCase,
) -> Result<Statement, Misunderstood> {
    let statement = |kind| Statement {
        kind,
        names: Vec::new(),
        database: None,
        refusal: None,
        text: text.to_vec(),
        dialect: dialect.clone(),
        database_span: 0..0,
    };
    // The first word is enough for most, and their texts can be long, and of any bytes.
    let first = Lexer::new(&text[..text.len().min(ascii(text))], dialect)?.next();
    if let Ok(Some(first)) = first {
        let is_any = |words: &[&str]| words.iter().any(|word| first.is_word(word));
        if is_any(&FRAMES) {
            return Ok(statement(StatementKind::Frame));
        }
        if is_any(&ROWS) || first.is_sign(b'(') {
            return Ok(statement(StatementKind::Rows));
        }
        if is_any(&ELSEWHERE) {
            return Ok(statement(StatementKind::Elsewhere));
        }
    }
    let pieces = Lexer::new(text, dialect)?.pieces()?;
    Reader {
        cursor: Cursor::new(&pieces, 0),
        pieces: &pieces,
        default: database,
        case,
        statement: statement(StatementKind::Elsewhere),
    }
    .read()
}

/// How many bytes at the beginning are ASCII.
fn ascii(text: &[u8]) -> usize {
    let foreign = text.iter().position(|byte| !byte.is_ascii());
    foreign.unwrap_or(text.len())
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    pieces: &'a [Piece],
    default: Option<&'a str>,
    case: NameCase,
    statement: Statement,
}

impl Reader<'_> {
    fn read(mut self) -> Result<Statement, Misunderstood> {
        let cursor = &mut self.cursor;
        if cursor.eat(&["CREATE"]) {
            self.create()?;
        } else if cursor.eat(&["ALTER"]) {
            self.alter()?;
        } else if cursor.eat(&["DROP"]) {
            self.drop()?;
        } else if cursor.eat(&["RENAME"]) {
            if cursor.eat_any(&["TABLE", "TABLES"]) {
                self.rename()?;
            } else if !cursor.eat(&["USER"]) {
                return Err(cursor.refuse("RENAME of something unknown"));
            }
        } else if cursor.eat(&["TRUNCATE"]) {
            cursor.eat(&["TABLE"]);
            self.statement.kind = StatementKind::TruncateTable;
            self.name(Role::Subject)?;
            self.cursor.end()?;
        } else if ["OPTIMIZE", "REPAIR", "ANALYZE"]
            .iter()
            .any(|word| cursor.is_ahead(0, word))
        {
            self.statement.kind = match cursor.eat(&["ANALYZE"]) {
                true => StatementKind::Analyze,
                false => StatementKind::Maintain,
            };
            cursor.eat_any(&["OPTIMIZE", "REPAIR"]);
            cursor.eat_any(&["NO_WRITE_TO_BINLOG", "LOCAL"]);
            if !cursor.eat_any(&["TABLE", "TABLES"]) {
                return Err(cursor.refuse("something unknown to maintain"));
            }
            self.list()?;
            self.no_more_names()?;
        } else if !cursor.eat(&["SET", "PASSWORD"]) && !cursor.eat(&["SET", "DEFAULT", "ROLE"]) {
            return Err(cursor.refuse("no statement that is known"));
        }
        Ok(self.statement)
    }

    fn name(&mut self, role: Role) -> Result<(), Misunderstood> {
        let found = self.cursor.name()?.of(role, self.default)?;
        self.statement.names.push(found);
        Ok(())
    }

    /// Names with commas between them.
    fn list(&mut self) -> Result<(), Misunderstood> {
        self.name(Role::Subject)?;
        while self.cursor.sign(b',') {
            self.name(Role::Subject)?;
        }
        Ok(())
    }

    fn create(&mut self) -> Result<(), Misunderstood> {
        if self.cursor.eat(&["TEMPORARY", "TABLE"]) {
            self.cursor.eat(&["IF", "NOT", "EXISTS"]);
            self.statement.kind = StatementKind::CreateTemporary;
            return self.name(Role::Subject);
        }
        if self.cursor.eat(&["TABLE"]) {
            return self.create_table();
        }
        if self.cursor.eat(&["INDEX"])
            || ["UNIQUE", "FULLTEXT", "SPATIAL"]
                .iter()
                .any(|word| self.cursor.eat(&[word, "INDEX"]))
        {
            return self.index(StatementKind::CreateIndex);
        }
        if self.cursor.eat_any(&["DATABASE", "SCHEMA"]) {
            let if_not_exists = self.cursor.eat(&["IF", "NOT", "EXISTS"]);
            return self.schema(StatementKind::CreateDatabase { if_not_exists });
        }
        self.pass_attributes()?;
        if self.cursor.eat(&["VIEW"]) {
            self.cursor.eat(&["IF", "NOT", "EXISTS"]);
            self.statement.kind = StatementKind::CreateView;
            return self.name(Role::Subject);
        }
        if self.cursor.eat(&["TRIGGER"]) {
            return self.create_trigger();
        }
        self.other()
    }

    fn create_table(&mut self) -> Result<(), Misunderstood> {
        let if_not_exists = self.cursor.eat(&["IF", "NOT", "EXISTS"]);
        self.statement.kind = StatementKind::CreateTable {
            if_not_exists,
            starts_transaction: false,
        };
        self.name(Role::Subject)?;
        if self.cursor.eat(&["LIKE"]) {
            self.name(Role::LikeSource)?;
            return self.cursor.end();
        }
        if self.cursor.is_ahead(1, "LIKE") && self.cursor.sign(b'(') {
            self.cursor.eat(&["LIKE"]);
            self.name(Role::LikeSource)?;
            if !self.cursor.sign(b')') {
                return Err(self.cursor.refuse("a parenthesis is expected here"));
            }
            return self.cursor.end();
        }
        let starts_transaction = self.body(Body::Create)?;
        self.statement.kind = StatementKind::CreateTable {
            if_not_exists,
            starts_transaction,
        };
        Ok(())
    }

    fn create_trigger(&mut self) -> Result<(), Misunderstood> {
        self.cursor.eat(&["IF", "NOT", "EXISTS"]);
        self.cursor.name()?;
        let has_event = self.cursor.eat_any(&["BEFORE", "AFTER"])
            && self.cursor.eat_any(&["INSERT", "UPDATE", "DELETE"])
            && self.cursor.eat(&["ON"]);
        if !has_event {
            return Err(self.cursor.refuse("a trigger that is not understood"));
        }
        self.statement.kind = StatementKind::CreateTrigger;
        self.name(Role::Subject)
    }

    fn alter(&mut self) -> Result<(), Misunderstood> {
        if self.cursor.eat(&["TABLE"]) {
            self.statement.kind = StatementKind::AlterTable;
            self.name(Role::Subject)?;
            self.body(Body::Alter)?;
            return Ok(());
        }
        if self.cursor.eat_any(&["DATABASE", "SCHEMA"]) {
            return self.schema(StatementKind::AlterDatabase);
        }
        self.pass_attributes()?;
        match self.cursor.eat(&["VIEW"]) {
            true => Ok(()),
            false => self.other(),
        }
    }

    fn drop(&mut self) -> Result<(), Misunderstood> {
        if self.cursor.eat(&["TEMPORARY"]) {
            if !self.cursor.eat_any(&["TABLE", "TABLES"]) {
                return Err(self.cursor.refuse("TABLE is expected here"));
            }
            self.statement.kind = StatementKind::DropTemporary;
            self.cursor.eat(&["IF", "EXISTS"]);
            return self.list();
        }
        if self.cursor.eat_any(&["TABLE", "TABLES"]) {
            self.statement.kind = StatementKind::DropTable;
            self.cursor.eat(&["IF", "EXISTS"]);
            self.list()?;
            self.cursor.eat_any(&["RESTRICT", "CASCADE"]);
            return self.cursor.end();
        }
        if self.cursor.eat(&["VIEW"]) {
            self.statement.kind = StatementKind::DropView;
            self.cursor.eat(&["IF", "EXISTS"]);
            self.list()?;
            self.cursor.eat_any(&["RESTRICT", "CASCADE"]);
            return self.cursor.end();
        }
        if self.cursor.eat(&["INDEX"]) {
            return self.index(StatementKind::DropIndex);
        }
        if self.cursor.eat_any(&["DATABASE", "SCHEMA"]) {
            self.cursor.eat(&["IF", "EXISTS"]);
            self.schema(StatementKind::DropDatabase)?;
            return match self.statement.database_span.is_empty() {
                true => Err(self.cursor.refuse("a schema is expected here")),
                false => Ok(()),
            };
        }
        if self.cursor.eat(&["TRIGGER"]) {
            self.cursor.eat(&["IF", "EXISTS"]);
            self.statement.kind = StatementKind::DropTrigger;
            return self.name(Role::Subject);
        }
        self.other()
    }

    fn rename(&mut self) -> Result<(), Misunderstood> {
        self.statement.kind = StatementKind::RenameTable;
        loop {
            self.name(Role::Subject)?;
            if !self.cursor.eat(&["TO"]) {
                return Err(self.cursor.refuse("TO is expected here"));
            }
            self.name(Role::NewName)?;
            if !self.cursor.sign(b',') {
                return self.cursor.end();
            }
        }
    }

    /// `name [USING type] ON table ...`.
    fn index(&mut self, kind: StatementKind) -> Result<(), Misunderstood> {
        self.statement.kind = kind;
        self.cursor.identifier()?;
        if self.cursor.eat_any(&["USING", "TYPE"]) {
            self.cursor.identifier()?;
        }
        if !self.cursor.eat(&["ON"]) {
            return Err(self.cursor.refuse("ON is expected here"));
        }
        self.name(Role::Subject)?;
        self.body(Body::Index)?;
        Ok(())
    }

    /// The definition behind the name; what is not understood in it is a refusal and no error.
    /// Whether it starts a transaction.
    fn body(&mut self, kind: Body) -> Result<bool, Misunderstood> {
        let subject = self.statement.names.first();
        let own = subject.map(|found| found.name.clone());
        let own = own.unwrap_or_else(|| TableName::new("", ""));
        let mut names: Vec<NameUse> = Vec::new();
        let read = body::Scan {
            kind,
            own: &own,
            default: self.default,
            case: self.case,
            text: &self.statement.text,
            names: &mut names,
            renamed: false,
            starts_transaction: false,
        }
        .read(&mut self.cursor);
        self.statement.names.append(&mut names);
        match read {
            Ok(starts_transaction) => Ok(starts_transaction),
            // There may be a new name, or a partner, that was not found.
            Err(Refusal::Unknown(error)) if self.has("RENAME") || self.has("EXCHANGE") => {
                Err(error)
            }
            Err(refusal) => {
                self.statement.refusal = Some(refusal);
                Ok(false)
            }
        }
    }

    fn has(&self, word: &str) -> bool {
        self.pieces.iter().any(|piece| piece.is_word(word))
    }

    /// A schema's name, unless options stand in its place, and no name with a dot behind it.
    fn schema(&mut self, kind: StatementKind) -> Result<(), Misunderstood> {
        const OPTIONS: [&str; 6] = [
            "DEFAULT",
            "CHARACTER",
            "CHARSET",
            "COLLATE",
            "ENCRYPTION",
            "READ",
        ];
        self.statement.kind = kind;
        let is_option = OPTIONS.iter().any(|word| self.cursor.is_ahead(0, word));
        let (name, span) = match (is_option, self.default) {
            (false, _) => self.cursor.identifier()?,
            (true, Some(default)) if kind == StatementKind::AlterDatabase => {
                let place = self.cursor.place();
                (default.to_owned(), place..place)
            }
            (true, _) => return Err(self.cursor.refuse("a schema is expected here")),
        };
        self.statement.database = Some(name);
        self.statement.database_span = span;
        self.no_more_names()
    }

    /// No name with a dot may follow.
    fn no_more_names(&self) -> Result<(), Misunderstood> {
        let rest = self.pieces.get(self.cursor.at..).unwrap_or_default();
        match rest.iter().find(|piece| piece.is_sign(b'.')) {
            Some(dot) => Err(Misunderstood::new("a name with a dot", dot.span.start)),
            None => Ok(()),
        }
    }

    /// `OR REPLACE`, `ALGORITHM = x`, `DEFINER = x`, `SQL SECURITY x` and their like.
    fn pass_attributes(&mut self) -> Result<(), Misunderstood> {
        let cursor = &mut self.cursor;
        loop {
            if cursor.eat(&["OR", "REPLACE"])
                || cursor.eat_any(&["AGGREGATE", "JSON", "RELATIONAL", "DUALITY", "MATERIALIZED"])
            {
                continue;
            }
            if cursor.eat(&["SQL", "SECURITY"]) {
                cursor.identifier()?;
            } else if cursor.eat(&["ALGORITHM"]) {
                cursor.sign(b'=');
                cursor.identifier()?;
            } else if cursor.eat(&["DEFINER"]) {
                cursor.sign(b'=');
                pass_account(cursor)?;
            } else {
                return Ok(());
            }
        }
    }

    fn other(&mut self) -> Result<(), Misunderstood> {
        match self.cursor.eat_any(&OTHERS) {
            true => Ok(()),
            false => Err(self.cursor.refuse("no statement that is known")),
        }
    }
}

/// `user`, `'user'@'host'`, `user@host.example` or `CURRENT_USER()`.
fn pass_account(cursor: &mut Cursor<'_>) -> Result<(), Misunderstood> {
    let part = |cursor: &mut Cursor<'_>| match cursor.ahead(0).map(|piece| &piece.kind) {
        Some(Kind::Word(_) | Kind::Quoted(_) | Kind::Literal) => {
            cursor.at += 1;
            Ok(())
        }
        _ => Err(cursor.refuse("an account is expected here")),
    };
    part(cursor)?;
    if cursor.sign(b'(') && !cursor.sign(b')') {
        return Err(cursor.refuse("a parenthesis is expected here"));
    }
    if cursor.sign(b'@') {
        part(cursor)?;
        while cursor.sign(b'.') {
            part(cursor)?;
        }
    }
    Ok(())
}
