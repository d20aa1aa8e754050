//! What a statement of the log leans on: its session, out of the QUERY event's status variables.
//!
//! Source of the layout: "MySQL Source Code Documentation", class `Query_event`.

use crate::mysql::binlog::{Checksum, EventError, RawEvent};
use crate::mysql::ddl::Ddl;
use crate::mysql::quote;
use crate::mysql::wire::packet::{Fields, Truncated};

/// `LOG_EVENT_SUPPRESS_USE_F`: the statement needs no default schema, or makes, alters or drops it.
const SUPPRESS_USE: u16 = 0x8;
/// The names of the databases that a statement updates are not told, there are too many.
const TOO_MANY_NAMES: u64 = 254;

/// The bits of the options that a statement was run with, and the variables that they are.
const OPTIONS: [(u32, &str, bool); 4] = [
    (1 << 14, "sql_auto_is_null", true),
    (1 << 19, "autocommit", false),
    (1 << 26, "foreign_key_checks", false),
    (1 << 27, "unique_checks", false),
];

/// A statement with its session.
#[derive(Debug)]
pub(in crate::restore) struct Statement<'a> {
    /// The text, in the character set of the session.
    pub(in crate::restore) text: &'a [u8],
    /// The default schema, unless it does not matter.
    pub(in crate::restore) schema: Option<&'a [u8]>,
    /// The error with which it ended where it was run.
    pub(in crate::restore) error: u16,
    /// Session variables and their values, as SQL.
    pub(in crate::restore) variables: Vec<(&'static str, String)>,
    /// Whether the account that ran it is part of what it means.
    pub(in crate::restore) has_invoker: bool,
    /// The number of a part of its session that is of a later version.
    pub(in crate::restore) unknown: Option<u64>,
}

impl<'a> Statement<'a> {
    /// Reads a QUERY event.
    ///
    /// # Errors
    ///
    /// [`EventError`].
    pub(in crate::restore) fn parse(
        event: &RawEvent<'a>,
        checksum: Checksum,
    ) -> Result<Self, EventError> {
        let mut fields = Fields::new(event.body(checksum)?);
        let thread_id = fields.uint::<4>()?;
        let _seconds = fields.uint::<4>()?;
        let schema_length = usize::try_from(fields.uint::<1>()?).map_err(|_| Truncated)?;
        let error = u16::try_from(fields.uint::<2>()?).unwrap_or_default();
        let status_length = usize::try_from(fields.uint::<2>()?).map_err(|_| Truncated)?;
        let status = fields.bytes(status_length)?;
        let schema = fields.bytes(schema_length)?;
        fields.bytes(1)?;
        let text = fields.rest();
        let suppressed = event.header().flags & SUPPRESS_USE != 0 && !alters_schema(text);
        let uses = !suppressed && !schema.is_empty();
        let mut statement = Self {
            text,
            schema: uses.then_some(schema),
            error,
            variables: Vec::new(),
            has_invoker: false,
            unknown: None,
        };
        statement.set("pseudo_thread_id", thread_id.to_string());
        statement.read_status(status, event.header().timestamp)?;
        Ok(statement)
    }

    fn set(&mut self, name: &'static str, value: String) {
        self.variables.push((name, value));
    }

