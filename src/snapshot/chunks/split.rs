//! Finds the next cut of a part, in the read view itself.
//!
//! Where a cut falls decides only how even the parts are; that no row is lost or doubled is the
//! work of [`range`]. So sizes are the optimizer's estimates, and between two integers
//! or byte strings a cut is simply counted. Other keys are cut at values that they have: the reader
//! steps over as many rows as a part shall have. Such a value is taken only if the server finds its
//! row again by the literal, which shows that the literal is understood as the value.
//!
//! Of a table with partitions a part that is one partition can be cut too, as long as the server
//! looks into that partition for both halves.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::mysql::quote;
use crate::mysql::wire::{WireConnection, WireError};

use super::key::{KeyColumn, TableKey};
use super::range::{self, Boundary, Range};

/// Cuts that a table is given at most for each part that was planned: estimates that are wrong
/// beyond measure shall not make a query for every row.
const CUTS_A_PART: u64 = 8;
/// And at least so many.
const CUTS_LEAST: u64 = 1024;

/// Cuts one table.
#[derive(Debug)]
pub(in crate::snapshot) struct Splitter {
    pub(in crate::snapshot) key: TableKey,
    table: String,
    chunk_rows: u64,
    cuts_left: AtomicU64,
}

/// A place at which a part falls in two.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::snapshot) struct Cut {
    pub(in crate::snapshot) at: Boundary,
    /// Whether the first half has its size already.
    pub(in crate::snapshot) first_is_done: bool,
}

/// What the optimizer thinks of a part.
#[derive(Debug, Default)]
struct Explained {
    /// How many rows it has.
    rows: u64,
    /// Where they are looked for; none if the table has no partitions or all are left out.
    partitions: Option<String>,
}

/// Values of the columns at which the table is cut.
type Place = Vec<Vec<u8>>;

impl Splitter {
    pub(in crate::snapshot) fn new(
        database: &str,
        table: &str,
        key: TableKey,
        chunks: u64,
        chunk_rows: u64,
    ) -> Self {
        Self {
            key,
            table: quote::qualified(database, table),
            chunk_rows: chunk_rows.max(1),
            cuts_left: AtomicU64::new(chunks.saturating_mul(CUTS_A_PART).max(CUTS_LEAST)),
        }
    }

    /// The next cut of a part, unless it is small enough or cannot be cut.
    ///
    /// A server that refuses one of the questions has said that there is no cut; if the table itself
    /// cannot be read, reading it will tell.
    ///
    /// # Errors
    ///
    /// A broken connection.
    pub(in crate::snapshot) async fn next_cut(
        &self,
        connection: &mut WireConnection,
        range: &Range,
    ) -> Result<Option<Cut>, WireError> {
        match self.find(connection, range).await {
            Err(error @ WireError::Server { .. }) => {
                tracing::debug!(table = self.table, %error, "a part is not cut further");
                Ok(None)
            }
            found => found,
        }
    }

    async fn find(
        &self,
        connection: &mut WireConnection,
        range: &Range,
    ) -> Result<Option<Cut>, WireError> {
        if range.partitions.len() > 1 {
            return Ok(None);
        }
        let seen = self.explain(connection, range).await?;
        let enough = self.chunk_rows.saturating_add(self.chunk_rows / 2);
        if seen.rows <= enough || !self.may_cut() {
            return Ok(None);
        }
        if let Some(at) = self.count(connection, range, seen.rows).await?
            && self.is_seen(connection, range, &at, &seen).await?
        {
            return Ok(Some(Cut {
                at,
                first_is_done: false,
            }));
        }
        match self.step(connection, range).await? {
            Some(at) if self.is_seen(connection, range, &at, &seen).await? => Ok(Some(Cut {
                at,
                first_is_done: true,
            })),
            _ => Ok(None),
        }
    }

