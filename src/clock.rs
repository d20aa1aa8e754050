//! Time as a dependency: every room that needs "now" or a pause is handed a [`Clock`].
//!
//! Plans are pure functions of facts and a `now`; only the edges hold a clock. Times are UTC with
//! microseconds, as MySQL's commit timestamps are.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, Utc};

/// A source of the present moment and of pauses.
#[async_trait::async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present moment in UTC, cut to microseconds.
    fn now(&self) -> DateTime<Utc>;

    /// Returns after `pause` of this clock's time.
    async fn sleep(&self, pause: Duration);
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait::async_trait]
impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now().trunc_subsecs(6)
    }

    async fn sleep(&self, pause: Duration) {
        tokio::time::sleep(pause).await;
    }
}

/// Turns microseconds since the epoch, as MySQL's GTID events carry them, into a moment.
///
/// Returns `None` beyond the years that `chrono` can express.
#[must_use]
pub fn from_micros(micros: u64) -> Option<DateTime<Utc>> {
    i64::try_from(micros)
        .ok()
        .and_then(DateTime::from_timestamp_micros)
}

/// Writes a moment as every report of Quillback does: RFC 3339, UTC, microseconds.
#[must_use]
pub fn rfc3339(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// Serde's side of [`rfc3339`]: `#[serde(with = "crate::clock::micros")]`.
pub mod micros {
    use chrono::{DateTime, Utc};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    /// Writes the moment.
    ///
    /// # Errors
    ///
    /// What the serializer fails with.
    pub fn serialize<S: Serializer>(
        moment: &DateTime<Utc>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::rfc3339(*moment))
    }

    /// Reads a moment.
    ///
    /// # Errors
    ///
    /// A text that is not RFC 3339.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<DateTime<Utc>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        DateTime::parse_from_rfc3339(&text)
            .map(|moment| moment.with_timezone(&Utc))
            .map_err(D::Error::custom)
    }
}

/// [`micros`] for a moment that may be missing.
pub mod micros_option {
    use chrono::{DateTime, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the moment, or null.
    ///
    /// # Errors
    ///
    /// What the serializer fails with.
    pub fn serialize<S: Serializer>(
        moment: &Option<DateTime<Utc>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match moment {
            Some(moment) => super::micros::serialize(moment, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a moment, or null.
    ///
    /// # Errors
    ///
    /// A text that is not RFC 3339.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<DateTime<Utc>>, D::Error> {
        #[derive(Deserialize)]
        struct Moment(#[serde(with = "super::micros")] DateTime<Utc>);
        Ok(Option::<Moment>::deserialize(deserializer)?.map(|moment| moment.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_keep_their_microseconds_in_print() {
        let moment = from_micros(1_795_000_000_000_001).expect("in range");
        assert_eq!(rfc3339(moment), "2026-11-18T11:06:40.000001Z");
    }
}
