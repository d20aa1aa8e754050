//! The numbers as Prometheus reads them, in the OpenMetrics text format.

use std::fmt;

use chrono::{DateTime, Utc};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{Doing, State};

/// The whole page.
pub(super) fn page(state: State) -> String {
    let mut registry = Registry::with_prefix("quillback");
    registry.register_collector(Box::new(state));
    let mut page = String::new();
    if encode(&mut page, &registry).is_err() {
        // A text takes everything, so only the library itself could have refused.
        page.clear();
    }
    page
}

/// Writes families one after the other.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// A family that only grows while the process lives; `_total` is appended to its name.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstCounter::new(value);
        metric.encode(
            self.0
                .encode_descriptor(name, help, None, MetricType::Counter)?,
        )
    }

    /// A family that goes up and down, or nothing if its value is not known.
    fn gauge(&mut self, name: &str, help: &str, value: Option<f64>) -> fmt::Result {
        let Some(value) = value else { return Ok(()) };
        let metric = ConstGauge::new(value);
        metric.encode(
            self.0
                .encode_descriptor(name, help, None, MetricType::Gauge)?,
        )
    }

    fn moment(&mut self, name: &str, help: &str, value: Option<DateTime<Utc>>) -> fmt::Result {
        let seconds = value.map(|moment| moment.timestamp_micros() as f64 / 1e6);
        self.gauge(name, help, seconds)
    }

    /// A family that says something by its labels. OpenMetrics has a type for that, at which
    /// readers of Prometheus' older text format would stop.
    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(1_u64).encode(family.encode_family(&labels)?)
    }
}

impl Collector for State {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.work(&mut page)?;
        self.trouble(&mut page)?;
        self.archive(&mut page)
    }
}

impl State {
    /// Who it is, and what it has done.
    fn work(&self, page: &mut Page<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.info("build_info", "The program", &version)?;
        let mut family = page.0.encode_descriptor(
            "stream_state",
            "What the stream is doing: 1 for that state, 0 for the others",
            None,
            MetricType::Gauge,
        )?;
        for name in Doing::NAMES {
            let is = u64::from(name == self.doing.name());
            ConstGauge::new(is).encode(family.encode_family(&[("state", name)])?)?;
        }
        if let Doing::Following { server, version } = &self.doing {
            let labels = [("server", server.as_str()), ("version", version.as_str())];
            page.info("stream_source_info", "The server that is followed", &labels)?;
        }
        page.gauge(
            "stream_epoch",
            "The number of this streamer's claim on the archive",
            self.epoch.map(|epoch| epoch as f64),
        )?;
        page.gauge(
            "stream_branch",
            "The history that is written to",
            self.branch.map(f64::from),
        )?;
        page.counter(
            "stream_transactions",
            "Transactions archived",
            self.transactions,
        )?;
        page.counter("stream_segments", "Segments archived", self.segments)?;
        page.counter(
            "stream_raw_bytes",
            "Bytes of binlog archived, before compression",
            self.raw_bytes,
        )?;
        page.counter(
            "stream_stored_bytes",
            "Bytes of segments in the store, after compression",
            self.stored_bytes,
        )?;
        page.counter(
            "stream_recovered_transactions",
            "Transactions archived that an earlier run had left in the spool",
            self.recovered,
        )?;
        let lag = page.0.encode_descriptor(
            "stream_lag_seconds",
            "Time from the newest commit of a segment to the segment's durability",
            None,
            MetricType::Histogram,
        )?;
        self.lag.encode(lag)?;
        page.gauge(
            "stream_since_durable_seconds",
            "Time since a segment last became durable, by this host's monotonic clock",
            self.durable.map(|(at, _)| at.elapsed().as_secs_f64()),
        )?;
        page.moment(
            "stream_last_durable_timestamp_seconds",
            "When a segment last became durable, by this host's clock",
            self.durable.map(|(_, at)| at),
        )?;
        page.moment(
            "stream_last_commit_timestamp_seconds",
            "The newest commit that was archived, by the source's clock",
            self.last_commit,
        )?;
        page.moment(
            "stream_complete_to_timestamp_seconds",
            "Up to which moment of the source's clock the log is complete",
            self.complete_to,
        )?;
        page.counter(
            "stream_compactions",
            "Times that small segments were made into larger ones",
            self.compactions,
        )?;
        page.counter(
            "stream_compacted_segments",
            "Segments that compaction has replaced",
            self.compacted_segments,
        )?;
        page.gauge(
            "stream_log_segments",
            "Segments of the log after the last compaction",
            self.log_segments.map(|count| count as f64),
        )
    }

    /// What stands in its way.
    fn trouble(&self, page: &mut Page<'_>) -> fmt::Result {
        page.counter(
            "stream_interruptions",
            "Times that the source was lost or was not the right one any more",
            self.interruptions,
        )?;
        page.counter(
            "stream_store_failures",
            "Failed tries to put a segment",
            self.store_failures,
        )?;
        page.gauge(
            "stream_store_failing_seconds",
            "How long the store has been failing; 0 if it does not",
            Some(match &self.store_failing {
                Some((since, _)) => since.elapsed().as_secs_f64(),
                None => 0.0,
            }),
        )?;
        page.gauge(
            "stream_waiting_segments",
            "Segments that wait for a failing store",
            Some(self.waiting_segments as f64),
        )?;
        page.gauge(
            "stream_spool_bytes",
            "Bytes of segments that wait on this host's disk",
            Some(self.spooled_bytes as f64),
        )?;
        page.counter("stream_warnings", "Warnings told", self.warnings)?;
        page.gauge(
            "source_purge_headroom_seconds",
            "How long, at least, the source keeps what is not archived; +Inf if it purges nothing \
             for its age",
            self.purge.as_ref().map(super::Purge::seconds_now),
        )?;
        page.gauge(
            "stream_source_waiting_bytes",
            "Bytes of binlog that the source had and the stream had not received when last asked",
            self.purge.map(|purge| purge.waiting_bytes as f64),
        )?;
        page.gauge(
            "stream_catch_up_seconds",
            "How long catching up will take at the present speed",
            self.purge.and_then(|purge| purge.catch_up_seconds),
        )
    }

    /// What the archive is good for.
    fn archive(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(archive) = &self.archive else {
            return Ok(());
        };
        page.moment(
            "restorable_from_timestamp_seconds",
            "The oldest moment that can be restored",
            archive.restorable_from,
        )?;
        let log_end = self.complete_to.filter(|_| archive.connected);
        page.moment(
            "restorable_to_timestamp_seconds",
            "The newest moment that can be restored",
            log_end.max(archive.last_snapshot),
        )?;
        page.moment(
            "snapshot_last_success_timestamp_seconds",
            "When the newest snapshot was finished",
            archive.last_snapshot,
        )?;
        page.gauge(
            "archive_gaps",
            "Spans of transactions that the log lacks and nobody has accepted as lost",
            Some(archive.gaps as f64),
        )?;
        page.gauge(
            "archive_accepted_gaps",
            "Spans of transactions that somebody has accepted as lost",
            Some(archive.accepted_gaps as f64),
        )
    }
}
