//! A server that speaks S3's protocol and does not mean it: what it makes of conditional writes is chosen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::Request;

/// What a store makes of `If-None-Match: *`.
#[derive(Clone, Copy, Debug)]
pub enum Condition {
    /// What it says.
    Honoured,
    /// Nothing: it overwrites.
    Ignored,
    /// The contrary.
    Inverted,
    /// It answers 412 rightly, and writes all the same.
    RefusedButDone,
}

/// The running store; gone with its value. Its keys are in lower case, its objects in memory.
#[derive(Debug)]
pub struct LyingStore {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

#[derive(Clone, Debug, Default)]
struct Object {
    write_id: String,
    body: Vec<u8>,
}

type Objects = Mutex<BTreeMap<String, Object>>;

impl LyingStore {
    /// Starts an empty one on a free port.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(condition: Condition) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let objects = Arc::new(Objects::default());
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let objects = Arc::clone(&objects);
                // A client that goes away is its own affair.
                connections.spawn(async move { serve(client, condition, &objects).await.ok() });
            }
        });
        Ok(Self {
            address,
            _serving: serving,
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(
    mut client: TcpStream,
    condition: Condition,
    objects: &Objects,
) -> std::io::Result<()> {
    let Some(request) = Request::read(&mut client).await? else {
        return Ok(());
    };
    let line = request.head.split("\r\n").next().unwrap_or_default();
    let mut words = line.split(' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (status, object) = if query.contains("list-type=2") {
        let body = listing(path, query, objects).into_bytes();
        let write_id = String::new();
        ("200 OK", Object { write_id, body })
    } else {
        answer(&request, method, path, condition, objects)
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\nx-amz-meta-quillback-write: {}\r\n\r\n",
        object.body.len(),
        object.write_id,
    );
    client.write_all(head.as_bytes()).await?;
    if method == "get" {
        client.write_all(&object.body).await?;
    }
    Ok(())
}

/// All that a prefix has, behind `start-after`, in one page.
fn listing(bucket: &str, query: &str, objects: &Objects) -> String {
    let parameter = |name: &str| {
        let pair = query.split('&').filter_map(|pair| pair.split_once('='));
        let mut value = pair.filter(|(key, _)| *key == name).map(|(_, value)| value);
        value.next().unwrap_or_default().replace("%2f", "/")
    };
    let bucket = format!("{}/", bucket.trim_end_matches('/'));
    let (prefix, after) = (parameter("prefix"), parameter("start-after"));
    let objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
    let mut xml = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
    for (path, object) in objects.iter() {
        let Some(key) = path.strip_prefix(&bucket) else {
            continue;
        };
        if key.starts_with(&prefix) && (after.is_empty() || *key > *after) {
            let size = object.body.len();
            write!(
                xml,
                "<Contents><Key>{key}</Key><Size>{size}</Size></Contents>"
            )
            .expect("a string takes all");
        }
    }
    xml + "</ListBucketResult>"
}

fn answer(
    request: &Request,
    method: &str,
    key: &str,
    condition: Condition,
    objects: &Objects,
) -> (&'static str, Object) {
    const REFUSED: &str = "412 Precondition Failed";
    let mut objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
    match method {
        "put" => {
            let exists = objects.contains_key(key);
            let (refused, done) = match condition {
                Condition::Honoured => (exists, !exists),
                Condition::Ignored => (false, true),
                Condition::Inverted => (!exists, exists),
                Condition::RefusedButDone => (exists, true),
            };
            if done {
                let object = Object {
                    write_id: request
                        .header("x-amz-meta-quillback-write")
                        .unwrap_or_default()
                        .to_owned(),
                    body: request.bytes[request.body..].to_vec(),
                };
                objects.insert(key.to_owned(), object);
            }
            (if refused { REFUSED } else { "200 OK" }, Object::default())
        }
        "delete" => {
            objects.remove(key);
            ("204 No Content", Object::default())
        }
        _ => match objects.get(key) {
            Some(object) => ("200 OK", object.clone()),
            None => ("404 Not Found", Object::default()),
        },
    }
}
