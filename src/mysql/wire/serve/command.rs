//! What a replica's IO thread asks for.

use crate::mysql::wire::packet::{Fields, Truncated};

/// A command of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `COM_QUERY` with its text.
    Query(String),
    /// `COM_REGISTER_SLAVE`; the replica's `server_id`.
    RegisterReplica(u32),
    /// `COM_BINLOG_DUMP_GTID`.
    DumpGtid {
        /// `BINLOG_DUMP_*` flags; 0x02 asks for heartbeats of the second version.
        flags: u16,
        /// The replica's `server_id`.
        server_id: u32,
        /// The encoded set of GTIDs that the replica has.
        set: Vec<u8>,
    },
    /// `COM_PING`.
    Ping,
    /// `COM_QUIT`, or the connection's end.
    Quit,
    /// Anything else, by its number.
    Other(u8),
}

impl Command {
    /// Reads a command's packet.
    ///
    /// # Errors
    ///
    /// [`Truncated`].
    pub(super) fn parse(payload: &[u8]) -> Result<Self, Truncated> {
        let mut fields = Fields::new(payload);
        let narrow = |value: u64| u32::try_from(value).map_err(|_| Truncated);
        match fields.uint::<1>()? {
            0x01 => Ok(Self::Quit),
            0x03 => Ok(Self::Query(
                String::from_utf8_lossy(fields.rest()).into_owned(),
            )),
            0x0E => Ok(Self::Ping),
            0x15 => Ok(Self::RegisterReplica(narrow(fields.uint::<4>()?)?)),
            0x1E => {
                let flags = u16::try_from(fields.uint::<2>()?).map_err(|_| Truncated)?;
                let server_id = narrow(fields.uint::<4>()?)?;
                let name_length = narrow(fields.uint::<4>()?)?;
                fields.bytes(name_length as usize)?;
                let _position = fields.uint::<8>()?;
                let set_length = narrow(fields.uint::<4>()?)?;
                Ok(Self::DumpGtid {
                    flags,
                    server_id,
                    set: fields.bytes(set_length as usize)?.to_vec(),
                })
            }
            other => Ok(Self::Other(u8::try_from(other).map_err(|_| Truncated)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_dump_command_is_read_field_by_field() {
        let mut payload = vec![0x1E, 2, 0];
        payload.extend_from_slice(&77_u32.to_le_bytes());
        payload.extend_from_slice(&0_u32.to_le_bytes());
        payload.extend_from_slice(&4_u64.to_le_bytes());
        payload.extend_from_slice(&3_u32.to_le_bytes());
        payload.extend_from_slice(b"abc");
        assert_eq!(
            Command::parse(&payload),
            Ok(Command::DumpGtid {
                flags: 2,
                server_id: 77,
                set: b"abc".to_vec()
            })
        );
        payload.pop();
        assert_eq!(Command::parse(&payload), Err(Truncated));
    }

    proptest! {
        #[test]
        fn no_client_makes_us_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Command::parse(&bytes);
        }
    }
}
