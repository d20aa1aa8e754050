//! Where transactions begin and end in a stream of events.
//!
//! The length in the GTID event is the authority: it holds for row and statement format, XA,
//! compressed payloads and atomic DDL alike. The invariant: [`Piece::Last`] is said of an event
//! only if every byte of its transaction has gone by, and only of an event that can end one.

use super::event::{Checksum, EventError, EventKind, RawEvent};
use super::gtid_event::GtidEvent;

/// What an event is in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// It tells of the source's file and belongs to no transaction.
    File,
    /// It opens a transaction.
    First(GtidEvent),
    /// It is inside a transaction.
    Inside,
    /// It is the last of its transaction.
    Last,
}

/// Follows a stream of events.
#[derive(Debug, Clone, Default)]
pub struct Splitter {
    /// Bytes of the open transaction that are still to come.
    remaining: u64,
}

impl Splitter {
    /// Whether a transaction has begun and not ended.
    #[must_use]
    pub const fn is_inside(&self) -> bool {
        self.remaining > 0
    }

    /// Takes the next event.
    ///
    /// # Errors
    ///
    /// [`EventError::Order`] if the event cannot stand here: then bytes are missing or doubled.
    pub fn take(&mut self, event: &RawEvent<'_>, checksum: Checksum) -> Result<Piece, EventError> {
        let kind = event.kind();
        let length = u64::from(event.header().length);
        if self.remaining == 0 {
            if kind.is_file_event() {
                return Ok(Piece::File);
            }
            if kind == EventKind::ANONYMOUS_GTID {
                return Err(EventError::Order(
                    "a transaction without a GTID; gtid_mode must be ON".to_owned(),
                ));
            }
            if kind == EventKind::INCIDENT {
                return Err(EventError::Order(
                    "the source reports an incident: transactions may be missing from its binlog"
                        .to_owned(),
                ));
            }
            if !kind.is_gtid() {
                return Err(EventError::Order(format!("{kind} outside a transaction")));
            }
            let gtid = GtidEvent::parse(event, checksum)?;
            self.remaining = gtid
                .transaction_length
                .checked_sub(length)
                .filter(|rest| *rest > 0)
                .ok_or_else(|| {
                    EventError::Order(format!(
                        "transaction {} says that it has {} bytes",
                        gtid.gtid, gtid.transaction_length
                    ))
                })?;
            return Ok(Piece::First(gtid));
        }
        if kind.is_gtid() || kind.is_file_event() {
            return Err(EventError::Order(format!(
                "{kind} while {} bytes of a transaction are missing",
                self.remaining
            )));
        }
        self.remaining = self.remaining.checked_sub(length).ok_or_else(|| {
            EventError::Order(format!("{kind} reaches beyond the end of its transaction"))
        })?;
        if self.remaining > 0 {
            return Ok(Piece::Inside);
        }
        match kind {
            EventKind::XID
            | EventKind::QUERY
            | EventKind::XA_PREPARE
            | EventKind::TRANSACTION_PAYLOAD => Ok(Piece::Last),
            _ => Err(EventError::Order(format!(
                "{kind} at the end of a transaction"
            ))),
        }
    }

    /// Forgets an unfinished transaction, for a stream that starts anew.
    pub const fn reset(&mut self) {
        self.remaining = 0;
    }
}
