//! A TCP proxy that can fail in the ways in which networks do.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::port::Port;

/// How much is read at once, and so how coarse a throttle is.
const CHUNK: usize = 16 * 1024;
/// How many chunks a delayed direction may hold before it stops reading.
const IN_FLIGHT: usize = 256;

/// A proxy to one address; runs until it is dropped. Its faults act on existing and new connections alike.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    control: Arc<Control>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Control {
    target: String,
    link: watch::Sender<Link>,
    /// How many cuts there were: a connection sees also one that is over already.
    cuts: watch::Sender<u64>,
    /// Whether it listens; follows `link`.
    listens: watch::Sender<bool>,
    delay_micros: AtomicU64,
    bytes_per_second: AtomicU64,
    connections: AtomicU64,
    passed: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    /// Nobody listens, and what was connected is reset.
    Cut,
    /// Connections are taken and kept, and nothing moves.
    BlackHole,
}

impl Proxy {
    /// Starts a proxy in front of `target`, such as `127.0.0.1:3306`.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(target: &str) -> Result<Self> {
        let port = Port::reserve()?;
        let control = Arc::new(Control {
            target: target.to_owned(),
            link: watch::Sender::new(Link::Up),
            cuts: watch::Sender::new(0),
            listens: watch::Sender::new(true),
            delay_micros: AtomicU64::new(0),
            bytes_per_second: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            passed: AtomicU64::new(0),
        });
        let listener = listen(port.number()).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, port.number(), Arc::clone(&control)));
        Ok(Self {
            port,
            control,
            _tasks: tasks,
        })
    }

    /// The port on which it listens, at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// A URL to the target's server turned into one that goes through the proxy.
    pub fn url(&self, direct: &str) -> String {
        direct.replace(&self.control.target, &self.address())
    }

    /// Resets all connections and refuses new ones until [`Proxy::restore`].
    pub async fn cut(&self) {
        self.control.cuts.send_modify(|cuts| *cuts += 1);
        self.set(Link::Cut).await;
    }

    /// Accepts and keeps connections but passes nothing until [`Proxy::restore`], which then passes what was held back.
    pub async fn black_hole(&self) {
        self.set(Link::BlackHole).await;
    }

    /// Ends a cut or a black hole.
    pub async fn restore(&self) {
        self.set(Link::Up).await;
    }

    /// Resets all connections; new ones are taken again at once.
    pub async fn reset_connections(&self) {
        self.cut().await;
        self.restore().await;
    }

    /// Changes the link and waits until the port is open or closed accordingly.
    async fn set(&self, link: Link) {
        self.control.link.send_replace(link);
        let mut listens = self.control.listens.subscribe();
        let mut now = self.control.link.subscribe();
        tokio::select! {
            followed = listens.wait_for(|listens| *listens == (link != Link::Cut)) => {
                followed.map(drop).expect("the sender lives in self");
            }
            // Somebody else has changed it again, before the listener saw this.
            changed = now.wait_for(|now| *now != link) => {
                changed.map(drop).expect("the sender lives in self");
            }
        }
    }

    /// Adds this much latency to each direction (zero: none).
    pub fn delay(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.control.delay_micros.store(micros, Ordering::Relaxed);
    }

    /// Limits each direction of each connection to this many bytes a second (None: unlimited).
    pub fn throttle(&self, bytes_per_second: Option<u64>) {
        self.control
            .bytes_per_second
            .store(bytes_per_second.unwrap_or(0), Ordering::Relaxed);
    }

    /// How many connections it has taken so far.
    pub fn connections(&self) -> u64 {
        self.control.connections.load(Ordering::Relaxed)
    }

    /// How many bytes it has passed so far, both directions together.
    pub fn passed_bytes(&self) -> u64 {
        self.control.passed.load(Ordering::Relaxed)
    }
}

async fn listen(port: u16) -> Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address)
        .await
        .with_context(|| format!("failed to listen on {address}"))
}

