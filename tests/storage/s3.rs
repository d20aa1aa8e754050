//! What is S3's own: lost replies, conflicts, damage on the wire, and what errors tell.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use quillback::error::{Class, Classified as _};
use quillback::storage::{S3Storage, Storage, StorageError, list_all};
use quillback_harness::{HttpProxy, Trick};

use crate::contract::{already_exists, pattern};
use crate::minio::{self, BUCKET, Minio, SECRET};

struct Bench {
    _minio: Minio,
    proxy: HttpProxy,
    /// Through the proxy.
    storage: S3Storage,
    /// Past the proxy.
    direct: S3Storage,
}

impl Bench {
    async fn start() -> Self {
        let minio = Minio::start().await;
        let proxy = HttpProxy::start(minio.address).await.expect("listens");
        let storage = minio.storage_through(proxy.address(), "a/prefix").await;
        let direct = minio.storage("a/prefix").await;
        Self {
            _minio: minio,
            proxy,
            storage,
            direct,
        }
    }

    /// Another writer comes first, and then the connection breaks.
    fn foreign_write(&self, key: &'static str) -> Trick {
        let direct = self.direct.clone();
        Trick::Instead(Box::pin(async move {
            direct
                .put_if_absent(key, Bytes::from_static(b"foreign"))
                .await
                .expect("the foreign write wins");
        }))
    }

