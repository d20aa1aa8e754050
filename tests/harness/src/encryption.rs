//! A keyring for one server, so that it can encrypt its binlog.
//!
//! mysqld loads a keyring component before anything else, by a manifest beside its own program, and the component reads
//! its configuration beside its own file: both lie in folders that all servers share. So this server gets a folder of
//! links to the program and to the plugins, with a manifest and a configuration of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::programs;

const COMPONENT: &str = "component_keyring_file";

/// What to run, and with what, instead of the ordinary mysqld.
#[derive(Debug)]
pub(crate) struct Keyring {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
}

impl Keyring {
    /// Lays out the links, the manifest and the configuration in `folder`, which the server's data directory is in.
    pub(crate) fn lay_out(folder: &Path) -> Result<Self> {
        let ordinary = programs::find("mysqld")?;
        let (basedir, plugins) = folders_of(&ordinary)?;
        let (bin, own_plugins) = (folder.join("bin"), folder.join("plugin"));
        fs::create_dir(&bin).context("failed to make a folder for mysqld")?;
        fs::create_dir(&own_plugins).context("failed to make a folder for plugins")?;

        let link = bin.join("mysqld");
        let program = match fs::read_to_string(&ordinary) {
            // A wrapper whose last line runs the program itself, quoted for the shell.
            Ok(script) => {
                let real = program_of(&script)
                    .with_context(|| format!("{} runs no mysqld", ordinary.display()))?;
                symlink(real, &link).context("failed to link mysqld")?;
                let own = bin.join("wrapper");
                let script = script.replace(&format!("'{real}'"), &format!("'{}'", link.display()));
                fs::write(&own, script).context("failed to write a wrapper")?;
                fs::set_permissions(&own, fs::Permissions::from_mode(0o755))?;
                own
            }
            Err(_) => {
                symlink(&ordinary, &link).context("failed to link mysqld")?;
                link
            }
        };
        for entry in fs::read_dir(&plugins).with_context(|| plugins.display().to_string())? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|kind| kind == "so") {
                symlink(entry.path(), own_plugins.join(entry.file_name()))
                    .context("failed to link a plugin")?;
            }
        }
        write_read_only(
            &bin.join("mysqld.my"),
            &format!("{{\"components\": \"file://{COMPONENT}\"}}\n"),
        )?;
        write_read_only(
            &own_plugins.join(format!("{COMPONENT}.cnf")),
            &format!(
                "{{\"path\": \"{}\", \"read_only\": false}}\n",
                folder.join("keyring").display()
            ),
        )?;
        Ok(Self {
            program,
            args: vec![
                format!("--basedir={}", basedir.display()),
                format!("--plugin-dir={}", own_plugins.display()),
            ],
        })
    }
}

/// The last quoted word of a wrapper that ends in `/mysqld`.
fn program_of(script: &str) -> Option<&str> {
    script
        .lines()
        .rfind(|line| line.starts_with("exec "))?
        .split('\'')
        .rfind(|word| word.ends_with("/mysqld"))
}

/// basedir and plugin_dir, as mysqld itself says them.
fn folders_of(mysqld: &Path) -> Result<(PathBuf, PathBuf)> {
    let mut command = Command::new(mysqld);
    command.args(["--no-defaults", "--verbose", "--help"]);
    if rustix::process::geteuid().is_root() {
        command.arg("--user=root");
    }
    let output = command.output().context("failed to ask mysqld")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(char::is_whitespace))
            .find(|(found, _)| *found == name)
            .map(|(_, value)| PathBuf::from(value.trim()))
            .with_context(|| format!("mysqld tells no {name}"))
    };
    Ok((value("basedir")?, value("plugin-dir")?))
}

fn write_read_only(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o444))?;
    Ok(())
}
