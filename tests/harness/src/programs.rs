//! Where mysqld, mysqlrouter, minio and their clients are.
//!
//! The folder is `QUILLBACK_TEST_BIN` if that is set; otherwise `tests/setup` of this repository is run, once a process,
//! and the only line of its output names the folder. Its talk (downloads, what is missing) goes to this process's stderr.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use anyhow::{Context, Result, bail};

/// The folder with the programs.
///
/// # Errors
/// `tests/setup` failed, or there is no such folder.
pub fn folder() -> Result<PathBuf> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    static ASKING: Mutex<()> = Mutex::new(());
    let _asking = ASKING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(folder) = FOLDER.get() {
        return Ok(folder.clone());
    }
    let folder = match std::env::var_os("QUILLBACK_TEST_BIN") {
        Some(folder) => PathBuf::from(folder),
        None => run_setup()?,
    };
    if !folder.join("mysqld").exists() {
        bail!("there is no mysqld in {}", folder.display());
    }
    Ok(FOLDER.get_or_init(|| folder).clone())
}

/// The path of one program, such as `mysqld`.
///
/// # Errors
/// As [`folder`], and where the folder does not have it.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = folder()?.join(name);
    if !path.exists() {
        bail!("there is no {}", path.display());
    }
    Ok(path)
}

/// The repository's root, as this crate was compiled in it.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate lies in tests/harness")
}

/// The server's version as `mysqld --version` prints it, such as `9.7.4`.
///
/// # Errors
/// mysqld cannot be run, or says something else.
pub fn mysql_version() -> Result<String> {
    let output = Command::new(find("mysqld")?)
        .arg("--version")
        .output()
        .context("mysqld --version")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text
        .split_whitespace()
        .skip_while(|word| *word != "Ver")
        .skip(1);
    match words.next() {
        Some(version) if output.status.success() => Ok(version.to_owned()),
        _ => bail!(
            "mysqld --version printed {text:?} {:?}",
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

fn run_setup() -> Result<PathBuf> {
    let setup = repository().join("tests/setup");
    let output = Command::new(&setup)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| {
            format!(
                "failed to run {}; QUILLBACK_TEST_BIN may name the folder instead",
                setup.display()
            )
        })?;
    if !output.status.success() {
        bail!("{} failed: {}", setup.display(), output.status);
    }
    let text = String::from_utf8(output.stdout).context("the output of tests/setup")?;
    match text.lines().collect::<Vec<_>>().as_slice() {
        [folder] => Ok(PathBuf::from(folder)),
        lines => bail!(
            "{} printed {} lines instead of one",
            setup.display(),
            lines.len()
        ),
    }
}
