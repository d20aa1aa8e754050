//! What it was measured on.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::Result;
use quillback_harness::programs;

/// The machine and the programs.
pub(crate) fn describe() -> Result<BTreeMap<&'static str, String>> {
    let first = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or_else(
            || "unknown".to_owned(),
            |(_, value)| value.trim().to_owned(),
        )
    };
    let said = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.unwrap_or_default()
            .lines()
            .next()
            .unwrap_or("unknown")
            .to_owned()
    };
    let minio = programs::find("minio")?;
    Ok(BTreeMap::from([
        ("processor", first("/proc/cpuinfo", "model name")),
        (
            "processors",
            std::thread::available_parallelism()?.to_string(),
        ),
        ("memory", first("/proc/meminfo", "MemTotal")),
        ("kernel", said("uname", "-sr")),
        ("mysql", programs::mysql_version()?),
        ("minio", said(&minio.display().to_string(), "--version")),
        (
            "quillback",
            said(env!("CARGO_BIN_EXE_quillback"), "--version"),
        ),
    ]))
}

/// How busy the machine was in the last 1, 5 and 15 minutes.
pub(crate) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

/// What [`describe`] found, in one line.
pub(crate) fn text(machine: &BTreeMap<&'static str, String>) -> String {
    format!(
        "{} x {}, {}, {}; MySQL {}; {}; {}",
        machine["processors"],
        machine["processor"],
        machine["memory"],
        machine["kernel"],
        machine["mysql"],
        machine["minio"],
        machine["quillback"]
    )
}
