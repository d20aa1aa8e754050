//! A store that takes its time: many uploads at once do not send more parts than there is room for.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quillback::storage::{S3Storage, Storage as _};
use quillback_harness::Request;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::minio::{BUCKET, SECRET, config};

/// Bytes of parts that the store has and has not answered.
#[derive(Debug, Default)]
struct Parts {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

async fn serve(mut client: TcpStream, parts: Arc<Parts>) -> std::io::Result<()> {
    let Some(request) = Request::read(&mut client).await? else {
        return Ok(());
    };
    let line = request.head.lines().next().unwrap_or_default();
    let body = if line.starts_with("put") {
        let bytes = request.bytes.len() - request.body;
        let now = parts.now.fetch_add(bytes, Ordering::SeqCst) + bytes;
        parts.most.fetch_max(now, Ordering::SeqCst);
        parts.all.fetch_add(bytes, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
        parts.now.fetch_sub(bytes, Ordering::SeqCst);
        ""
    } else if line.contains("?uploads") {
        "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    } else {
        "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\netag: \"e\"\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.write_all(head.as_bytes()).await
}

async fn start(parts: Arc<Parts>) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let parts = Arc::clone(&parts);
            connections.spawn(async move { serve(client, parts).await.ok() });
        }
    });
    (address, serving)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_uploads_share_the_room_for_parts() {
    const UPLOADS: usize = 12;
    let parts = Arc::new(Parts::default());
    let (address, _serving) = start(Arc::clone(&parts)).await;
    let storage = S3Storage::connect(config(address, BUCKET, "", SECRET))
        .await
        .expect("has credentials");
    assert_eq!(storage.upload_bytes(), 8 << 20);
    // Two whole parts and a rest.
    let piece = Bytes::from(vec![7; 1 << 20]);
    let mut uploads = JoinSet::new();
    for n in 0..UPLOADS {
        let (storage, piece) = (storage.clone(), piece.clone());
        uploads.spawn(async move {
            let mut writer = storage.upload(&format!("object-{n}")).await?;
            for _ in 0..17 {
                writer.write(piece.clone()).await?;
            }
            writer.commit().await
        });
    }
    let ended = tokio::time::timeout(Duration::from_secs(120), uploads.join_all()).await;
    for upload in ended.expect("no upload waits for another one for ever") {
        upload.expect("it is stored");
    }
    assert_eq!(parts.all.load(Ordering::SeqCst), UPLOADS * (17 << 20));
    // Alone each of them would have had two whole parts under way, 192 MiB in all.
    let most = parts.most.load(Ordering::SeqCst);
    assert!(
        (17 << 20..=48 << 20).contains(&most),
        "{most} bytes at once"
    );
}