    fn read_status(&mut self, status: &[u8], seconds: u32) -> Result<(), EventError> {
        let mut fields = Fields::new(status);
        let mut auto_increment = (1, 1);
        let mut micros = None;
        let mut schema_collation = None;
        let mut time_names = 0;
        while !fields.is_empty() {
            match fields.uint::<1>()? {
                0 => {
                    let bits = fields.uint::<4>()?;
                    for (bit, name, is_set) in OPTIONS {
                        let on = (bits & u64::from(bit) != 0) == is_set;
                        self.set(name, u8::from(on).to_string());
                    }
                }
                1 => {
                    let mode = fields.uint::<8>()?;
                    self.set("sql_mode", mode.to_string());
                }
                2 => {
                    short(&mut fields)?;
                    fields.bytes(1)?;
                }
                3 => auto_increment = (fields.uint::<2>()?, fields.uint::<2>()?),
                4 => {
                    for name in [
                        "character_set_client",
                        "collation_connection",
                        "collation_server",
                    ] {
                        let number = fields.uint::<2>()?;
                        self.set(name, number.to_string());
                    }
                }
                5 => {
                    let zone = String::from_utf8_lossy(short(&mut fields)?).into_owned();
                    self.set("time_zone", quote::string(&zone));
                }
                6 => {
                    short(&mut fields)?;
                }
                7 => time_names = fields.uint::<2>()?,
                8 => schema_collation = Some(fields.uint::<2>()?),
                9 => {
                    fields.uint::<8>()?;
                }
                10 => {
                    fields.uint::<4>()?;
                }
                11 => {
                    short(&mut fields)?;
                    short(&mut fields)?;
                    self.has_invoker = true;
                }
                12 => {
                    let names = fields.uint::<1>()?;
                    for _ in 0..if names == TOO_MANY_NAMES { 0 } else { names } {
                        fields.nul_terminated()?;
                    }
                }
                13 => micros = Some(fields.uint::<3>()?),
                16 => {
                    let on = fields.uint::<1>()?;
                    self.set("explicit_defaults_for_timestamp", on.to_string());
                }
                17 => {
                    fields.uint::<8>()?;
                }
                18 => {
                    let number = fields.uint::<2>()?;
                    self.set("default_collation_for_utf8mb4", number.to_string());
                }
                19 => {
                    let on = fields.uint::<1>()?;
                    self.set("sql_require_primary_key", on.to_string());
                }
                20 => {
                    let on = fields.uint::<1>()?;
                    self.set("default_table_encryption", on.to_string());
                }
                21 => {
                    let on = fields.uint::<1>()?;
                    self.set("enable_cascade_triggers", on.to_string());
                }
                other => {
                    // They come in the order of their numbers, so nothing known is behind it.
                    self.unknown = Some(other);
                    break;
                }
            }
        }
        self.set("auto_increment_increment", auto_increment.0.to_string());
        self.set("auto_increment_offset", auto_increment.1.to_string());
        self.set("lc_time_names", time_names.to_string());
        let collation = schema_collation.map_or("DEFAULT".to_owned(), |n| n.to_string());
        self.set("collation_database", collation);
        let timestamp = match micros {
            Some(micros) => format!("{seconds}.{micros:06}"),
            None => seconds.to_string(),
        };
        self.set("timestamp", timestamp);
        Ok(())
    }

    /// Whether the statement means the account that ran it, which no other session can be.
    pub(in crate::restore) fn means_invoker(&self) -> bool {
        let upper = self.text.to_ascii_uppercase();
        let starts = |word: &str| upper.trim_ascii_start().starts_with(word.as_bytes());
        self.has_invoker
            && memchr::memmem::find(&upper, b"CURRENT_USER").is_some()
            && [
                "GRANT",
                "REVOKE",
                "ALTER USER",
                "CREATE USER",
                "DROP USER",
                "RENAME USER",
                "SET ",
            ]
            .iter()
            .any(|word| starts(word))
    }
}

/// Whether it is `ALTER DATABASE`: without a name that means the default schema, which is there.
fn alters_schema(text: &[u8]) -> bool {
    let ddl = Ddl::parse("", &String::from_utf8_lossy(text));
    ddl.is_some_and(|ddl| ddl.verb == "ALTER DATABASE")
}

