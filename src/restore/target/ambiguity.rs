//! What the edge of a cut leaves to doubt, and how it was decided.
//!
//! Commit times are those of the server whose binlog was archived. Several transactions may share
//! a microsecond; a clock that is set back, or a failover to a server whose clock is behind, makes
//! times go back in the archive's order, which is the true one. The cut is always between two
//! neighbours of that order; what a person might have meant otherwise is told here with the line
//! that gets it.

use chrono::{DateTime, Utc};

use super::{Cut, Line, Target};
use crate::clock::rfc3339;

/// Adds to a cut what its edge leaves to doubt: `taken` of the lines that were read are in.
pub(super) fn explain(target: &Target, all: &[Line<'_>], taken: usize, cut: &mut Cut) {
    if let Target::Until { moment } = target {
        same_microsecond(*moment, &all[..taken], cut);
        went_back(*moment, &all[taken..], cut);
    } else {
        divided_microsecond(all, taken, cut);
    }
    if let (Some(last), Some(first)) = (&cut.last_in, &cut.first_out)
        && let (Some(before), Some(behind)) = (last.source, first.source)
        && before != behind
    {
        cut.remarks.push(format!(
            "between the two edges the source changed from server {before} to {behind}: each \
             commit time is by its own server's clock"
        ));
    }
}

/// Several transactions of the very moment that was asked for are all in.
fn same_microsecond(moment: DateTime<Utc>, within: &[Line<'_>], cut: &mut Cut) {
    let count = shared(moment, within.iter().rev());
    if count > 1 {
        let lines = &within[within.len() - count..];
        cut.remarks.push(format!(
            "{count} transactions were committed in that very microsecond, {}: all of them are in",
            between(lines)
        ));
    }
}

/// A cut by name may stand between transactions that no moment tells apart.
fn divided_microsecond(all: &[Line<'_>], taken: usize, cut: &mut Cut) {
    let (before, behind) = all.split_at(taken);
    let Some(time) = before.last().map(|line| line.transaction.time) else {
        return;
    };
    let out = shared(time, behind.iter());
    if out > 0 {
        let within = shared(time, before.iter().rev());
        cut.remarks.push(format!(
            "in the microsecond of the last one in ({}) there are {within} that are in and {out} \
             that are out: the archive's order divides them, --until cannot",
            rfc3339(time)
        ));
    }
}

/// How many of the first lines share a commit time.
fn shared<'a, 'b: 'a>(time: DateTime<Utc>, lines: impl Iterator<Item = &'a Line<'b>>) -> usize {
    lines
        .take_while(|line| line.transaction.time == time)
        .count()
}

/// Transactions that are out although their commit time says otherwise.
fn went_back(moment: DateTime<Utc>, behind: &[Line<'_>], cut: &mut Cut) {
    let earlier: Vec<&Line<'_>> = behind
        .iter()
        .filter(|line| line.transaction.time <= moment)
        .collect();
    let (Some(first), Some(last)) = (earlier.first(), earlier.last()) else {
        return;
    };
    let times = earlier.iter().map(|line| line.transaction.time);
    let (least, greatest) = times.fold(
        (moment, DateTime::<Utc>::MIN_UTC),
        |(least, greatest), t| (least.min(t), greatest.max(t)),
    );
    let why = match first.source == behind[0].source {
        true => "a clock went back",
        false => "the source changed to a server whose clock is behind",
    };
    cut.notes.push(format!(
        "{why}: behind the first transaction that is out there are {} with commit times up to the \
         one asked for ({} to {}, {} to {}); they are out too. With them, and with all before \
         them in the archive's order: --until-gtid {}",
        earlier.len(),
        rfc3339(least),
        rfc3339(greatest),
        first.transaction.gtid,
        last.transaction.gtid,
        last.transaction.gtid
    ));
}

/// From which to which.
fn between(lines: &[Line<'_>]) -> String {
    match (lines.first(), lines.last()) {
        (Some(first), Some(last)) => {
            format!("{} to {}", first.transaction.gtid, last.transaction.gtid)
        }
        _ => String::new(),
    }
}
