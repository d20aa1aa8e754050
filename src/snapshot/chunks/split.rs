//! Finds the next cut of a part, in the read view itself.
//!
//! Where a cut falls decides only how even the parts are; that no row is lost or doubled is the
//! work of [`range`]. So sizes are the optimizer's estimates, and between two integers
//! or byte strings a cut is simply counted. Other keys are cut at values that they have: the reader
//! steps over as many rows as a part shall have. Such a value is taken only if the server finds its
//! row again by the literal, which shows that the literal is understood as the value.

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
        let rows = self.estimate(connection, range).await?;
        if rows <= self.chunk_rows.saturating_add(self.chunk_rows / 2) || !self.may_cut() {
            return Ok(None);
        }
        if let Some(at) = self.count(connection, range, rows).await? {
            return Ok(Some(Cut {
                at,
                first_is_done: false,
            }));
        }
        let stepped = self.step(connection, range).await?;
        Ok(stepped.map(|at| Cut {
            at,
            first_is_done: true,
        }))
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
            self.place(connection, range, None, &self.order(false), 0)
                .await?,
            self.place(connection, range, None, &self.order(true), 0)
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
        let order = self.order(false);
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
    fn order(&self, reverse: bool) -> String {
        let columns = self.columns().map(|column| {
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
        let mut sql = format!(
            "FROM {} {hint} INDEX ({})",
            self.table,
            quote::identifier(&self.key.index)
        );
        if !conditions.is_empty() {
            sql.push_str(" WHERE ");
            sql.push_str(&conditions.join(" AND "));
        }
        sql
    }

    /// How many rows the optimizer thinks that the part has.
    async fn estimate(
        &self,
        connection: &mut WireConnection,
        range: &Range,
    ) -> Result<u64, WireError> {
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
        let mut rows = connection.query_rows(&sql).await?;
        let at = rows
            .columns()
            .iter()
            .position(|column| column.name == "rows");
        let mut estimate = 0;
        while let Some(row) = rows.next().await? {
            let field = at.and_then(|at| row.fields().nth(at));
            let field = field.transpose().map_err(|error| row.malformed(error))?;
            estimate += field
                .flatten()
                .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
                .unwrap_or(0);
        }
        Ok(estimate)
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