/// A string behind a length of one byte.
fn short<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], Truncated> {
    let length = usize::try_from(fields.uint::<1>()?).map_err(|_| Truncated)?;
    fields.bytes(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A QUERY event with these status variables.
    fn event(status: &[u8], schema: &[u8], text: &[u8], flags: u16) -> Vec<u8> {
        let mut body = vec![9, 0, 0, 0, 0, 0, 0, 0];
        body.push(u8::try_from(schema.len()).expect("short"));
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&u16::try_from(status.len()).expect("short").to_le_bytes());
        body.extend_from_slice(status);
        body.extend_from_slice(schema);
        body.push(0);
        body.extend_from_slice(text);
        let length = u32::try_from(19 + body.len()).expect("short");
        let mut out = 1_700_000_000_u32.to_le_bytes().to_vec();
        out.push(2);
        out.extend_from_slice(&[1, 0, 0, 0]);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    #[test]
    fn a_session_is_read_whole() {
        let mut status = vec![0];
        status.extend_from_slice(&((1_u32 << 26) | (1 << 14)).to_le_bytes());
        status.push(1);
        status.extend_from_slice(&1_436_549_152_u64.to_le_bytes());
        status.extend_from_slice(&[6, 3, b's', b't', b'd']);
        status.extend_from_slice(&[3, 7, 0, 2, 0]);
        status.extend_from_slice(&[4, 255, 0, 45, 0, 8, 0]);
        status.extend_from_slice(&[5, 3, b'C', b'E', b'T', 7, 4, 0, 8, 63, 0]);
        status.extend_from_slice(&[11, 1, b'u', 1, b'h', 12, 2, b'a', 0, b'b', 0]);
        status.extend_from_slice(&[13, 0x07, 0, 0, 16, 1, 17]);
        status.extend_from_slice(&[0; 8]);
        status.extend_from_slice(&[18, 255, 0, 19, 1, 20, 0]);
        let bytes = event(&status, b"shop", b"INSERT INTO t VALUES (NOW(6))", 0);
        let event = RawEvent::new(&bytes).expect("well formed");
        let statement = Statement::parse(&event, Checksum::None).expect("a statement");
        assert_eq!(statement.schema, Some(&b"shop"[..]));
        assert_eq!(statement.text, b"INSERT INTO t VALUES (NOW(6))");
        assert!(statement.has_invoker && !statement.means_invoker());
        let expected = [
            ("pseudo_thread_id", "9"),
            ("sql_auto_is_null", "1"),
            ("autocommit", "1"),
            ("foreign_key_checks", "0"),
            ("unique_checks", "1"),
            ("sql_mode", "1436549152"),
            ("character_set_client", "255"),
            ("collation_connection", "45"),
            ("collation_server", "8"),
            ("time_zone", "'CET'"),
            ("explicit_defaults_for_timestamp", "1"),
            ("default_collation_for_utf8mb4", "255"),
            ("sql_require_primary_key", "1"),
            ("default_table_encryption", "0"),
            ("auto_increment_increment", "7"),
            ("auto_increment_offset", "2"),
            ("lc_time_names", "4"),
            ("collation_database", "63"),
            ("timestamp", "1700000000.000007"),
        ];
        let found: Vec<_> = statement
            .variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_there_has_its_default() {
        let bytes = event(&[], b"new", b"CREATE DATABASE new", SUPPRESS_USE);
        let event = RawEvent::new(&bytes).expect("well formed");
        let statement = Statement::parse(&event, Checksum::None).expect("a statement");
        assert_eq!(statement.schema, None);
        let value = |name: &str| {
            let found = statement.variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(value("auto_increment_increment"), Some("1"));
        assert_eq!(value("collation_database"), Some("DEFAULT"));
        assert_eq!(value("timestamp"), Some("1700000000"));
        assert_eq!(value("time_zone"), None);
    }

    #[test]
    fn a_schema_that_is_altered_without_its_name_is_the_default_one() {
        for (text, schema) in [
            (
                "/* x */ ALTER SCHEMA COLLATE utf8mb4_bin",
                Some(&b"shop"[..]),
            ),
            ("DROP DATABASE shop", None),
        ] {
            let bytes = event(&[], b"shop", text.as_bytes(), SUPPRESS_USE);
            let event = RawEvent::new(&bytes).expect("well formed");
            let statement = Statement::parse(&event, Checksum::None).expect("a statement");
            assert_eq!(statement.schema, schema, "{text}");
        }
    }

    #[test]
    fn who_ran_it_matters_only_where_it_is_said() {
        let invoker = [11, 1, b'u', 1, b'h'];
        for (status, text, means) in [
            (&invoker[..], "GRANT SELECT ON d.* TO current_user()", true),
            (&invoker, "CREATE VIEW v AS SELECT CURRENT_USER()", false),
            (&invoker, "GRANT SELECT ON d.* TO ann", false),
            (&[], "GRANT SELECT ON d.* TO current_user()", false),
        ] {
            let bytes = event(status, b"", text.as_bytes(), 0);
            let event = RawEvent::new(&bytes).expect("well formed");
            let statement = Statement::parse(&event, Checksum::None).expect("a statement");
            assert_eq!(statement.means_invoker(), means, "{text}");
        }
    }

    #[test]
    fn an_unknown_variable_is_told() {
        let bytes = event(&[21, 1, 99, 1], b"", b"x", 0);
        let event = RawEvent::new(&bytes).expect("well formed");
        let statement = Statement::parse(&event, Checksum::None).expect("a statement");
        assert_eq!(statement.unknown, Some(99));
        let cascade = ("enable_cascade_triggers", "1".to_owned());
        assert!(statement.variables.contains(&cascade));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(status in prop::collection::vec(any::<u8>(), 0..60), cut in 0_usize..80) {
            let mut bytes = event(&status, b"d", b"x", 0);
            bytes.truncate(bytes.len().max(19 + cut) - cut);
            let length = u32::try_from(bytes.len()).expect("short");
            bytes[9..13].copy_from_slice(&length.to_le_bytes());
            if let Ok(event) = RawEvent::new(&bytes) {
                let _ = Statement::parse(&event, Checksum::None);
            }
        }
    }
}
