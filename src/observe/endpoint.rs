//! A small HTTP server that is asked how a run is: `/metrics`, `/livez`, `/readyz`.
//!
//! It answers a bounded number of askers at a time, each within a bounded time, one request a
//! connection, and reads no bodies. It changes nothing and tells no secrets, but has no
//! authentication either: whom it listens to is the caller's choice. It ends with its owner.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// The content type of [`Probes::metrics`].
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Askers that are answered at the same time; the others wait.
const CONNECTIONS: usize = 16;
/// How long a request may take to come.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// Bytes that a request's head may have.
const REQUEST_BYTES: usize = 8 << 10;

/// Who answers.
pub trait Probes: Send + Sync + 'static {
    /// The page of `/metrics`, in the text format of OpenMetrics 1.0.
    fn metrics(&self) -> String;

    /// Whether the run goes on; else why not. Asked by `/livez`.
    ///
    /// # Errors
    ///
    /// A line for people.
    fn live(&self) -> Result<String, String>;

    /// Whether the run does its work; else why not. Asked by `/readyz`.
    ///
    /// # Errors
    ///
    /// A line for people.
    fn ready(&self) -> Result<String, String>;
}

/// A server that listens.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Endpoint {
    /// Takes an address, `host:port`; port 0 is any that is free.
    ///
    /// # Errors
    ///
    /// What the system says: the address is malformed, unknown, in use or not allowed.
    pub async fn bind(address: &str) -> std::io::Result<TcpListener> {
        TcpListener::bind(address).await
    }

    /// Begins to answer.
    ///
    /// # Errors
    ///
    /// That the system does not know the listener's address.
    pub fn start(listener: TcpListener, probes: Arc<dyn Probes>) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, probes, stop.clone()));
        Ok(Self {
            address,
            stop,
            task,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops answering, and waits until that is so.
    pub async fn stop(self) {
        self.stop.cancel();
        // It has no way to fail but a panic, which was told.
        let _ = self.task.await;
    }
}

async fn serve(listener: TcpListener, probes: Arc<dyn Probes>, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let accept = async || {
        let permit = Arc::clone(&permits).acquire_owned().await;
        (permit, listener.accept().await)
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = accept() => match accepted {
                Ok((stream, _)) => {
                    let probes = Arc::clone(&probes);
                    connections.spawn(async move {
                        answer_one(stream, probes).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the metrics' listener fails");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn answer_one(stream: TcpStream, probes: Arc<dyn Probes>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &*probes);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(REQUEST_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // A peer that goes away or speaks another protocol is its own affair.
    let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
}

fn answer<B>(request: &Request<B>, probes: &dyn Probes) -> Response<Full<Bytes>> {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, plain, "only GET\n".into());
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    let word = |answer: Result<String, String>| match answer {
        Ok(text) => (StatusCode::OK, text),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
    };
    let (status, text) = match request.uri().path() {
        "/metrics" => {
            let kind = HeaderValue::from_static(OPEN_METRICS);
            return respond(StatusCode::OK, kind, probes.metrics());
        }
        "/livez" => word(probes.live()),
        "/readyz" => word(probes.ready()),
        _ => (
            StatusCode::NOT_FOUND,
            "there are /metrics, /livez and /readyz".to_owned(),
        ),
    };
    respond(status, plain, format!("{text}\n"))
}

fn respond(status: StatusCode, kind: HeaderValue, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    struct Sick;

    impl Probes for Sick {
        fn metrics(&self) -> String {
            "a 1\n".to_owned()
        }

        fn live(&self) -> Result<String, String> {
            Ok("alive".to_owned())
        }

        fn ready(&self) -> Result<String, String> {
            Err("the store fails".to_owned())
        }
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        // A connection that is broken off gives what came before.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).expect("text")
    }

    #[tokio::test]
    async fn each_path_has_its_answer_and_its_status() {
        let listener = Endpoint::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = Endpoint::start(listener, Arc::new(Sick)).expect("started");
        let address = endpoint.address();
        for (request, status, body) in [
            ("GET /metrics", "200 OK", "a 1\n"),
            ("GET /metrics?x=1", "200 OK", "a 1\n"),
            ("GET /livez", "200 OK", "alive\n"),
            (
                "GET /readyz",
                "503 Service Unavailable",
                "the store fails\n",
            ),
            (
                "GET /",
                "404 Not Found",
                "there are /metrics, /livez and /readyz\n",
            ),
            ("POST /livez", "405 Method Not Allowed", "only GET\n"),
            ("HEAD /livez", "200 OK", ""),
        ] {
            let answer = ask(address, &format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            let first = answer.lines().next().unwrap_or_default();
            assert_eq!(first, format!("HTTP/1.1 {status}"), "{request}: {answer}");
            let (_, text) = answer.split_once("\r\n\r\n").expect("a head");
            assert_eq!(text, body, "{request}");
        }
        let long = "x".repeat(REQUEST_BYTES);
        let answer = ask(
            address,
            &format!("GET /livez HTTP/1.1\r\nA: {long}\r\n\r\n"),
        )
        .await;
        assert!(!answer.contains("200 OK"), "{answer}");
        endpoint.stop().await;
        assert!(
            TcpStream::connect(address).await.is_err(),
            "it still listens"
        );
    }

    #[tokio::test]
    async fn those_who_say_nothing_do_not_keep_others_out() {
        let listener = Endpoint::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = Endpoint::start(listener, Arc::new(Sick)).expect("started");
        let address = endpoint.address();
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS * 2 {
            silent.push(TcpStream::connect(address).await.expect("it listens"));
        }
        let asking = ask(address, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = tokio::time::timeout(CONNECTION_TIME * 3, asking)
            .await
            .expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        endpoint.stop().await;
        drop(silent);
    }
}
