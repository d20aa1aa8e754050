//! The names in what stands behind the table's own: definitions, clauses, options.

use super::super::lexer::{Kind, Misunderstood, Piece};
use super::cursor::{Cursor, is_number};
use super::{NameCase, NameUse, Refusal, Role, TableName};

/// What the definition belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Create,
    Alter,
    Index,
}

/// Engines whose tables show what is in others, or on another server.
const FOREIGN: [(&str, &str); 4] = [
    ("MERGE", "MERGE"),
    ("MRG_MYISAM", "MERGE"),
    ("FEDERATED", "FEDERATED"),
    ("NDBCLUSTER", "NDB"),
];

pub(super) struct Scan<'a> {
    pub(super) kind: Body,
    pub(super) own: &'a TableName,
    pub(super) default: Option<&'a str>,
    pub(super) case: NameCase,
    pub(super) text: &'a [u8],
    pub(super) names: &'a mut Vec<NameUse>,
    pub(super) renamed: bool,
    pub(super) starts_transaction: bool,
}

impl Scan<'_> {
    /// Reads to the end; whether it starts a transaction.
    pub(super) fn read(mut self, cursor: &mut Cursor<'_>) -> Result<bool, Refusal> {
        let mut depth = 0_u32;
        // A refusal does not end the reading of ALTER: a new name may follow.
        let mut refusal = None;
        while let Some(piece) = cursor.ahead(0) {
            match &piece.kind {
                Kind::Sign(b'(') => depth += 1,
                Kind::Sign(b')') => match depth.checked_sub(1) {
                    Some(less) => depth = less,
                    None => return Err(cursor.refuse("a parenthesis too many").into()),
                },
                Kind::Sign(b';') => {
                    cursor.end()?;
                    continue;
                }
                Kind::Sign(b'@') => return Err(cursor.refuse("a variable").into()),
                Kind::Sign(b'.') => {
                    // A number may begin with its dot.
                    let is_fraction = cursor.ahead(1).is_some_and(
                        |next| matches!(&next.kind, Kind::Word(word) if is_digit_first(word)),
                    );
                    if !is_fraction {
                        return Err(cursor.refuse("a dot that is not understood").into());
                    }
                    cursor.at += 1;
                }
                Kind::Sign(_) | Kind::Literal => {}
                Kind::Word(word) if is_digit_first(word) && is_number(word) => {
                    if cursor.ahead(1).is_some_and(|next| next.is_sign(b'.')) {
                        cursor.at += 1;
                        let fraction = cursor.ahead(1).map(|next| &next.kind);
                        if matches!(fraction, Some(Kind::Word(word)) if is_digit_first(word) || word.starts_with(['e', 'E']))
                        {
                            cursor.at += 1;
                        }
                    }
                }
                Kind::Word(_) | Kind::Quoted(_) => {
                    if cursor.ahead(1).is_some_and(|next| next.is_sign(b'.')) {
                        self.qualified(cursor)?;
                        continue;
                    }
                    if matches!(piece.kind, Kind::Word(_)) {
                        match self.keyword(cursor, depth) {
                            Ok(true) => continue,
                            Ok(false) => {}
                            Err(other) if self.kind == Body::Alter && !other.is_unknown() => {
                                refusal.get_or_insert(other);
                            }
                            Err(error) => return Err(error),
                        }
                    }
                }
            }
            cursor.at += 1;
        }
        if depth > 0 {
            return Err(cursor.refuse("a parenthesis does not end").into());
        }
        match refusal {
            Some(refusal) => Err(refusal),
            None => Ok(self.starts_transaction),
        }
    }

    /// `table.column` or `schema.table.column`, of the table itself.
    fn qualified(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Refusal> {
        let mut parts = vec![cursor.identifier()?];
        while cursor.sign(b'.') {
            parts.push(cursor.identifier()?);
        }
        if cursor.ahead(0).is_some_and(|piece| piece.is_sign(b'(')) {
            return Err(cursor.refuse("a function of a schema").into());
        }
        let same = |a: &str, b: &str| self.case.same(a, b);
        match &parts[..] {
            [(table, _), _] if same(table, &self.own.table) => Ok(()),
            [(database, database_span), (table, table_span), _]
                if same(database, &self.own.database) && same(table, &self.own.table) =>
            {
                self.names.push(NameUse {
                    role: Role::ColumnOf,
                    name: self.own.clone(),
                    database_span: Some(database_span.clone()),
                    table_span: table_span.clone(),
                });
                Ok(())
            }
            _ => {
                let at = parts[0].1.start;
                let reason = "a name with a dot that is no column of the table itself";
                Err(Misunderstood::new(reason, at).into())
            }
        }
    }

    /// What a word that is reserved leads to; whether it was passed, with what follows.
    fn keyword(&mut self, cursor: &mut Cursor<'_>, depth: u32) -> Result<bool, Refusal> {
        let next_is = |word: &str| cursor.is_ahead(1, word);
        let partition = next_is("PARTITION") && !cursor.is_ahead(2, "BY");
        let Some(piece) = cursor.ahead(0) else {
            return Ok(false);
        };
        if piece.is_word("REFERENCES") {
            cursor.at += 1;
            // Without a schema it is in that of the table itself, whatever the default one is.
            let found = cursor.name()?.of(Role::Parent, Some(&self.own.database))?;
            self.names.push(found);
            return Ok(true);
        }
        if piece.is_word("SELECT") || piece.is_word("VALUES") && next_is("ROW") {
            return Err(Refusal::Query);
        }
        if piece.is_word("UNION") {
            return Err(Refusal::ForeignRows("MERGE"));
        }
        if piece.is_word("TABLE") {
            return Err(match self.kind {
                Body::Create => Refusal::Query,
                _ => cursor.refuse("TABLE in an unknown place").into(),
            });
        }
        if piece.is_word("WITH") && !next_is("PARSER") && !next_is("VALIDATION") {
            return Err(match self.kind {
                Body::Create => Refusal::Query,
                _ => cursor.refuse("WITH in an unknown place").into(),
            });
        }
        if piece.is_word("ENGINE") {
            return self.engine(cursor).map_or(Ok(false), Err);
        }
        if piece.is_word("START") && next_is("TRANSACTION") {
            self.starts_transaction = true;
        }
        if self.kind != Body::Alter {
            return Ok(false);
        }
        if piece.is_word("RENAME") {
            if ["COLUMN", "INDEX", "KEY"].iter().any(|word| next_is(word)) {
                return Ok(false);
            }
            return self.rename(cursor, depth).map(|()| true);
        }
        if piece.is_word("EXCHANGE") && partition {
            cursor.at += 2;
            cursor.identifier()?;
            if !cursor.eat(&["WITH", "TABLE"]) {
                return Err(cursor.refuse("WITH TABLE is expected here").into());
            }
            let found = cursor.name()?;
            let found = found.of(Role::ExchangePartner, self.default)?;
            self.names.push(found);
            return Ok(true);
        }
        let is_tablespace = piece.is_word("IMPORT") || piece.is_word("DISCARD");
        if is_tablespace && (partition || next_is("TABLESPACE")) {
            return Err(Refusal::Tablespace);
        }
        Ok(false)
    }

    fn rename(&mut self, cursor: &mut Cursor<'_>, depth: u32) -> Result<(), Refusal> {
        if depth > 0 || self.renamed {
            return Err(cursor.refuse("RENAME in an unknown place").into());
        }
        cursor.at += 1;
        if !cursor.eat_any(&["TO", "AS"]) {
            cursor.sign(b'=');
        }
        let found = cursor.name()?.of(Role::NewName, self.default)?;
        self.names.push(found);
        self.renamed = true;
        Ok(())
    }

    /// Why a table of this engine is refused, if it is.
    fn engine(&self, cursor: &Cursor<'_>) -> Option<Refusal> {
        let sign = cursor.ahead(1).is_some_and(|piece| piece.is_sign(b'='));
        let value: &Piece = cursor.ahead(1 + usize::from(sign))?;
        let text = self.text.get(value.span.clone())?;
        let text = String::from_utf8_lossy(text);
        let name = text.trim_matches(['\'', '"', '`']);
        let known = FOREIGN.iter();
        let mut known = known.filter(|(engine, _)| name.eq_ignore_ascii_case(engine));
        known.next().map(|(_, engine)| Refusal::ForeignRows(engine))
    }
}

fn is_digit_first(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
}
