//! The proxy fails in the ways that it promises.

use std::time::{Duration, Instant};

use quillback_harness::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// A server that sends back what it gets; its address.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.into_split();
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
        }
    });
    address
}

async fn ask(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut answer = vec![0; bytes.len()];
    let (mut read, mut write) = stream.split();
    let (written, read) = tokio::join!(write.write_all(bytes), read.read_exact(&mut answer));
    written?;
    read?;
    Ok(answer)
}

#[tokio::test]
async fn what_goes_in_comes_out_whole_and_ends_cleanly() {
    let proxy = Proxy::start(&echo().await).await.expect("a proxy");
    let stream = TcpStream::connect(proxy.address())
        .await
        .expect("a connection");
    let data: Vec<u8> = (0..1_000_000_u32)
        .map(|n| u8::try_from(n % 251).expect("small"))
        .collect();
    let (mut read, mut write) = stream.into_split();
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.expect("written");
        write.shutdown().await.expect("a half-closed end");
    });
    let mut got = Vec::new();
    read.read_to_end(&mut got).await.expect("read to the end");
    writer.await.expect("no panic");
    assert!(
        got == data,
        "{} bytes of {} came back",
        got.len(),
        data.len()
    );
    assert_eq!(proxy.passed_bytes(), 2_000_000);
}

#[tokio::test]
async fn a_cut_resets_and_refuses_until_it_is_restored() {
    let proxy = Proxy::start(&echo().await).await.expect("a proxy");
    let mut stream = TcpStream::connect(proxy.address())
        .await
        .expect("a connection");
    assert_eq!(
        ask(&mut stream, b"hello").await.expect("an answer"),
        b"hello"
    );
    proxy.cut().await;
    let error = stream.read(&mut [0; 8]).await.expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let error = TcpStream::connect(proxy.address())
        .await
        .expect_err("a refusal");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    proxy.restore().await;
    let mut stream = TcpStream::connect(proxy.address())
        .await
        .expect("connections again");
    assert_eq!(
        ask(&mut stream, b"again").await.expect("an answer"),
        b"again"
    );
    proxy.reset_connections().await;
    let error = stream
        .read(&mut [0; 8])
        .await
        .expect_err("a reset also by the shortest cut");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_black_hole_passes_nothing_and_forgets_nothing() {
    let proxy = Proxy::start(&echo().await).await.expect("a proxy");
    let mut old = TcpStream::connect(proxy.address())
        .await
        .expect("a connection");
    ask(&mut old, b"hello").await.expect("an answer");
    proxy.black_hole().await;
    let mut new = TcpStream::connect(proxy.address())
        .await
        .expect("it still accepts");
    for stream in [&mut old, &mut new] {
        stream
            .write_all(b"lost?")
            .await
            .expect("the kernel takes it");
        assert!(
            timeout(Duration::from_millis(300), stream.read(&mut [0; 8]))
                .await
                .is_err(),
            "nothing comes"
        );
    }
    proxy.restore().await;
    for stream in [&mut old, &mut new] {
        let mut answer = [0; 5];
        stream
            .read_exact(&mut answer)
            .await
            .expect("what was held back");
        assert_eq!(&answer, b"lost?");
    }
}

#[tokio::test]
async fn delay_and_throttle_take_their_time() {
    let proxy = Proxy::start(&echo().await).await.expect("a proxy");
    let mut stream = TcpStream::connect(proxy.address())
        .await
        .expect("a connection");
    proxy.delay(Duration::from_millis(100));
    let start = Instant::now();
    ask(&mut stream, b"hello").await.expect("an answer");
    assert!(
        start.elapsed() >= Duration::from_millis(200),
        "{:?} for there and back",
        start.elapsed()
    );
    proxy.delay(Duration::ZERO);
    proxy.throttle(Some(100_000));
    let start = Instant::now();
    ask(&mut stream, &[7; 50_000]).await.expect("an answer");
    assert!(
        start.elapsed() >= Duration::from_millis(450),
        "{:?} for 50 kB at 100 kB/s",
        start.elapsed()
    );
}
