//! A stream seen from outside: metrics, probes, the service manager, exit codes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use quillback_harness::ledger::fixed;
use quillback_harness::{Ledger, Minio, Port, Proxy, Server, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::gtid_executed;
use crate::place::{LIMIT, Place, Streamer};

const FLUSH: [&str; 2] = ["--flush-interval", "100ms"];

/// The endpoint of a running stream.
struct Eye {
    port: Port,
}

impl Eye {
    fn new() -> Result<Self> {
        Ok(Self {
            port: Port::reserve()?,
        })
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Asks; gives the status and the body.
    async fn ask(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.address()).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, body.to_owned()))
    }

    /// The samples, by their whole names.
    async fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        let (status, page) = self.ask("/metrics").await?;
        ensure!(status == 200, "{status}: {page}");
        ensure!(page.ends_with("# EOF\n"), "{page}");
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').context(line.to_owned())?;
                Ok((name.to_owned(), value.parse()?))
            })
            .collect()
    }

    /// Waits until a probe gives this status, and gives what it says.
    async fn turns(&self, streamer: &Streamer, path: &str, status: u16) -> Result<String> {
        until(&format!("{path} to answer {status}"), LIMIT, async || {
            ensure!(streamer.is_alive(), "{}", streamer.stderr());
            let (got, text) = self.ask(path).await?;
            Ok((got == status).then_some(text))
        })
        .await
        .with_context(|| streamer.stderr())
    }

    fn stream(&self, place: &Place, server: &str, arguments: &[&str]) -> Result<Streamer> {
        let address = self.address();
        let listen = ["--metrics-listen", address.as_str()];
        place.stream(&[server.to_owned()], &[&listen, arguments].concat())
    }
}