    /// Whether the server would look for both halves in the partition that they are of. A row may be
    /// in another one than its key says (EXCHANGE PARTITION ... WITHOUT VALIDATION): it would be
    /// missed if the optimizer left the partition out for the half's condition.
    async fn is_seen(
        &self,
        connection: &mut WireConnection,
        range: &Range,
        at: &Boundary,
        whole: &Explained,
    ) -> Result<bool, WireError> {
        if range.partitions.is_empty() {
            return Ok(true);
        }
        if whole.partitions.is_none() {
            return Ok(false);
        }
        let (first, second) = range.cut(at);
        for half in [first, second] {
            if self.explain(connection, &half).await?.partitions != whole.partitions {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A place between the part's ends, if the column in which they differ can be counted in.
    async fn count(
        &self,
        connection: &mut WireConnection,
        range: &Range,
        rows: u64,
    ) -> Result<Option<Boundary>, WireError> {
        // An index that goes up and down is not read backwards without sorting.
        let mut directions = self.columns().map(|column| column.descending);
        let first = directions.next();
        if directions.any(|direction| Some(direction) != first) {
            return Ok(None);
        }
        let ends = (
            self.place(connection, range, None, &self.order(range, false), 0)
                .await?,
            self.place(connection, range, None, &self.order(range, true), 0)
                .await?,
        );
        let (Some(first), Some(last)) = ends else {
            return Ok(None);
        };
        let Some(differing) = first.iter().zip(&last).position(|(a, b)| a != b) else {
            return Ok(None);
        };
        let parts = rows.div_ceil(self.chunk_rows).max(2);
        let kinds: Vec<_> = self.key.cutting().map(|(_, kind)| kind).collect();
        let counted = range::interpolate(
            kinds[differing],
            &first[differing],
            &last[differing],
            (parts / 2, parts),
        );
        let at = counted.and_then(|literal| {
            let Boundary(mut at) = self.boundary(&first)?;
            at.truncate(differing);
            at.push(literal);
            Some(Boundary(at))
        });
        Ok(at)
    }

    fn may_cut(&self) -> bool {
        self.cuts_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }

    /// A value that the key has, so many rows into the part as it shall have.
    async fn step(
        &self,
        connection: &mut WireConnection,
        range: &Range,
    ) -> Result<Option<Boundary>, WireError> {
        let order = self.order(range, false);
        let reached = self
            .place(connection, range, None, &order, self.chunk_rows)
            .await?;
        let Some(at) = reached.and_then(|place| self.boundary(&place)) else {
            return Ok(None);
        };
        if self.is_cut(connection, range, &at).await? {
            return Ok(Some(at));
        }
        // All rows so far are equal in the columns that cut: the next other value, then.
        let behind = range::is_behind(&self.key.columns, &at);
        let next = self
            .place(connection, range, Some(&behind), &order, 0)
            .await?;
        match next.and_then(|place| self.boundary(&place)) {
            Some(at) if self.is_cut(connection, range, &at).await? => Ok(Some(at)),
            _ => Ok(None),
        }
    }

    /// Whether the server finds a row at that place, and one before it.
    async fn is_cut(
        &self,
        connection: &mut WireConnection,
        range: &Range,
        at: &Boundary,
    ) -> Result<bool, WireError> {
        let columns = &self.key.columns;
        Ok(self
            .has(connection, range, &range::is_at(columns, at))
            .await?
            && self
                .has(connection, range, &range::is_before(columns, at))
                .await?)
    }

    fn columns(&self) -> impl Iterator<Item = &KeyColumn> {
        self.key.cutting().map(|(column, _)| column)
    }

    fn boundary(&self, place: &Place) -> Option<Boundary> {
        let literals = self
            .key
            .cutting()
            .zip(place)
            .map(|((_, kind), value)| range::literal(kind, value));
        literals.collect::<Option<Vec<_>>>().map(Boundary)
    }

    /// The key's order, or the reverse of it.
    fn order(&self, range: &Range, reverse: bool) -> String {
        let columns = self.columns().skip(range.fixed()).map(|column| {
            let descending = if column.descending != reverse {
                " DESC"
            } else {
                ""
            };
            format!("{}{descending}", quote::identifier(&column.name))
        });
        columns.collect::<Vec<_>>().join(", ")
    }

    fn rows(&self, range: &Range, condition: Option<&str>) -> String {
        self.rows_by("FORCE", range, condition)
    }

    fn rows_by(&self, hint: &str, range: &Range, condition: Option<&str>) -> String {
        let conditions = [range.condition(&self.key), condition.map(ToOwned::to_owned)];
        let conditions: Vec<String> = conditions.into_iter().flatten().collect();
        let partition = match range.partitions.as_slice() {
            [] => String::new(),
            names => {
                let names: Vec<String> = names.iter().map(|name| quote::identifier(name)).collect();
                format!(" PARTITION ({})", names.join(", "))
            }
        };
        let mut sql = format!(
            "FROM {}{partition} {hint} INDEX ({})",
            self.table,
            quote::identifier(&self.key.index)
        );
        if !conditions.is_empty() {
            sql.push_str(" WHERE ");
            sql.push_str(&conditions.join(" AND "));
        }
        sql
    }

    /// What the optimizer thinks of the part.
    async fn explain(
        &self,
        connection: &mut WireConnection,
        range: &Range,
    ) -> Result<Explained, WireError> {
        let column = self
            .columns()
            .next()
            .map(|column| quote::identifier(&column.name));
        let sql = format!(
            "EXPLAIN FORMAT=TRADITIONAL SELECT {} {}",
            column.unwrap_or_default(),
            // An index that is forced is not looked into.
            self.rows_by("USE", range, None)
        );
        let mut answer = connection.query_rows(&sql).await?;
        let columns = answer.columns().iter();
        let names: Vec<String> = columns.map(|column| column.name.to_string()).collect();
        let mut explained = Explained::default();
        while let Some(row) = answer.next().await? {
            for (name, field) in names.iter().zip(row.fields()) {
                let field = field.map_err(|error| row.malformed(error))?;
                let text = field.map(|field| String::from_utf8_lossy(field).into_owned());
                match name.as_str() {
                    "rows" => {
                        let rows: Option<u64> = text.and_then(|digits| digits.parse().ok());
                        explained.rows += rows.unwrap_or_default();
                    }
                    "partitions" => explained.partitions = text,
                    _ => {}
                }
            }
        }
        Ok(explained)
    }

    /// The place of a row of the part: so many rows in, in some order.
    async fn place(
        &self,
        connection: &mut WireConnection,
        range: &Range,
        condition: Option<&str>,
        order: &str,
        offset: u64,
    ) -> Result<Option<Place>, WireError> {
        let list: Vec<String> = self
            .key
            .cutting()
            .map(|(column, kind)| range::select(column, kind))
            .collect();
        let sql = format!(
            "SELECT {} {} ORDER BY {order} LIMIT 1 OFFSET {offset}",
            list.join(", "),
            self.rows(range, condition)
        );
        first_row(connection, &sql).await
    }

    /// Whether the part has a row of which the condition holds.
    async fn has(
        &self,
        connection: &mut WireConnection,
        range: &Range,
        condition: &str,
    ) -> Result<bool, WireError> {
        let sql = format!("SELECT 1 {} LIMIT 1", self.rows(range, Some(condition)));
        Ok(first_row(connection, &sql).await?.is_some())
    }
}

/// The fields of the first row; none if there is no row, or if a field is NULL, which no key has.
async fn first_row(connection: &mut WireConnection, sql: &str) -> Result<Option<Place>, WireError> {
    let mut rows = connection.query_rows(sql).await?;
    let mut first = None;
    let mut is_first = true;
    while let Some(row) = rows.next().await? {
        if std::mem::take(&mut is_first) {
            let fields: Result<Option<Place>, _> = row
                .fields()
                .map(|field| field.map(|field| field.map(<[u8]>::to_vec)))
                .collect();
            first = fields.map_err(|error| row.malformed(error))?;
        }
    }
    Ok(first)
}
