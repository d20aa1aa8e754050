//! What stands before a statement and is part of it: INTVAR, RAND and USER_VAR events as `SET`.
//!
//! Source of the layouts: "MySQL Source Code Documentation", classes `Intvar_event`, `Rand_event`
//! and `User_var_event`.

use std::collections::HashMap;

use crate::mysql::binlog::rows::decimal_text;
use crate::mysql::binlog::{EventError, EventKind};
use crate::mysql::quote;
use crate::mysql::wire::packet::{Fields, Truncated};

pub(super) const INTVAR: EventKind = EventKind(5);
pub(super) const RAND: EventKind = EventKind(13);
pub(super) const USER_VAR: EventKind = EventKind(14);

/// The names of collations with their character sets, by number.
pub(super) type Collations = HashMap<u64, (String, String)>;

/// `LAST_INSERT_ID` or `INSERT_ID` of the statement that follows.
pub(super) fn intvar(body: &[u8]) -> Result<String, EventError> {
    let mut fields = Fields::new(body);
    let name = match fields.uint::<1>()? {
        1 => "LAST_INSERT_ID",
        2 => "INSERT_ID",
        other => return Err(malformed(INTVAR, &format!("it is of type {other}"))),
    };
    Ok(format!("SET {name} = {}", fields.uint::<8>()?))
}

/// The seeds of RAND().
pub(super) fn rand(body: &[u8]) -> Result<String, EventError> {
    let mut fields = Fields::new(body);
    let (first, second) = (fields.uint::<8>()?, fields.uint::<8>()?);
    Ok(format!(
        "SET @@SESSION.rand_seed1 = {first}, @@SESSION.rand_seed2 = {second}"
    ))
}

/// A user variable, in text for a session whose character set is utf8mb4.
pub(super) fn user_variable(body: &[u8], collations: &Collations) -> Result<String, EventError> {
    let bad = |reason: &str| malformed(USER_VAR, reason);
    let mut fields = Fields::new(body);
    let length = usize::try_from(fields.uint::<4>()?).map_err(|_| Truncated)?;
    let name = std::str::from_utf8(fields.bytes(length)?).map_err(|_| bad("its name"))?;
    let name = quote::identifier(name);
    if fields.uint::<1>()? != 0 {
        return Ok(format!("SET @{name} := NULL"));
    }
    let kind = fields.uint::<1>()?;
    let collation = fields.uint::<4>()?;
    let length = usize::try_from(fields.uint::<4>()?).map_err(|_| Truncated)?;
    let value = fields.bytes(length)?;
    let is_unsigned = fields.uint::<1>().unwrap_or_default() & 1 != 0;
    let eight = || {
        <[u8; 8]>::try_from(value)
            .map(u64::from_le_bytes)
            .map_err(|_| bad("its length"))
    };
    let value = match kind {
        0 => {
            let (set, collation) = collations
                .get(&collation)
                .ok_or_else(|| bad(&format!("the server does not know collation {collation}")))?;
            let hex = quote::bytes(value);
            let digits = hex.strip_prefix("0x").unwrap_or_default();
            format!(
                "_{set} X'{digits}' COLLATE {}",
                quote::identifier(collation)
            )
        }
        1 => format!("{:e}", f64::from_bits(eight()?)),
        2 if is_unsigned => eight()?.to_string(),
        2 => eight()?.cast_signed().to_string(),
        4 => {
            let (meta, bytes) = value
                .split_first_chunk::<2>()
                .ok_or_else(|| bad("its decimal"))?;
            decimal_text(u16::from_be_bytes(*meta), bytes).ok_or_else(|| bad("its decimal"))?
        }
        other => return Err(bad(&format!("its type {other}"))),
    };
    Ok(format!("SET @{name} := {value}"))
}

fn malformed(kind: EventKind, reason: &str) -> EventError {
    EventError::Malformed {
        kind,
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mysql_common::binlog::decimal::Decimal;
    use proptest::prelude::*;

    fn collations() -> Collations {
        let name = |set: &str, collation: &str| (set.to_owned(), collation.to_owned());
        HashMap::from([
            (255, name("utf8mb4", "utf8mb4_0900_ai_ci")),
            (63, name("binary", "binary")),
        ])
    }

    fn variable(kind: u8, collation: u32, value: &[u8], flags: u8) -> Vec<u8> {
        let mut body = vec![1, 0, 0, 0, b'v', 0, kind];
        body.extend_from_slice(&collation.to_le_bytes());
        body.extend_from_slice(&u32::try_from(value.len()).expect("short").to_le_bytes());
        body.extend_from_slice(value);
        body.push(flags);
        body
    }

    #[test]
    fn each_type_becomes_a_literal() {
        let mut decimal = vec![4, 2];
        Decimal::parse_str_bytes(b"-12.34")
            .expect("a decimal")
            .write_bin(&mut decimal)
            .expect("writes");
        for (body, text) in [
            (
                variable(0, 255, "\u{17c}'".as_bytes(), 0),
                "SET @`v` := _utf8mb4 X'C5BC27' COLLATE `utf8mb4_0900_ai_ci`",
            ),
            (
                variable(0, 63, b"", 0),
                "SET @`v` := _binary X'' COLLATE `binary`",
            ),
            (
                variable(1, 8, &(-0.125_f64).to_le_bytes(), 0),
                "SET @`v` := -1.25e-1",
            ),
            (variable(2, 8, &(-7_i64).to_le_bytes(), 0), "SET @`v` := -7"),
            (
                variable(2, 8, &u64::MAX.to_le_bytes(), 1),
                "SET @`v` := 18446744073709551615",
            ),
            (variable(4, 8, &decimal, 0), "SET @`v` := -12.34"),
            (vec![2, 0, 0, 0, b'a', b'`', 1], "SET @`a``` := NULL"),
        ] {
            assert_eq!(user_variable(&body, &collations()).expect(text), text);
        }
        assert!(user_variable(&variable(0, 9_999, b"x", 0), &collations()).is_err());
        assert!(user_variable(&variable(3, 8, b"x", 0), &collations()).is_err());
        assert!(user_variable(&variable(4, 8, &[0, 0], 0), &collations()).is_err());
    }

    #[test]
    fn numbers_before_a_statement_are_set() {
        let mut body = vec![2];
        body.extend_from_slice(&9_u64.to_le_bytes());
        assert_eq!(intvar(&body).expect("good"), "SET INSERT_ID = 9");
        body[0] = 1;
        assert_eq!(intvar(&body).expect("good"), "SET LAST_INSERT_ID = 9");
        body[0] = 3;
        assert!(intvar(&body).is_err());
        let seeds = [1_u64.to_le_bytes(), 2_u64.to_le_bytes()].concat();
        assert_eq!(
            rand(&seeds).expect("good"),
            "SET @@SESSION.rand_seed1 = 1, @@SESSION.rand_seed2 = 2"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..60), kind: u8, at: u8) {
            let _ = intvar(&body);
            let _ = rand(&body);
            let _ = user_variable(&body, &collations());
            let mut whole = variable(kind % 5, 255, &body, at);
            let _ = user_variable(&whole, &collations());
            whole.truncate(usize::from(at));
            let _ = user_variable(&whole, &collations());
        }
    }
}
