//! How things look: data on stdout, talk on stderr, sizes, times and spans for people.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::args::ProgressMode;
use crate::archive::manifest::{Consistency, DdlGuard};
use crate::observe::phase::Phase;

/// Prints a JSON document on one line of stdout.
pub(super) fn data(value: &impl Serialize) {
    let mut line = serde_json::to_string(value).unwrap_or_else(|error| {
        // Reports are plain data; should one fail all the same, say so as JSON.
        serde_json::json!({ "error": { "message": error.to_string() } }).to_string()
    });
    line.push('\n');
    write(&mut std::io::stdout().lock(), &line);
}

/// Prints text for people on stdout.
pub(super) fn say(text: &str) {
    write(&mut std::io::stdout().lock(), &format!("{text}\n"));
}

/// Prints lines on stdout; `false` if whoever read them went away.
pub(super) fn say_lines(lines: &str) -> bool {
    let mut stdout = std::io::stdout().lock();
    let written = std::io::Write::write_all(&mut stdout, lines.as_bytes());
    written
        .and_then(|()| std::io::Write::flush(&mut stdout))
        .is_ok()
}

/// Prints text for people on stderr.
pub(super) fn talk(text: &str) {
    write(&mut std::io::stderr().lock(), &format!("{text}\n"));
}

/// The same over a line of progress that a terminal may show.
pub(super) fn talk_over(text: &str) {
    let over = match std::io::stderr().is_terminal() {
        true => "\r\x1b[K",
        false => "",
    };
    talk(&format!("{over}{text}"));
}

/// A reader that went away (`| head`) is no failure of ours.
fn write(to: &mut impl std::io::Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

/// A size: `1.5 MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{size:.1} {}", UNITS[unit])
    }
}

/// A whole number with separated thousands: `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 table`, `2 tables`.
pub(super) fn plural(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", count(number))
}

/// A span of time: `0.4 s`, `12 s`, `8m 53s`, `3h 04m`, `5d 02h`.
pub(super) fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..10 => format!("{:.1} s", seconds.max(0.0)),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h {:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d {:02}h", whole / 86_400, whole / 3600 % 24),
    }
}

/// How long ago, or how far ahead, a moment is.
pub(super) fn ago(moment: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - moment).as_seconds_f64();
    if seconds < 0.0 {
        format!("in {}", span(-seconds))
    } else {
        format!("{} ago", span(seconds))
    }
}

/// A part of the whole, as per cent: `7 %`, `43 %`.
pub(super) fn percent(part: f64) -> String {
    format!("{:.0} %", (part.clamp(0.0, 1.0) * 100.0).floor())
}

/// What DDL waited for, or how it would have been seen.
pub(super) fn ddl_guard(consistency: &Consistency) -> String {
    let waited = match consistency.ddl_wait_seconds {
        seconds if seconds > 0.0 => format!(", and some waited {seconds:.3} s"),
        _ => String::new(),
    };
    if consistency.backup_lock {
        let let_by = match consistency.ddl_let_by {
            0 => "",
            1 => ", and let by once before the rows were read",
            _ => ", and let by several times before the rows were read",
        };
        return format!(
            "DDL was kept away for {:.3} s{waited}{let_by}",
            consistency.backup_lock_seconds
        );
    }
    let seen = match consistency.ddl_guards.contains(&DdlGuard::Binlog) {
        true => "and none was in the binlog",
        false => "and the schema was the same at the end",
    };
    format!("DDL was not kept away, {seen}{waited}")
}

/// A moment for people: UTC, to the second.
pub(super) fn moment(moment: DateTime<Utc>) -> String {
    moment.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Lines of phases: `load   3.1 s   192.0 MiB`.
pub(super) fn phases(phases: &[Phase]) -> String {
    let mut out = String::new();
    for phase in phases {
        let moved = match phase.bytes {
            0 => String::new(),
            moved => bytes(moved),
        };
        let line = format!("  {:<10} {:>8}   {moved}", phase.phase, span(phase.seconds));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.pop();
    out
}

/// One line on a terminal that is written over again; elsewhere a line now and then.
#[derive(Debug)]
pub(super) struct Progress {
    shown: bool,
    lines: bool,
    state: Mutex<Option<Instant>>,
    told: Mutex<Instant>,
}

impl Progress {
    /// Progress as the user wants it.
    pub(super) fn new(mode: ProgressMode, quiet: bool) -> Self {
        let wanted = mode == ProgressMode::Auto && !quiet;
        let terminal = std::io::stderr().is_terminal();
        Self {
            shown: wanted && terminal,
            lines: wanted && !terminal,
            state: Mutex::new(None),
            told: Mutex::new(Instant::now()),
        }
    }

    /// Shows a line, at most five times a second.
    pub(super) fn update(&self, line: impl FnOnce() -> String) {
        if !self.shown {
            return;
        }
        let mut last = self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() > Duration::from_millis(200));
        if due {
            *last = Some(Instant::now());
            // Without wrapping: a line that is too long would not be written over.
            write(
                &mut std::io::stderr().lock(),
                &format!("\r\x1b[K\x1b[?7l  {}\x1b[?7h", line()),
            );
        }
    }

    /// Where there is no terminal: tells a line if so much time has passed since the last one.
    pub(super) fn each(&self, interval: Duration, line: impl FnOnce() -> String) {
        if !self.lines {
            return;
        }
        let mut told = self
            .told
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if told.elapsed() >= interval {
            *told = Instant::now();
            talk(&line());
        }
    }

    /// Takes the line away.
    pub(super) fn clear(&self) {
        let mut last = self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.take().is_some() {
            write(&mut std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 40), "5.0 TiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(plural(1, "table"), "1 table");
        assert_eq!(plural(2000, "row"), "2,000 rows");
        assert_eq!(percent(0.999), "99 %");
        assert_eq!(percent(1.0), "100 %");
    }

    #[test]
    fn spans_read_well() {
        assert_eq!(span(0.04), "0.0 s");
        assert_eq!(span(9.4), "9.4 s");
        assert_eq!(span(59.4), "59 s");
        assert_eq!(span(533.0), "8m 53s");
        assert_eq!(span(11_040.0), "3h 04m");
        assert_eq!(span(439_200.0), "5d 02h");
    }
}
