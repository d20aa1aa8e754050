//! Events in, numbers and words out.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::*;
use crate::clock::SystemClock;
use crate::gtid::GtidSet;

fn health() -> Health {
    Health::new(Arc::new(SystemClock))
}

fn claimed(complete_to: Option<DateTime<Utc>>) -> StreamEvent {
    StreamEvent::Claimed {
        epoch: 7,
        branch: 2,
        start: GtidSet::new(),
        accepted_gap: GtidSet::new(),
        complete_to,
    }
}

fn following() -> StreamEvent {
    StreamEvent::Following {
        server: "db1:3306".to_owned(),
        uuid: Uuid::nil(),
        version: "8.4.6 \"log\"".to_owned(),
    }
}

fn segment(transactions: u64, lag: Option<f64>, at: DateTime<Utc>) -> StreamEvent {
    StreamEvent::Segment {
        key: "log/x".to_owned(),
        transactions,
        raw_bytes: 1000 * transactions,
        stored_bytes: 100 * transactions,
        last_commit: (transactions > 0).then_some(at),
        complete_to: Some(at),
        lag_seconds: lag,
        spooled_bytes: 5,
    }
}

fn failing() -> StreamEvent {
    StreamEvent::StoreFailing {
        reason: "503".to_owned(),
        retry_seconds: 0.2,
        waiting: 3,
        spooled_bytes: 77,
    }
}

/// The value of a sample, by its whole name.
fn value(health: &Health, name: &str) -> Option<f64> {
    let page = health.metrics();
    let line = page.lines().find(|line| {
        line.rsplit_once(' ')
            .is_some_and(|(found, _)| found == name)
    })?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test(start_paused = true)]
