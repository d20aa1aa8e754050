//! Folders and processes that do not outlive the test process.
//!
//! Each process that uses the harness has one scratch root in the system's temporary folder, and one watchdog: a small
//! shell in a process group of its own which holds the reading end of a pipe from here. When this process ends, in whatever
//! way (SIGKILL and SIGINT included), the pipe closes; the watchdog then kills every process that carries the root's name in
//! its environment, stopped ones too, and removes the root. Within the process, dropping a [`Scratch`] removes its folder.
//!
//! Linux only: the watchdog reads `/proc/*/environ`.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow};

/// The environment variable that marks every process started by the harness; its value is the scratch root.
pub const MARK: &str = "QUILLBACK_SCRATCH";

const WATCHDOG: &str = r#"
cat > /dev/null
quiet=0
tries=0
while [ $quiet -lt 2 ] && [ $tries -lt 200 ]; do
    quiet=$((quiet + 1))
    tries=$((tries + 1))
    for file in $(grep -lzxF -- "$1=$2" /proc/[0-9]*/environ 2> /dev/null); do
        pid=${file#/proc/}
        kill -KILL "${pid%/environ}" 2> /dev/null && quiet=0
    done
    sleep 0.02
done
rm -rf -- "$2"
"#;

struct Root {
    path: PathBuf,
    /// Keeps the pipe open; closed by the kernel when this process ends.
    _watchdog: Child,
}

/// A folder in the scratch root, removed with all that is in it when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes an empty folder whose name starts with `name`.
    ///
    /// # Errors
    /// The temporary folder cannot be written, or the watchdog cannot be started.
    pub fn new(name: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root()?.join(format!("{name}{number}"));
        std::fs::create_dir(&path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(Self { path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A `file://` URL of a folder below it, such as an archive's.
    pub fn file_url(&self, name: &str) -> String {
        format!("file://{}", self.path.join(name).display())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A process that is just dying may still write; the watchdog removes what is left at the end.
        for _ in 0..20 {
            match std::fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                _ => return,
            }
        }
    }
}

/// This process's scratch root; it and the watchdog are made by the first call.
///
/// # Errors
/// The temporary folder cannot be written, or the watchdog cannot be started.
pub fn root() -> Result<&'static Path> {
    static ROOT: OnceLock<Result<Root, String>> = OnceLock::new();
    match ROOT.get_or_init(|| make_root().map_err(|error| format!("{error:#}"))) {
        Ok(root) => Ok(&root.path),
        Err(error) => Err(anyhow!("{error}")),
    }
}

fn make_root() -> Result<Root> {
    // Short: a socket's path below it must fit into about 100 bytes.
    let path = tempfile::Builder::new()
        .prefix("quill-")
        .tempdir()
        .context("failed to make a temporary folder")?
        .keep();
    let watchdog = Command::new("sh")
        .args(["-c", WATCHDOG, "quillback-watchdog", MARK])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("failed to start the watchdog")?;
    Ok(Root {
        path,
        _watchdog: watchdog,
    })
}
