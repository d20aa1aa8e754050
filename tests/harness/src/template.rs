//! The initialised data directory from which every server's own is copied.
//!
//! `mysqld --initialize-insecure` takes seconds; a copy takes a tenth of one. The template is kept a MySQL version in the
//! cache folder of `tests/setup`, is built aside, and appears by a rename: a half-made one does not exist.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::programs;
use crate::server_options::ROOT_PASSWORD;

/// Changed with whatever is done to the template below, so that an older one is not taken.
const EDITION: u32 = 1;

/// Copies the template to `target`, which must not exist; makes the template first if needed. Blocks.
pub(crate) fn copy_to(target: &Path) -> Result<()> {
    let template = template()?;
    let output = Command::new("cp")
        .args(["-a", "--sparse=always"])
        .arg(&template)
        .arg(target)
        .stdin(Stdio::null())
        .output()
        .context("failed to run cp")?;
    if !output.status.success() {
        bail!(
            "failed to copy {}: {}",
            template.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// The folder that `tests/setup` keeps what it fetched in.
fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = variable("QUILLBACK_CACHE") {
        return PathBuf::from(folder);
    }
    let caches = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache")));
    match caches {
        Some(folder) => folder.join("quillback"),
        None => {
            std::env::temp_dir().join(format!("quillback-{}", rustix::process::geteuid().as_raw()))
        }
    }
}

fn template() -> Result<PathBuf> {
    let cache = cache();
    fs::create_dir_all(&cache).with_context(|| format!("failed to make {}", cache.display()))?;
    let version: String = programs::mysql_version()?
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let name = format!("mysql-template-{EDITION}-{version}");
    let template = cache.join(&name);
    if template.exists() {
        return Ok(template);
    }
    // One builds, the others wait; the lock goes with its process.
    let lock_path = cache.join(format!("{name}.lock"));
    let lock = File::create(&lock_path)
        .with_context(|| format!("failed to make {}", lock_path.display()))?;
    lock.lock()
        .with_context(|| format!("failed to lock {}", lock_path.display()))?;
    if !template.exists() {
        let building = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(&cache)
            .with_context(|| format!("failed to make a folder in {}", cache.display()))?;
        let data = building.path().join("data");
        initialize(building.path(), &data)?;
        fs::rename(&data, &template)
            .with_context(|| format!("failed to put {}", template.display()))?;
    }
    Ok(template)
}

fn initialize(folder: &Path, data: &Path) -> Result<()> {
    let init = folder.join("init.sql");
    let statements = format!(
        "ALTER USER 'root'@'localhost' IDENTIFIED BY '{ROOT_PASSWORD}';\n\
         CREATE USER 'root'@'127.0.0.1' IDENTIFIED BY '{ROOT_PASSWORD}';\n\
         GRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;\n\
         GRANT PROXY ON ''@'' TO 'root'@'127.0.0.1' WITH GRANT OPTION;\n"
    );
    fs::write(&init, statements).context("failed to write init.sql")?;
    let mut command = Command::new(programs::find("mysqld")?);
    command
        .arg("--no-defaults")
        .arg("--initialize-insecure")
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--init-file={}", init.display()))
        .arg("--secure-file-priv=NULL")
        .arg("--innodb-redo-log-capacity=32M")
        .arg("--innodb-buffer-pool-size=64M");
    if rustix::process::geteuid().is_root() {
        command.arg("--user=root");
    }
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("failed to run mysqld --initialize-insecure")?;
    if !output.status.success() {
        bail!(
            "mysqld --initialize-insecure failed: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    // The server_uuid: each copy makes its own.
    fs::remove_file(data.join("auto.cnf")).context("failed to remove auto.cnf from the template")
}
