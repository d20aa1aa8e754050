//! MinIO answers signed requests, and a bucket made by the harness is one.

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use quillback_harness::Minio;

#[tokio::test(flavor = "multi_thread")]
async fn minio_keeps_an_object_in_a_bucket_across_a_crash() {
    let minio = Minio::start().await.expect("MinIO");
    minio.create_bucket("archive").expect("a bucket");
    let value = |name: &str| {
        let found = minio.env().into_iter().find(|(key, _)| key == name);
        found.unwrap_or_else(|| panic!("{name} is missing")).1
    };
    let credentials = Credentials::new(
        value("AWS_ACCESS_KEY_ID"),
        value("AWS_SECRET_ACCESS_KEY"),
        None,
        None,
        "the harness",
    );
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(credentials)
        .region(Region::new(value("AWS_REGION")))
        .endpoint_url(value("AWS_ENDPOINT_URL"))
        .force_path_style(true)
        .build();
    let client = aws_sdk_s3::Client::from_conf(config);
    let put = client
        .put_object()
        .bucket("archive")
        .key("a/b")
        .body(ByteStream::from_static(b"content"));
    put.send().await.expect("a put");
    minio.kill9().await.expect("it ran");
    minio.start_again().await.expect("it comes up again");
    let got = client
        .get_object()
        .bucket("archive")
        .key("a/b")
        .send()
        .await
        .expect("a get");
    assert_eq!(
        got.body
            .collect()
            .await
            .expect("a body")
            .into_bytes()
            .as_ref(),
        b"content"
    );
    let elsewhere = client
        .get_object()
        .bucket("elsewhere")
        .key("a/b")
        .send()
        .await
        .expect_err("no such bucket");
    assert_eq!(
        elsewhere.into_service_error().meta().code(),
        Some("NoSuchBucket")
    );
}
