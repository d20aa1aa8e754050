//! A proxy that plays tricks on single HTTP requests.
//!
//! It reads one request a connection, forwards it on a connection of its own and sends the whole
//! reply back, unless a trick is laid for such a request.

use std::collections::VecDeque;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) enum Trick {
    /// It is forwarded and done, and its reply never comes.
    LoseReply,
    /// This happens instead, and no reply comes.
    Instead(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// It is not forwarded; this is the reply's status line and code.
    Answer(&'static str, &'static str),
    /// The body's first byte is another one when it arrives.
    DamageRequest,
    /// The reply breaks off ten bytes before its end.
    CutReply,
    /// The reply's last byte is another one when it arrives.
    DamageReply,
}

/// A trick for the next request of this method whose target contains this.
struct Trap {
    method: &'static str,
    target: String,
    trick: Trick,
}

#[derive(Default)]
struct State {
    traps: VecDeque<Trap>,
    /// The heads of all requests.
    seen: Vec<String>,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("listens");
        let address = listener.local_addr().expect("has an address");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                connections.spawn(async move {
                    // A broken connection is what a client gets for it.
                    let _ = serve(client, upstream, &state).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            state,
            accepting,
        }
    }

    pub(crate) fn trap(&self, method: &'static str, target: &str, trick: Trick) {
        let target = target.to_owned();
        let trap = Trap {
            method,
            target,
            trick,
        };
        self.state.lock().expect("no panic").traps.push_back(trap);
    }

    /// The traps that were not met.
    pub(crate) fn unmet(&self) -> usize {
        self.state.lock().expect("no panic").traps.len()
    }

    /// The heads of all requests of this method, lower-cased.
    pub(crate) fn seen(&self, method: &str) -> Vec<String> {
        let state = self.state.lock().expect("no panic");
        let method = method.to_ascii_lowercase();
        state
            .seen
            .iter()
            .filter(|head| head.starts_with(&method))
            .cloned()
            .collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An HTTP request as it came.
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    /// Where its body starts.
    pub(crate) body: usize,
    /// What is before the body, lower-cased.
    pub(crate) head: String,
}

impl Request {
    /// The next request, or nothing if the connection ends.
    pub(crate) async fn read(client: &mut TcpStream) -> std::io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let body = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if client.read_buf(&mut bytes).await? == 0 {
                return Ok(None);
            }
        };
        let head = String::from_utf8_lossy(&bytes[..body]).to_ascii_lowercase();
        let mut request = Self { bytes, body, head };
        if request.header("expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        assert!(
            request.header("transfer-encoding").is_none(),
            "bodies are known by their length only"
        );
        let length: usize = request
            .header("content-length")
            .map_or(0, |length| length.parse().expect("a number"));
        while request.bytes.len() < body + length {
            if client.read_buf(&mut request.bytes).await? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(request))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.head.split_once(&format!("\r\n{name}: "))?;
        rest.split("\r\n").next()
    }
}

async fn serve(
    mut client: TcpStream,
    upstream: SocketAddr,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let Some(request) = Request::read(&mut client).await? else {
        return Ok(());
    };
    let Request {
        bytes: mut request,
        body: head,
        head: text,
    } = request;
    let trick = {
        let mut state = state.lock().expect("no panic");
        state.seen.push(text.clone());
        let line = text.lines().next().unwrap_or_default();
        let met = state.traps.iter().position(|trap| {
            line.starts_with(&trap.method.to_ascii_lowercase())
                && line.contains(&trap.target.to_ascii_lowercase())
        });
        met.and_then(|at| state.traps.remove(at))
            .map(|trap| trap.trick)
    };
    match trick {
        Some(Trick::Instead(action)) => {
            action.await;
            return Ok(());
        }
        Some(Trick::Answer(status, code)) => {
            let body = format!(
                "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>a trick</Message></Error>"
            );
            let reply = format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            return client.write_all(reply.as_bytes()).await;
        }
        Some(Trick::DamageRequest) => request[head] ^= 1,
        _ => {}
    }
    let mut server = TcpStream::connect(upstream).await?;
    for line in String::from_utf8_lossy(&request[..head - 4]).split("\r\n") {
        let name = line.to_ascii_lowercase();
        if !name.starts_with("expect:") && !name.starts_with("connection:") {
            server.write_all(line.as_bytes()).await?;
            server.write_all(b"\r\n").await?;
        }
    }
    server.write_all(b"Connection: close\r\n\r\n").await?;
    server.write_all(&request[head..]).await?;
    let mut reply = Vec::new();
    server.read_to_end(&mut reply).await?;
    match trick {
        Some(Trick::LoseReply) => return Ok(()),
        Some(Trick::CutReply) => reply.truncate(reply.len().saturating_sub(10)),
        Some(Trick::DamageReply) => {
            if let Some(last) = reply.last_mut() {
                *last ^= 1;
            }
        }
        _ => {}
    }
    client.write_all(&reply).await
}