async fn numbers_add_up_and_unknown_ones_are_left_out() {
    let health = health();
    assert_eq!(
        value(&health, "quillback_stream_transactions_total"),
        Some(0.0)
    );
    for unknown in [
        "quillback_stream_epoch",
        "quillback_stream_since_durable_seconds",
        "quillback_stream_complete_to_timestamp_seconds",
        "quillback_source_purge_headroom_seconds",
        "quillback_restorable_to_timestamp_seconds",
        "quillback_archive_gaps",
    ] {
        assert_eq!(value(&health, unknown), None, "{unknown}");
        assert!(
            !health.metrics().contains(unknown),
            "a family without samples"
        );
    }
    let at = DateTime::UNIX_EPOCH + TimeDelta::microseconds(1_795_000_000_250_000);
    health.observe(&claimed(None));
    health.observe(&following());
    health.observe(&segment(3, Some(0.4), at));
    health.observe(&segment(4, Some(3.0), at - TimeDelta::seconds(1)));
    health.observe(&segment(0, None, at + TimeDelta::seconds(1)));
    tokio::time::advance(Duration::from_secs(9)).await;
    for (name, expected) in [
        ("stream_epoch", 7.0),
        ("stream_branch", 2.0),
        ("stream_transactions_total", 7.0),
        ("stream_segments_total", 3.0),
        ("stream_raw_bytes_total", 7000.0),
        ("stream_stored_bytes_total", 700.0),
        ("stream_lag_seconds_count", 2.0),
        ("stream_lag_seconds_sum", 3.4),
        ("stream_lag_seconds_bucket{le=\"0.5\"}", 1.0),
        ("stream_lag_seconds_bucket{le=\"5.0\"}", 2.0),
        ("stream_lag_seconds_bucket{le=\"+Inf\"}", 2.0),
        ("stream_since_durable_seconds", 9.0),
        ("stream_last_commit_timestamp_seconds", 1_795_000_000.25),
        ("stream_complete_to_timestamp_seconds", 1_795_000_001.25),
        ("stream_spool_bytes", 5.0),
        ("stream_state{state=\"following\"}", 1.0),
        ("stream_state{state=\"standby\"}", 0.0),
    ] {
        let name = format!("quillback_{name}");
        assert_eq!(value(&health, &name), Some(expected), "{name}");
    }
    let page = health.metrics();
    let build = format!(
        "quillback_build_info{{version=\"{}\"}} 1\n",
        env!("CARGO_PKG_VERSION")
    );
    assert!(page.contains(&build), "{page}");
    // What a server says of itself is quoted.
    let source =
        "quillback_stream_source_info{server=\"db1:3306\",version=\"8.4.6 \\\"log\\\"\"} 1\n";
    assert!(page.contains(source), "{page}");
    assert!(page.ends_with("# EOF\n"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn every_family_is_named_once_with_help_before_its_samples() {
    let health = health();
    health.observe(&claimed(Some(Utc::now())));
    health.observe(&following());
    health.observe(&segment(1, Some(1.0), Utc::now()));
    health.observe(&StreamEvent::PurgeHeadroom {
        seconds: None,
        waiting_bytes: 1,
        catch_up_seconds: Some(2.0),
    });
    health.observe(&StreamEvent::Compacted {
        replaced: 9,
        made: 1,
        segments: 4,
    });
    health.archive_is(ArchiveFacts {
        restorable_from: Some(Utc::now()),
        connected: true,
        last_snapshot: Some(Utc::now()),
        gaps: 0,
        accepted_gaps: 1,
    });
    let page = health.metrics();
    let mut families = std::collections::BTreeSet::new();
    let mut family = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().expect("a name");
            assert!(families.insert(family), "{family} twice");
            assert!(family.starts_with("quillback_"), "{family}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(rest.starts_with(family), "{line}");
        } else if line != "# EOF" {
            assert!(line.starts_with(family), "{line} is not of {family}");
            let (_, number) = line.rsplit_once(' ').expect("a value");
            assert!(number.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert_eq!(families.len(), 32, "{families:?}");
}

#[tokio::test(start_paused = true)]
async fn a_bound_on_the_purge_comes_nearer_while_nobody_answers() {
    let health = health();
    let name = "quillback_source_purge_headroom_seconds";
    let answer = |seconds| StreamEvent::PurgeHeadroom {
        seconds,
        waiting_bytes: 9,
        catch_up_seconds: None,
    };
    health.observe(&answer(Some(100.0)));
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(value(&health, name), Some(70.0));
    tokio::time::advance(Duration::from_secs(300)).await;
    assert_eq!(value(&health, name), Some(0.0));
    health.observe(&answer(None));
    assert_eq!(value(&health, name), Some(f64::INFINITY));
    assert_eq!(value(&health, "quillback_stream_catch_up_seconds"), None);
}

#[tokio::test(start_paused = true)]
async fn the_newest_restorable_moment_needs_a_snapshot_that_the_log_reaches() {
    let health = health();
    let (snapshot, end) = (
        DateTime::UNIX_EPOCH,
        DateTime::UNIX_EPOCH + TimeDelta::days(1),
    );
    health.observe(&claimed(Some(end)));
    let mut facts = ArchiveFacts {
        last_snapshot: Some(snapshot),
        ..ArchiveFacts::default()
    };
    let name = "quillback_restorable_to_timestamp_seconds";
    health.archive_is(facts.clone());
    assert_eq!(value(&health, name), Some(0.0));
    facts.connected = true;
    health.archive_is(facts);
    assert_eq!(value(&health, name), Some(86_400.0));
}

#[tokio::test(start_paused = true)]
async fn it_lives_while_it_says_so() {
    let health = health();
    tokio::time::advance(LIVE_LIMIT - Duration::from_secs(1)).await;
    assert_eq!(health.live(), Ok("starting".to_owned()));
    tokio::time::advance(Duration::from_secs(1)).await;
    let dead = Err("starting, and without a sign of life for 60 s".to_owned());
    assert_eq!(health.live(), dead);
    assert_eq!(health.ready(), dead);
    health.observe(&StreamEvent::Alive);
    assert!(health.live().is_ok());
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_when_it_follows_or_stands_by_and_the_store_takes_what_it_has() {
    let health = health();
    assert!(health.ready().is_err());
    health.observe(&StreamEvent::Standby {
        epoch: 6,
        host: "a".to_owned(),
        process: 1,
    });
    assert_eq!(
        health.ready(),
        Ok("standing by for epoch 6 on a".to_owned())
    );
    health.observe(&claimed(None));
    assert!(health.ready().is_err());
    health.observe(&following());
    assert_eq!(health.ready(), Ok("following db1:3306".to_owned()));
    health.observe(&StreamEvent::Interrupted {
        reason: "gone".to_owned(),
        retry_seconds: 1.0,
    });
    assert_eq!(health.ready(), Err("interrupted: gone".to_owned()));
    health.observe(&following());
    // A store that fails again and again counts from the first time.
    health.observe(&failing());
    tokio::time::advance(STORE_PATIENCE - Duration::from_secs(1)).await;
    health.observe(&failing());
    assert!(health.ready().is_ok());
    tokio::time::advance(Duration::from_secs(1)).await;
    let failed = Err("the store has failed for 30 s: 503".to_owned());
    assert_eq!(health.ready(), failed);
    assert_eq!(
        value(&health, "quillback_stream_store_failures_total"),
        Some(2.0)
    );
    assert_eq!(
        value(&health, "quillback_stream_waiting_segments"),
        Some(3.0)
    );
    assert_eq!(value(&health, "quillback_stream_spool_bytes"), Some(77.0));
    health.observe(&segment(1, None, Utc::now()));
    assert!(health.ready().is_ok());
    assert_eq!(
        value(&health, "quillback_stream_store_failing_seconds"),
        Some(0.0)
    );
    health.stopping();
    health.observe(&following());
    assert_eq!(health.ready(), Err("stopping".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn speeds_are_those_of_the_last_seconds() {
    let health = health();
    health.observe(&StreamEvent::Alive);
    for _ in 0..60 {
        tokio::time::advance(Duration::from_secs(1)).await;
        health.observe(&segment(50, Some(0.5), Utc::now()));
    }
    let summary = health.summary();
    assert!(
        (summary.transactions_per_second - 50.0).abs() < 5.0,
        "{summary:?}"
    );
    assert!(
        (summary.bytes_per_second - 50_000.0).abs() < 5_000.0,
        "{summary:?}"
    );
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(2)).await;
        health.observe(&StreamEvent::Alive);
    }
    let summary = health.summary();
    assert!(summary.transactions_per_second < 0.1, "{summary:?}");
    assert_eq!(summary.transactions, 3000);
}
