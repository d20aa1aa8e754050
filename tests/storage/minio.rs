//! A MinIO server of the tests' own, gone with its value.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use quillback::storage::{S3Config, S3Credentials, S3Storage, Storage as _};
use tempfile::TempDir;

pub(crate) const BUCKET: &str = "archive";
pub(crate) const SECRET: &str = "a-secret-that-no-output-may-show";
const USER: &str = "quillback";

pub(crate) struct Minio {
    process: Child,
    pub(crate) address: SocketAddr,
    _folder: TempDir,
}

impl Minio {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // A folder of the drive is a bucket.
        std::fs::create_dir(folder.path().join(BUCKET)).expect("makes a bucket");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
        let address = port.expect("a free port");
        let process = Command::new(program())
            .args(["server", "--quiet", "--address", &address.to_string()])
            .arg(folder.path())
            .env("MINIO_ROOT_USER", USER)
            .env("MINIO_ROOT_PASSWORD", SECRET)
            .env("MINIO_BROWSER", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("minio starts");
        let minio = Self {
            process,
            address,
            _folder: folder,
        };
        for _ in 0..300 {
            if minio.is_ready() {
                // Healthy is not yet ready: the first requests of a busy start meet 503.
                let storage = minio.storage("ready").await;
                storage
                    .put_if_absent("now", Bytes::new())
                    .await
                    .expect("minio takes writes");
                return minio;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("minio was not ready within 30 s");
    }

    fn is_ready(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(
                b"GET /minio/health/cluster HTTP/1.1\r\nHost: minio\r\nConnection: close\r\n\r\n",
            )?;
            let mut reply = String::new();
            stream.read_to_string(&mut reply)?;
            Ok(reply.contains(" 200 OK"))
        };
        ask().unwrap_or(false)
    }

    /// The store below a prefix of the bucket.
    pub(crate) async fn storage(&self, prefix: &str) -> S3Storage {
        self.storage_through(self.address, prefix).await
    }

    /// The same, reached by another address.
    pub(crate) async fn storage_through(&self, address: SocketAddr, prefix: &str) -> S3Storage {
        let config = config(address, BUCKET, prefix, SECRET);
        S3Storage::connect(config).await.expect("has credentials")
    }
}

pub(crate) fn config(address: SocketAddr, bucket: &str, prefix: &str, secret: &str) -> S3Config {
    let mut config = S3Config::new(bucket, prefix);
    config.endpoint = Some(format!("http://{address}"));
    config.region = Some("us-east-1".to_owned());
    config.credentials = Some(S3Credentials {
        access_key_id: USER.to_owned(),
        secret_access_key: secret.to_owned(),
    });
    config
}

impl Drop for Minio {
    fn drop(&mut self) {
        // It may be gone already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// MinIO of PATH, else what `tests/setup` makes.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("minio"))
        .find(|file| file.is_file());
    found.unwrap_or_else(|| {
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup");
        let output = Command::new(setup)
            .arg("minio")
            .stderr(Stdio::inherit())
            .output()
            .expect("tests/setup runs");
        assert!(output.status.success(), "tests/setup found no minio");
        let folder = String::from_utf8(output.stdout).expect("a path");
        Path::new(folder.trim()).join("minio")
    })
}