fn number(metrics: &BTreeMap<String, f64>, name: &str) -> Result<f64> {
    let value = metrics.get(&format!("quillback_{name}"));
    value
        .copied()
        .with_context(|| format!("no {name}: {metrics:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_numbers_under_load_are_those_of_the_archive() -> Result<()> {
    let place = Place::folder().await?;
    let server = Server::start().await?;
    let eye = Eye::new()?;
    let streamer = eye.stream(&place, &server.url(), &FLUSH)?;
    streamer.following().await?;
    let mut ledger = Ledger::start(fixed(&server.url())).await?;
    let mut before = eye.metrics().await?;
    for _ in 0..5 {
        ledger.wait_acknowledged(40, LIMIT).await?;
        let now = eye.metrics().await?;
        // What only grows only grows.
        for (name, value) in &before {
            let grows = name.ends_with("_total") || name.contains("_bucket");
            ensure!(!grows || now.get(name) >= Some(value), "{name}");
        }
        before = now;
    }
    ledger.stop().await;
    place
        .wait_holds(&streamer, &gtid_executed(&server).await?)
        .await?;
    // A segment is durable before it is told, and an idle stream adds one now and then.
    let metrics = until("the numbers to be the archive's", LIMIT, async || {
        let metrics = eye.metrics().await?;
        let chain = place.chain().await?;
        let segments = &chain.segments;
        let complete = chain.complete_to().context("a moment")?;
        for (name, expected) in [
            ("stream_segments_total", segments.len() as u64),
            (
                "stream_transactions_total",
                segments.iter().map(|s| s.index.transactions).sum(),
            ),
            (
                "stream_raw_bytes_total",
                segments.iter().map(|s| s.index.raw_bytes).sum(),
            ),
            (
                "stream_stored_bytes_total",
                segments.iter().map(|s| s.size).sum(),
            ),
            ("stream_epoch", 1),
            ("stream_branch", 1),
            ("stream_state{state=\"following\"}", 1),
            ("stream_spool_bytes", 0),
            ("stream_store_failing_seconds", 0),
            ("stream_interruptions_total", 0),
        ] {
            let got = number(&metrics, name)?;
            ensure!(got == expected as f64, "{name} is {got}, not {expected}");
        }
        let told = number(&metrics, "stream_complete_to_timestamp_seconds")?;
        let complete = complete.timestamp_micros() as f64 / 1e6;
        ensure!(
            (told - complete).abs() < 1e-3,
            "complete to {told}, not {complete}"
        );
        Ok(Some(metrics))
    })
    .await?;
    ensure!(number(&metrics, "stream_transactions_total")? > 200.0);
    ensure!(number(&metrics, "stream_lag_seconds_count")? >= 1.0);
    // Nobody has set it, so the server keeps its binlog for 30 days.
    let headroom = number(&metrics, "source_purge_headroom_seconds")?;
    ensure!(
        (2_500_000.0..=2_592_000.0).contains(&headroom),
        "{headroom}"
    );
    // Without a snapshot nothing is restorable, and no moment is told.
    let gaps = until("the archive to be looked at", LIMIT, async || {
        Ok(number(&eye.metrics().await?, "archive_gaps").ok())
    })
    .await?;
    ensure!(gaps == 0.0);
    ensure!(number(&metrics, "restorable_to_timestamp_seconds").is_err());
    let (status, text) = eye.ask("/readyz").await?;
    ensure!(
        status == 200 && text == format!("following {}\n", server.address()),
        "{text}"
    );
    streamer.stop().await?.is(0);
    let ended = TcpStream::connect(eye.address()).await;
    ensure!(ended.is_err(), "it still listens");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_restorable_span_is_that_of_status() -> Result<()> {
    let place = Place::folder().await?;
    let server = Server::start().await?;
    server.exec("CREATE DATABASE d").await?;
    let servers = [server.url()];
    place
        .run(&servers, &["snapshot", "--allow-primary"])
        .await?
        .is(0);
    let eye = Eye::new()?;
    let streamer = eye.stream(&place, &server.url(), &FLUSH)?;
    streamer.following().await?;
    server.exec("CREATE DATABASE e").await?;
    place
        .wait_holds(&streamer, &gtid_executed(&server).await?)
        .await?;
    until("the span to be told", LIMIT, async || {
        let metrics = eye.metrics().await?;
        let ended = place.run(&[], &["--json", "status"]).await?;
        let status: serde_json::Value = serde_json::from_str(&ended.out)?;
        let moment = |name: &str| -> Result<f64> {
            let text = status[name].as_str().context("a moment")?;
            let moment: chrono::DateTime<chrono::Utc> = text.parse()?;
            Ok(moment.timestamp_micros() as f64 / 1e6)
        };
        for (name, expected) in [
            ("restorable_from_timestamp_seconds", "restorable_from"),
            ("restorable_to_timestamp_seconds", "restorable_to"),
            ("snapshot_last_success_timestamp_seconds", "restorable_from"),
        ] {
            let (told, expected) = (number(&metrics, name)?, moment(expected)?);
            ensure!(
                (told - expected).abs() < 1e-3,
                "{name} is {told}, not {expected}"
            );
        }
        Ok(Some(()))
    })
    .await?;
    streamer.stop().await?.is(0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_gone_makes_it_unready_but_not_dead() -> Result<()> {
    let place = Place::folder().await?;
    let server = Server::start().await?;
    let proxy = Proxy::start(&server.address()).await?;
    let eye = Eye::new()?;
    let streamer = eye.stream(&place, &proxy.url(&server.url()), &FLUSH)?;
    streamer.following().await?;
    eye.turns(&streamer, "/readyz", 200).await?;
    proxy.cut().await;
    let why = eye.turns(&streamer, "/readyz", 503).await?;
    ensure!(why.starts_with("interrupted: "), "{why}");
    let metrics = eye.metrics().await?;
    ensure!(number(&metrics, "stream_state{state=\"interrupted\"}")? == 1.0);
    ensure!(number(&metrics, "stream_interruptions_total")? >= 1.0);
    ensure!(eye.ask("/livez").await?.0 == 200);
    proxy.restore().await;
    eye.turns(&streamer, "/readyz", 200).await?;
    streamer.stop().await?.is(0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_stays_away_makes_it_unready_but_not_dead() -> Result<()> {
    let minio = Minio::start().await?;
    let endpoint = minio.endpoint();
    let target = endpoint.strip_prefix("http://").context("an endpoint")?;
    let proxy = Proxy::start(target).await?;
    let place = Place::bucket(&minio, &proxy.url(&endpoint)).await?;
    let server = Server::start().await?;
    let eye = Eye::new()?;
    let streamer = eye.stream(&place, &server.url(), &FLUSH)?;
    streamer.following().await?;
    eye.turns(&streamer, "/readyz", 200).await?;
    proxy.cut().await;
    server.exec("CREATE DATABASE d").await?;
    let why = eye.turns(&streamer, "/readyz", 503).await?;
    ensure!(why.starts_with("the store has failed for "), "{why}");
    ensure!(eye.ask("/livez").await?.0 == 200);
    let metrics = eye.metrics().await?;
    for name in [
        "stream_store_failures_total",
        "stream_store_failing_seconds",
        "stream_waiting_segments",
        "stream_spool_bytes",
    ] {
        ensure!(number(&metrics, name)? > 0.0, "{name}: {metrics:?}");
    }
    proxy.restore().await;
    eye.turns(&streamer, "/readyz", 200).await?;
    place
        .wait_holds(&streamer, &gtid_executed(&server).await?)
        .await?;
    let spooled = until("the spool to be empty", LIMIT, async || {
        let metrics = eye.metrics().await?;
        let empty = number(&metrics, "stream_spool_bytes")? == 0.0;
        Ok(empty.then_some(metrics))
    })
    .await?;
    ensure!(number(&spooled, "stream_waiting_segments")? == 0.0);
    streamer.stop().await?.is(0);
    Ok(())
}

/// What the service manager hears until a message that fits; in their order.
async fn heard_until(manager: &UnixDatagram, fits: fn(&str) -> bool) -> Result<Vec<String>> {
    let heard = RefCell::new(Vec::new());
    until("a message to the service manager", LIMIT, async || {
        let mut buffer = [0; 4096];
        while let Ok(length) = manager.recv(&mut buffer) {
            let message = String::from_utf8(buffer[..length].to_vec())?;
            let found = fits(&message);
            heard.borrow_mut().push(message);
            if found {
                return Ok(Some(()));
            }
        }
        Ok(None)
    })
    .await
    .with_context(|| format!("{:?}", heard.borrow()))?;
    Ok(heard.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_manager_is_told_of_readiness_life_and_end() -> Result<()> {
    let place = Place::folder().await?;
    let server = Server::start().await?;
    let path = place.path("notify");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_nonblocking(true)?;
    let socket = path.display().to_string();
    let env = [
        ("NOTIFY_SOCKET", socket.as_str()),
        ("WATCHDOG_USEC", "60000000"),
    ];
    let servers = [server.url()];
    let streamer = place.stream_with(&servers, &FLUSH, &env)?;
    let heard = heard_until(&manager, |message| message == "READY=1").await?;
    ensure!(
        !heard.iter().any(|message| message == "STOPPING=1"),
        "{heard:?}"
    );
    let follows = |message: &str| message.starts_with("STATUS=127.0.0.1:");
    heard_until(&manager, follows).await?;
    for _ in 0..2 {
        heard_until(&manager, |message| message == "WATCHDOG=1").await?;
    }
    // A standby is ready as well; it has a manager of its own.
    let path = place.path("notify2");
    let second = UnixDatagram::bind(&path)?;
    second.set_nonblocking(true)?;
    let socket = path.display().to_string();
    let env = [("NOTIFY_SOCKET", socket.as_str())];
    let flags = [&FLUSH[..], &["--standby"]].concat();
    let standby = place.stream_with(&servers, &flags, &env)?;
    let heard = heard_until(&second, |message| message == "READY=1").await?;
    // Nobody asked for its watchdog.
    ensure!(
        !heard.iter().any(|message| message == "WATCHDOG=1"),
        "{heard:?}"
    );
    heard_until(&second, |message| message.starts_with("STATUS=standing by")).await?;
    let ended = standby.stop().await?;
    ended.is(0);
    heard_until(&second, |message| message == "STOPPING=1").await?;
    streamer.stop().await?.is(0);
    heard_until(&manager, |message| message == "STOPPING=1").await?;
    // A manager that is gone stops nobody.
    drop(manager);
    let streamer = place.take_over(&servers, &FLUSH).await?;
    streamer.stop().await?.is(0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_cannot_be_had_is_told_before_anything_is_done() -> Result<()> {
    let place = Place::folder().await?;
    let server = Server::start().await?;
    let taken = Eye::new()?;
    let listener = std::net::TcpListener::bind(taken.address())?;
    let taken = taken.address();
    for address in [
        "9187",
        ":9187",
        "localhost",
        "192.0.2.1:9187",
        "127.0.0.1:99999",
        &taken,
    ] {
        let arguments = ["--json", "stream", "--metrics-listen", address];
        let ended = place.run(&[server.url()], &arguments).await?;
        ended.is(2);
        let error = format!("error: cannot listen on {address:?} for metrics: ");
        ensure!(ended.err.starts_with(&error), "{}", ended.err);
        ensure!(
            ended
                .err
                .contains("\n  try: --metrics-listen 127.0.0.1:9187"),
            "{}",
            ended.err
        );
    }
    ensure!(place.repository.newest_epoch(None).await?.is_none());
    drop(listener);
    Ok(())
}

/// Starts `stream --once` and returns when it has the archive, which another run may seem to have for a moment.
async fn claimed_once(place: &Place, servers: &[String]) -> Result<Streamer> {
    until("a claim", LIMIT, async || {
        let streamer = place.stream(servers, &["--once"])?;
        streamer
            .until_event("a claim", |event| event["event"] == "claimed")
            .await?;
        Ok(Some(streamer))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_succeeds_only_if_it_has_caught_up() -> Result<()> {
    let place = Place::folder().await?;
    let server = Server::start().await?;
    let servers = [server.url()];
    let first = place.run(&servers, &["--json", "stream", "--once"]).await?;
    first.is(0);
    ensure!(
        first.out.contains("\"ended\":\"caught_up\""),
        "{}",
        first.out
    );
    server.exec("CREATE DATABASE d").await?;
    let executed = gtid_executed(&server).await?;
    // So slow that there is time to break it between the claim and the end.
    let proxy = Proxy::start(&server.address()).await?;
    let behind = [proxy.url(&server.url())];
    proxy.delay(Duration::from_millis(100));
    let stopped = claimed_once(&place, &behind).await?;
    proxy.black_hole().await;
    let ended = stopped.stop().await?;
    ended.refused(
        30,
        "error: stopped before all was archived that the source had when the run began\n  \
         try: stream --once again, which goes on from here",
    );
    proxy.restore().await;
    // A source that dies meanwhile and does not come back is given up.
    let lost = claimed_once(&place, &behind).await?;
    proxy.cut().await;
    let ended = lost.ended().await?;
    ended.is(30);
    ensure!(
        ended
            .err
            .contains("\n  try: again once the server can be reached"),
        "{}",
        ended.err
    );
    proxy.restore().await;
    // One that is not there at all is told at once.
    let gone = place
        .run(
            &["mysql://root@127.0.0.1:1".to_owned()],
            &["stream", "--once"],
        )
        .await?;
    gone.is(30);
    let last = until("the last one to be taken for dead", LIMIT, async || {
        let ended = place.run(&servers, &["stream", "--once"]).await?;
        Ok((ended.status.code() != Some(11)).then_some(ended))
    })
    .await?;
    last.is(0);
    ensure!(place.chain().await?.end() == Some(executed));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_stopped_says_that_it_has_done_nothing() -> Result<()> {
    let place = Place::folder().await?;
    let server = Server::start().await?;
    let servers = [server.url()];
    let first = place.stream(&servers, &FLUSH)?;
    first.following().await?;
    let standby = place.stream(&servers, &["--standby"])?;
    standby
        .until_event("a standby", |event| event["event"] == "standby")
        .await?;
    let ended = standby.stop().await?;
    ended.is(0);
    let last = ended.out.lines().last().context("no line")?;
    let last: serde_json::Value = serde_json::from_str(last)?;
    ensure!(last["report"]["ended"] == "unclaimed", "{last}");
    let ended = first.stop().await?;
    let last = ended.out.lines().last().context("no line")?;
    let last: serde_json::Value = serde_json::from_str(last)?;
    ensure!(last["report"]["ended"] == "stopped", "{last}");
    ensure!(!ended.out.contains("\"alive\""), "{}", ended.out);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_how_long_the_source_keeps_what_is_not_archived() -> Result<()> {
    let place = Place::folder().await?;
    let server = Server::start().await?;
    let servers = [server.url()];
    place.run(&servers, &["stream", "--once"]).await?.is(0);
    let status = async || -> Result<serde_json::Value> {
        let ended = place.run(&servers, &["--json", "status"]).await?;
        Ok(serde_json::from_str(&ended.out)?)
    };
    const NAME: &str = "source_purge_headroom_seconds";
    // Nothing waits: what comes next has the full time.
    ensure!(status().await?[NAME] == 2_592_000.0);
    server.exec("CREATE DATABASE d").await?;
    let waiting = status().await?[NAME].as_f64().context("a number")?;
    ensure!((2_580_000.0..2_592_000.0).contains(&waiting), "{waiting}");
    server
        .exec("SET GLOBAL binlog_expire_logs_seconds = 1")
        .await?;
    let pressed = until("the time to be over", LIMIT, async || {
        let status = status().await?;
        Ok((status[NAME] == 0.0).then_some(status))
    })
    .await?;
    let warned = pressed["warnings"].to_string();
    ensure!(
        warned.contains("may purge in 0.0 s what is not archived"),
        "{warned}"
    );
    server
        .exec("SET GLOBAL binlog_expire_logs_seconds = 0")
        .await?;
    let unlimited = status().await?;
    ensure!(
        unlimited.get(NAME) == Some(&serde_json::Value::Null),
        "{unlimited}"
    );
    let text = place.run(&servers, &["status"]).await?;
    let line = "\npurge      the server purges nothing of its binlog for its age\n";
    ensure!(text.out.contains(line), "{}", text.out);
    let gone = place
        .run(
            &["mysql://root@127.0.0.1:1".to_owned()],
            &["--json", "status"],
        )
        .await?;
    let gone: serde_json::Value = serde_json::from_str(&gone.out)?;
    ensure!(gone.get(NAME).is_none(), "{gone}");
    Ok(())
}
