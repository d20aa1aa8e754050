//! The row of a journal, of a whole restore as of tables alone: what its columns say, and what is
//! wrong with one that cannot be read.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::MalformedJournal;
use crate::mysql::error::MysqlError;
use crate::mysql::session::Session;

/// `ER_BAD_DB_ERROR` and `ER_NO_SUCH_TABLE`.
const NOT_THERE: [u16; 2] = [1049, 1146];

/// Whether a question was refused since there is no such journal.
pub(in crate::restore) fn is_not_there(error: &MysqlError) -> bool {
    error.code().is_some_and(|code| NOT_THERE.contains(&code))
}

/// That the journal of a server makes no sense.
pub(in crate::restore) fn malformed(
    session: &Session,
    schema: &'static str,
    reason: impl Into<String>,
) -> MalformedJournal {
    MalformedJournal {
        server: session.address().to_string(),
        schema,
        reason: reason.into(),
    }
}

/// What the column `name` holds as JSON.
pub(in crate::restore) fn read<T: DeserializeOwned>(
    session: &Session,
    schema: &'static str,
    name: &str,
    json: &str,
) -> Result<T, MalformedJournal> {
    serde_json::from_str(json)
        .map_err(|error| malformed(session, schema, format!("its {name}: {error}")))
}

/// The one of `all` stages whose name the row has.
pub(in crate::restore) fn read_stage<S: Copy>(
    session: &Session,
    schema: &'static str,
    all: &[S],
    name_of: impl Fn(S) -> &'static str,
    name: &str,
) -> Result<S, MalformedJournal> {
    let mut all = all.iter().copied();
    all.find(|known| name_of(*known) == name)
        .ok_or_else(|| malformed(session, schema, format!("its stage {name:?} is not known")))
}

/// What is to be kept in the column `name`, as JSON.
pub(in crate::restore) fn written(
    name: &str,
    value: &impl Serialize,
) -> Result<String, MysqlError> {
    serde_json::to_string(value)
        .map_err(|error| MysqlError::protocol(format!("the journal's {name}: {error}")))
}
