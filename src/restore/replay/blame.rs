//! Which transaction an error belongs to, and what that one is.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::archive::history::Member;
use crate::archive::repository::Repository;
use crate::clock;
use crate::gtid::Gtid;

/// A transaction that a server failed at, as the archive knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlamedTransaction {
    /// Its identity.
    pub gtid: Gtid,
    /// When it was committed and on which server (`server_id`), if the archive tells.
    pub origin: Option<(DateTime<Utc>, u32)>,
    /// Its statement, or its tables and what was done to their rows.
    pub what: Option<String>,
}

impl fmt::Display for BlamedTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.gtid)?;
        let mut said = Vec::new();
        if let Some((time, server_id)) = &self.origin {
            said.push(format!("{}, server_id {server_id}", clock::rfc3339(*time)));
        }
        said.extend(self.what.clone());
        if said.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", said.join(": "))
    }
}

/// The transaction that the server's message names: `... executing transaction 'GTID' at ...`.
pub(super) fn named(message: &str) -> Option<Gtid> {
    let mut rest = message;
    while let Some((_, after)) = rest.split_once("transaction '") {
        let (name, behind) = after.split_once('\'')?;
        if let Ok(gtid) = name.parse() {
            return Some(gtid);
        }
        rest = behind;
    }
    None
}

/// What the archive knows of a transaction. It only serves to explain a failure, so a failure to
/// read it is told nowhere.
pub(in crate::restore) async fn look_up(
    repository: &Repository,
    members: &[Member],
    gtid: Gtid,
) -> BlamedTransaction {
    let mut blamed = BlamedTransaction {
        gtid,
        origin: None,
        what: None,
    };
    let holds = |member: &&Member| member.added.contains(&blamed.gtid);
    if let Some(member) = members.iter().find(holds)
        && let Ok(lines) = repository.read_transactions(&member.stored).await
        && let Some(line) = lines.into_iter().find(|line| line.gtid == blamed.gtid)
    {
        blamed.origin = Some((line.time, line.server_id));
        blamed.what = Some(line.summary.brief());
    }
    blamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transaction_is_found_in_the_servers_words() {
        let gtid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        for (message, found) in [
            (
                format!(
                    "Worker 1 failed executing transaction '{gtid}:7' at source log \
                     quillback.000001, end_log_pos 812; Could not execute Write_rows event"
                ),
                Some(format!("{gtid}:7")),
            ),
            (
                format!("Worker 2 failed executing transaction '{gtid}:red:8' at source log x"),
                Some(format!("{gtid}:red:8")),
            ),
            (
                format!("transaction 'ANONYMOUS' and then transaction '{gtid}:9'"),
                Some(format!("{gtid}:9")),
            ),
            ("transaction 'never ends".to_owned(), None),
            ("no such thing".to_owned(), None),
        ] {
            assert_eq!(named(&message).map(|g| g.to_string()), found, "{message}");
        }
    }

    #[test]
    fn what_is_known_of_it_is_said() {
        let gtid: Gtid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:7"
            .parse()
            .expect("good");
        let mut blamed = BlamedTransaction {
            gtid: gtid.clone(),
            origin: None,
            what: None,
        };
        assert_eq!(blamed.to_string(), gtid.to_string());
        blamed.origin = DateTime::from_timestamp_micros(1_795_000_000_000_001).map(|t| (t, 3));
        blamed.what = Some("insert d.t".to_owned());
        assert_eq!(
            blamed.to_string(),
            format!("{gtid} (2026-11-18T11:06:40.000001Z, server_id 3: insert d.t)")
        );
    }
}
