//! Programs whose time, processor time and memory are measured, with the programs that they start.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

/// How often a program is looked at.
const LOOK: Duration = Duration::from_millis(4);
/// The unit of the times in `/proc/PID/stat` (`USER_HZ`, the same on every Linux that Rust's std runs on).
const TICKS_A_SECOND: f64 = 100.0;

/// What a program took.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Usage {
    /// From its start to its end.
    pub(crate) seconds: f64,
    /// Processor seconds in its own code.
    pub(crate) user: f64,
    /// Processor seconds in the kernel.
    pub(crate) system: f64,
    /// Its largest resident set (`VmHWM`), in bytes; the sum of those of several programs.
    pub(crate) peak_bytes: u64,
}

/// Processor seconds that a process has used so far, with those of its children that have ended: user, system; and
/// whether it has ended.
pub(crate) fn processor_seconds(pid: u32) -> Result<(f64, f64, bool)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))?;
    // Behind the name, which may hold anything: the state, and utime, stime, cutime and cstime as the 12th to 15th
    // from there.
    let (_, rest) = text.rsplit_once(')').context("a strange /proc/PID/stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let seconds = |at: usize| -> Result<f64> {
        let ticks = fields.get(at).context("a short /proc/PID/stat")?;
        Ok(ticks.parse::<f64>()? / TICKS_A_SECOND)
    };
    Ok((
        seconds(11)? + seconds(13)?,
        seconds(12)? + seconds(14)?,
        fields.first() == Some(&"Z"),
    ))
}

/// The largest resident set of a process so far, in bytes; none once it has ended.
pub(crate) fn peak_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The same with all that it has started and that is still running.
fn peak_of_all(pid: u32) -> u64 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let pids = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    pids.map(peak_of_all).sum::<u64>() + peak_bytes(pid).unwrap_or(0)
}

/// Runs a program to its end and measures it. Blocks.
///
/// An ended program keeps its times until somebody waits for it, so nothing is missed; the memory is that of the last
/// look, some milliseconds before its end.
pub(crate) fn run(command: &mut Command) -> Result<Usage> {
    let name = format!("{command:?}");
    let started = Instant::now();
    let mut child = Guard(command.spawn().with_context(|| name.clone())?);
    let pid = child.0.id();
    let mut peak = 0;
    let (user, system, seconds) = loop {
        let (user, system, ended) = processor_seconds(pid)?;
        if ended {
            break (user, system, started.elapsed().as_secs_f64());
        }
        peak = peak_of_all(pid).max(peak);
        std::thread::sleep(LOOK);
    };
    let status = child.0.wait()?;
    ensure!(status.success(), "{name} ended with {status}");
    Ok(Usage {
        seconds,
        user,
        system,
        peak_bytes: peak,
    })
}

/// Ends a program that its owner leaves.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Fails if it has ended, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