async fn serve(listener: TcpListener, port: u16, control: Arc<Control>) {
    let mut link = control.link.subscribe();
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        if *link.borrow_and_update() == Link::Cut {
            // Closing the listener makes the kernel refuse; each connection resets itself.
            listener = None;
            control.listens.send_replace(false);
            if link.wait_for(|link| *link != Link::Cut).await.is_err() {
                return;
            }
        }
        let Some(open) = &listener else {
            listener = listen(port).await.ok();
            if listener.is_some() {
                control.listens.send_replace(true);
            } else {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            continue;
        };
        tokio::select! {
            accepted = open.accept() => {
                if let Ok((client, _)) = accepted {
                    control.connections.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(connection(client, control.cuts.subscribe(), Arc::clone(&control)));
                }
            }
            changed = link.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Passes both directions until both are done, one fails, or the link is cut.
async fn connection(client: TcpStream, cuts: watch::Receiver<u64>, control: Arc<Control>) {
    let Ok(server) = TcpStream::connect(&control.target).await else {
        client.set_zero_linger().ok();
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let (to_server, from_client) = mpsc::channel(IN_FLIGHT);
    let (to_client, from_server) = mpsc::channel(IN_FLIGHT);
    let mut ends = JoinSet::new();
    ends.spawn(read(
        client_read,
        to_server,
        cuts.clone(),
        Arc::clone(&control),
    ));
    ends.spawn(read(
        server_read,
        to_client,
        cuts.clone(),
        Arc::clone(&control),
    ));
    ends.spawn(write(
        server_write,
        from_client,
        cuts.clone(),
        Arc::clone(&control),
    ));
    ends.spawn(write(client_write, from_server, cuts, Arc::clone(&control)));
    // At a cut each task returns by itself; otherwise one that fails takes the others with it.
    while let Some(Ok(true)) = ends.join_next().await {}
    ends.shutdown().await;
}

type Chunk = (Instant, Vec<u8>);

/// The reading half until its end or the cut; false if the connection failed.
async fn read(
    mut from: OwnedReadHalf,
    to: mpsc::Sender<Chunk>,
    mut cuts: watch::Receiver<u64>,
    control: Arc<Control>,
) -> bool {
    let done = tokio::select! {
        biased;
        _ = cuts.changed() => None,
        done = read_on(&mut from, to, &control) => Some(done),
    };
    done.unwrap_or_else(|| from.as_ref().set_zero_linger().is_ok())
}

/// The writing half until its end or the cut; false if the connection failed.
async fn write(
    mut to: OwnedWriteHalf,
    from: mpsc::Receiver<Chunk>,
    mut cuts: watch::Receiver<u64>,
    control: Arc<Control>,
) -> bool {
    let done = tokio::select! {
        biased;
        _ = cuts.changed() => None,
        done = write_on(&mut to, from, &control) => Some(done),
    };
    done.unwrap_or_else(|| {
        // With zero linger the socket closes by a reset; forgotten, this half does not say goodbye before.
        let lingers_not = to.as_ref().set_zero_linger().is_ok();
        to.forget();
        lingers_not
    })
}

async fn read_on(from: &mut OwnedReadHalf, to: mpsc::Sender<Chunk>, control: &Control) -> bool {
    loop {
        let mut chunk = vec![0; CHUNK];
        match from.read(&mut chunk).await {
            Ok(0) => return true,
            Ok(length) => chunk.truncate(length),
            Err(_) => return false,
        }
        let latency = Duration::from_micros(control.delay_micros.load(Ordering::Relaxed));
        if to.send((Instant::now() + latency, chunk)).await.is_err() {
            return false;
        }
    }
}

async fn write_on(
    to: &mut OwnedWriteHalf,
    mut from: mpsc::Receiver<Chunk>,
    control: &Control,
) -> bool {
    let mut link = control.link.subscribe();
    while let Some((due, chunk)) = from.recv().await {
        tokio::time::sleep_until(due).await;
        let rate = control.bytes_per_second.load(Ordering::Relaxed);
        if rate > 0 {
            tokio::time::sleep(Duration::from_secs_f64(chunk.len() as f64 / rate as f64)).await;
        }
        if link.wait_for(|link| *link == Link::Up).await.is_err()
            || to.write_all(&chunk).await.is_err()
        {
            return false;
        }
        control
            .passed
            .fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
    to.shutdown().await.is_ok()
}
