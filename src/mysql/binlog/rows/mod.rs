//! Rows out of a binlog: what a TABLE_MAP announces, and the images of the rows behind it.
//!
//! [`TableMap`] holds what is known of a table's columns, [`RowsEvent`] walks the images of an
//! insertion, an update or a deletion, [`Value`] is one column of one image, and its text is what
//! `mysqlbinlog -v` shows, but for names and signs where the binlog tells them. Everything borrows
//! from the event; a value's text is bounded by the caller. Bytes that make no sense are errors, never
//! panics. Sources: "MySQL Source Code Documentation", pages `Table_map_event` and `Rows_event`;
//! `libs/mysql/binlog/event/rows_event.h`, `sql/log_event.cc` and `sql-common/json_binary.h` of the
//! server.

mod charset;
mod column;
mod decimal;
mod image;
mod json;
mod table;
mod text;
mod time;
mod value;

pub use column::Layout;
pub use decimal::text as decimal_text;
pub use image::{Image, Row, Rows, RowsEvent};
pub use table::TableMap;
pub use text::Shown;
pub use value::{Text, Value};

#[cfg(test)]
mod tests;

use super::event::{EventError, EventKind};

/// A rows event or a table's announcement that makes no sense.
fn malformed(kind: EventKind, reason: &str) -> EventError {
    EventError::Malformed {
        kind,
        reason: reason.to_owned(),
    }
}
