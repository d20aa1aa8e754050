//! Nothing outlives the test process, whatever becomes of it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quillback_harness::{programs, scratch, until};

/// The processes that carry a scratch root in their environment.
fn processes_of(root: &Path) -> Vec<PathBuf> {
    let mark = format!("{}={}", scratch::MARK, root.display());
    let carries = |pid: &PathBuf| {
        let environment = std::fs::read(pid.join("environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
    };
    let entries = std::fs::read_dir("/proc")
        .expect("Linux")
        .filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(carries).collect()
}

fn victim(end: &str) -> (Child, PathBuf) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_harness-victim"))
        .arg(end)
        .env(
            "QUILLBACK_TEST_BIN",
            programs::folder().expect("the programs"),
        )
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the victim starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped"))
        .read_line(&mut line)
        .expect("its first line");
    let (root, pid) = line
        .trim()
        .split_once(' ')
        .expect("a folder and a process id");
    assert!(
        Path::new("/proc").join(pid).exists() || end != "hang",
        "mysqld runs as {pid}"
    );
    (child, PathBuf::from(root))
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_and_folders_are_gone_after_a_panic_an_abort_a_kill_and_a_return() {
    for end in ["panic", "abort", "hang", "return"] {
        let (mut child, root) = tokio::task::spawn_blocking(move || victim(end))
            .await
            .expect("no panic");
        if end == "hang" {
            assert!(processes_of(&root).len() >= 2, "mysqld and minio run");
            assert!(root.exists());
            child.kill().expect("it can be killed");
        }
        let status = child.wait().expect("it ends");
        assert_eq!(status.success(), end == "return", "{end}: {status}");
        until(
            "the processes and the folder to be gone",
            Duration::from_secs(30),
            async || Ok((processes_of(&root).is_empty() && !root.exists()).then_some(())),
        )
        .await
        .unwrap_or_else(|error| panic!("after {end}: {error:#}; left: {:?}", processes_of(&root)));
    }
}