    async fn upload(&self, key: &str, body: &Bytes) -> Result<(), StorageError> {
        let mut writer = self.storage.upload(key).await?;
        writer.write(body.clone()).await?;
        writer.commit().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_writes_are_resolved_and_guarded() {
    let bench = Bench::start().await;
    let body = Bytes::from_static(b"own");

    // Done, but the reply is lost: the repeated request is refused for one's own object.
    bench.proxy.trap("PUT", "/lost", Trick::LoseReply);
    bench
        .storage
        .put_if_absent("lost", body.clone())
        .await
        .expect("own write counts");
    assert_eq!(bench.direct.get("lost").await.expect("gets"), body);
    // A store that is busy may ask for yet another try.
    assert!(bench.proxy.seen("PUT").len() >= 2);
    assert!(!bench.proxy.seen("HEAD").is_empty());

    // Every reply is lost: the object is found all the same.
    for _ in 0..8 {
        bench.proxy.trap("PUT", "/silent", Trick::LoseReply);
    }
    bench
        .storage
        .put_if_absent("silent", body.clone())
        .await
        .expect("own write counts");
    while bench.proxy.unmet() > 0 {
        let _ = bench
            .storage
            .put_if_absent("silent-rest", body.clone())
            .await;
    }

    // Another one was first while the own request was lost.
    let trick = bench.foreign_write("foreign");
    bench.proxy.trap("PUT", "/foreign", trick);
    assert!(already_exists(
        &bench.storage.put_if_absent("foreign", body.clone()).await
    ));
    assert_eq!(bench.direct.get("foreign").await.expect("gets"), "foreign");

    // A conflict says nothing of who wins: try again.
    for _ in 0..2 {
        bench.proxy.trap(
            "PUT",
            "/conflict",
            Trick::Answer("409 Conflict", "ConditionalRequestConflict"),
        );
    }
    bench
        .storage
        .put_if_absent("conflict", body.clone())
        .await
        .expect("puts");

    // Refused once, and gone before anyone could look: not won.
    bench.proxy.trap(
        "PUT",
        "/gone",
        Trick::Answer("412 Precondition Failed", "PreconditionFailed"),
    );
    assert!(already_exists(
        &bench.storage.put_if_absent("gone", body.clone()).await
    ));

    // Overload is waited out.
    bench
        .proxy
        .trap("PUT", "/busy", Trick::Answer("503 Slow Down", "SlowDown"));
    bench
        .storage
        .put_if_absent("busy", body.clone())
        .await
        .expect("puts");

    // A store that has no conditional writes says so.
    bench.proxy.trap(
        "PUT",
        "/old",
        Trick::Answer("501 Not Implemented", "NotImplemented"),
    );
    for _ in 0..3 {
        bench.proxy.trap(
            "PUT",
            "/old",
            Trick::Answer("501 Not Implemented", "NotImplemented"),
        );
    }
    let error = bench
        .storage
        .put_if_absent("old", body.clone())
        .await
        .expect_err("is refused");
    assert!(
        matches!(error, StorageError::UnconditionalWrites { .. }),
        "{error:?}"
    );

    // Damage on the way never becomes an object.
    for _ in 0..20 {
        bench.proxy.trap("PUT", "/damaged", Trick::DamageRequest);
    }
    let damaged = bench.storage.put_if_absent("damaged", body.clone()).await;
    assert!(
        !matches!(bench.direct.get("damaged").await, Ok(found) if found != body),
        "{damaged:?}"
    );
    assert!(damaged.is_err());

    for head in bench.proxy.seen("PUT") {
        for header in [
            "if-none-match: *",
            "x-amz-checksum-sha256: ",
            "x-amz-meta-quillback-write: ",
        ] {
            assert!(head.contains(header), "{header} is not in {head}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_are_resolved_and_guarded() {
    let bench = Bench::start().await;
    let body = pattern(17 << 20, 1);

    bench.proxy.trap("POST", "/lost?uploadid", Trick::LoseReply);
    bench
        .upload("lost", &body)
        .await
        .expect("own upload counts");
    assert!(
        bench.direct.get("lost").await.expect("gets") == body,
        "differs"
    );
    assert_eq!(bench.proxy.unmet(), 0);

    let trick = bench.foreign_write("foreign");
    bench.proxy.trap("POST", "/foreign?uploadid", trick);
    assert!(already_exists(&bench.upload("foreign", &body).await));
    assert_eq!(bench.direct.get("foreign").await.expect("gets"), "foreign");

    bench.proxy.trap(
        "POST",
        "/conflict?uploadid",
        Trick::Answer("409 Conflict", "ConditionalRequestConflict"),
    );
    bench.upload("conflict", &body).await.expect("uploads");

    // A part's reply is lost and a part is damaged: both are sent again.
    bench.proxy.trap("PUT", "partnumber=1", Trick::LoseReply);
    bench.proxy.trap(
        "PUT",
        "partnumber=2",
        Trick::Answer("503 Slow Down", "SlowDown"),
    );
    bench.upload("parts", &body).await.expect("uploads");
    assert!(
        bench.direct.get("parts").await.expect("gets") == body,
        "differs"
    );

    // A part that cannot be sent leaves no object, whoever calls commit.
    for _ in 0..40 {
        bench.proxy.trap("PUT", "/broken?", Trick::DamageRequest);
    }
    bench
        .upload("broken", &body)
        .await
        .expect_err("a part is damaged");
    let listed = list_all(&bench.direct, "", None).await.expect("lists");
    let keys: Vec<_> = listed.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(keys, ["conflict", "foreign", "lost", "parts"]);
    assert_eq!(
        bench.proxy.seen("DELETE").len(),
        3,
        "the three that failed or looked so are given up"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_whole_or_fail() {
    let bench = Bench::start().await;
    let body = pattern(100_000, 1);
    bench
        .direct
        .put_if_absent("key", body.clone())
        .await
        .expect("puts");
    for trick in [Trick::CutReply, Trick::DamageReply] {
        bench.proxy.trap("GET", "/key", trick);
        assert!(
            bench.storage.get("key").await.expect("is read again") == body,
            "differs"
        );
        assert_eq!(bench.proxy.unmet(), 0);
    }
    bench.proxy.trap("GET", "/key", Trick::CutReply);
    let part = bench
        .storage
        .get_range("key", 5..1000)
        .await
        .expect("is read again");
    assert!(part == body.slice(5..1000), "differs");
    assert_eq!(bench.proxy.unmet(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_to_do_and_no_secret() {
    let minio = Minio::start().await;
    let closed = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let wrong = "a-wrong-secret-that-no-output-may-show";
    for (address, bucket, secret, class) in [
        (minio.address, "no-such-bucket", SECRET, Class::NoArchive),
        (minio.address, BUCKET, wrong, Class::Authentication),
        (closed, BUCKET, SECRET, Class::Transient),
    ] {
        let config = minio::config(address, bucket, "", secret);
        let shown = format!("{config:?}");
        let storage = S3Storage::connect(config).await.expect("has credentials");
        let put = storage
            .put_if_absent("key", Bytes::new())
            .await
            .expect_err("fails");
        let get = storage.get("key").await.expect_err("fails");
        let list = storage.list("", None).await.expect_err("fails");
        for error in [put, get, list] {
            assert_eq!(error.class(), class, "{error:?}");
            let mut text = format!("{shown} {storage:?} {error} {error:?}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text.push_str(&error.to_string());
                cause = error.source();
            }
            assert!(!text.contains("no-output-may-show"), "{text}");
        }
    }
}
