//! A proxy that plays tricks on single HTTP requests.
//!
//! It reads one request a connection, forwards it on a connection of its own and sends the whole reply back, unless a trick
//! is laid for such a request.

use std::collections::VecDeque;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What happens to a request.
pub enum Trick {
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

/// A trick for a request of this method whose target contains this, after so many that pass.
struct Trap {
    method: &'static str,
    target: String,
    passing: u32,
    trick: Trick,
}

/// A status that every such request gets.
struct Rule {
    method: &'static str,
    target: String,
    status: &'static str,
    code: &'static str,
}

#[derive(Default)]
struct State {
    traps: VecDeque<Trap>,
    rules: Vec<Rule>,
    /// The heads of all requests.
    seen: Vec<String>,
    /// How many requests a rule has answered.
    refused: u64,
}

/// The proxy; runs until it is dropped.
pub struct HttpProxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl HttpProxy {
    /// Starts a proxy in front of an HTTP server.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("failed to listen")?;
        let address = listener.local_addr()?;
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
        Ok(Self {
            address,
            state,
            accepting,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lays a trick for the next request of this method whose target contains `target`.
    pub fn trap(&self, method: &'static str, target: &str, trick: Trick) {
        self.trap_after(0, method, target, trick);
    }

    /// The same, after `passing` such requests that are let pass.
    pub fn trap_after(&self, passing: u32, method: &'static str, target: &str, trick: Trick) {
        let target = target.to_ascii_lowercase();
        let trap = Trap {
            method,
            target,
            passing,
            trick,
        };
        self.state().traps.push_back(trap);
    }

    /// Answers every such request with a status line and S3's code until [`HttpProxy::relent`], traps first.
    pub fn refuse(
        &self,
        method: &'static str,
        target: &str,
        status: &'static str,
        code: &'static str,
    ) {
        let target = target.to_ascii_lowercase();
        self.state().rules.push(Rule {
            method,
            target,
            status,
            code,
        });
    }

    /// Takes back every [`HttpProxy::refuse`], and gives how many requests were answered so.
    pub fn relent(&self) -> u64 {
        let mut state = self.state();
        state.rules.clear();
        std::mem::take(&mut state.refused)
    }

    /// How many requests were answered by [`HttpProxy::refuse`] since the last [`HttpProxy::relent`].
    pub fn refused(&self) -> u64 {
        self.state().refused
    }

    /// How many traps were not met yet.
    pub fn unmet(&self) -> usize {
        self.state().traps.len()
    }

    /// The heads of all requests of this method, lower-cased.
    pub fn seen(&self, method: &str) -> Vec<String> {
        let state = self.state();
        let method = method.to_ascii_lowercase();
        state
            .seen
            .iter()
            .filter(|head| head.starts_with(&method))
            .cloned()
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An HTTP request as it came.
#[derive(Debug)]
pub struct Request {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Where its body starts.
    pub body: usize,
    /// What is before the body, lower-cased.
    pub head: String,
}

impl Request {
    /// The next request, or nothing if the connection ends.
    ///
    /// # Errors
    /// The connection's; a body without a length.
    pub async fn read(client: &mut TcpStream) -> std::io::Result<Option<Self>> {
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
        let length = match (
            request.header("transfer-encoding"),
            request.header("content-length"),
        ) {
            (None, None) => Some(0),
            (None, Some(length)) => length.parse().ok(),
            (Some(_), _) => None,
        };
        let Some(length) = length else {
            return Err(std::io::Error::other(
                "bodies are known by their length only",
            ));
        };
        while request.bytes.len() < body + length {
            if client.read_buf(&mut request.bytes).await? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(request))
    }

    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
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
    let trick = take_trick(&mut lock(state), &text);
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

/// Notes a request, and takes what is laid for it.
fn take_trick(state: &mut State, head: &str) -> Option<Trick> {
    state.seen.push(head.to_owned());
    let line = head.lines().next().unwrap_or_default();
    let fits = |method: &str, target: &str| {
        line.starts_with(&method.to_ascii_lowercase()) && line.contains(target)
    };
    let mut met = None;
    for (at, trap) in state.traps.iter_mut().enumerate() {
        if fits(trap.method, &trap.target) {
            if trap.passing == 0 {
                met = Some(at);
                break;
            }
            trap.passing -= 1;
        }
    }
    if let Some(trap) = met.and_then(|at| state.traps.remove(at)) {
        return Some(trap.trick);
    }
    let rule = state
        .rules
        .iter()
        .find(|rule| fits(rule.method, &rule.target))?;
    let answer = Trick::Answer(rule.status, rule.code);
    state.refused += 1;
    Some(answer)
}
