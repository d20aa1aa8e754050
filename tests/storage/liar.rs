//! Servers that speak S3's protocol and do not mean it: the probe finds them out over HTTP too,
//! where the id of one's own write must not make a loser look like the winner.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use quillback::storage::{S3Storage, StorageError, probe_conditional_writes};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::minio::{BUCKET, SECRET, config};
use quillback_harness::Request;

/// What a server makes of `If-None-Match: *`.
#[derive(Clone, Copy, Debug)]
enum Condition {
    Honoured,
    Ignored,
    Inverted,
    /// It answers 412 rightly, and writes all the same.
    RefusedButDone,
}

#[derive(Clone)]
struct Object {
    write_id: String,
    body: Vec<u8>,
}

type Objects = Mutex<HashMap<String, Object>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probe_refuses_servers_that_lie() {
    for (condition, says) in [
        (Condition::Honoured, None),
        (Condition::Ignored, Some("8 of 8 writers")),
        (Condition::Inverted, Some("none of 8 writers")),
        // Each loser finds its own object or a later one's.
        (Condition::RefusedButDone, Some("")),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("listens");
        let address = listener.local_addr().expect("has an address");
        let server = tokio::spawn(async move {
            let objects = Arc::new(Objects::default());
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let objects = Arc::clone(&objects);
                connections.spawn(async move { serve(client, condition, &objects).await });
            }
        });
        let storage = S3Storage::connect(config(address, BUCKET, "", SECRET))
            .await
            .expect("has credentials");
        let probed = probe_conditional_writes(&storage).await;
        match (probed, says) {
            (Ok(()), None) => {}
            (Err(StorageError::UnconditionalWrites { evidence, .. }), Some(says)) => {
                assert!(evidence.contains(says), "{condition:?}: {evidence}");
            }
            (other, _) => panic!("{condition:?} gave {other:?}"),
        }
        server.abort();
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
    let mut words = request.head.split([' ', '?']);
    let (method, key) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let (status, object) = answer(&request, method, key, condition, objects);
    let object = object.unwrap_or(Object {
        write_id: String::new(),
        body: Vec::new(),
    });
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

fn answer(
    request: &Request,
    method: &str,
    key: &str,
    condition: Condition,
    objects: &Objects,
) -> (&'static str, Option<Object>) {
    const REFUSED: &str = "412 Precondition Failed";
    let mut objects = objects.lock().expect("no panic");
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
            (if refused { REFUSED } else { "200 OK" }, None)
        }
        "delete" => {
            objects.remove(key);
            ("204 No Content", None)
        }
        _ => match objects.get(key) {
            Some(object) => ("200 OK", Some(object.clone())),
            None => ("404 Not Found", None),
        },
    }
}
