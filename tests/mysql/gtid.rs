//! GTID sets against the server's own GTID_SUBSET, GTID_SUBTRACT and print, on random texts.

use anyhow::{Context as _, Result};
use mysql_async::prelude::Queryable as _;
use quillback::gtid::GtidSet;
use quillback_harness::Server;

/// Numbers that look random and are the same at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).expect("it is below a length")
    }
}

const UUIDS: [&str; 3] = [
    "3e11fa47-71ca-11e1-9e33-c80aa9429562",
    "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "FFFFFFFF-0000-0000-0000-000000000001",
];

/// A set as people and servers write it: unordered, overlapping, with blanks and empty parts.
fn messy(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..random.below(5) {
        for _ in 0..=random.below(2) {
            text.push(',');
        }
        if random.below(3) == 0 {
            text.push_str("\n ");
        }
        text.push_str(UUIDS[random.index(3)]);
        for _ in 0..random.below(6) {
            for _ in 0..2 {
                if random.below(5) == 0 {
                    text.push(' ');
                }
                if !text.ends_with(':') && !text.ends_with(": ") {
                    text.push(':');
                }
            }
            match random.below(4) {
                0 => text.push_str(["a", "_b9", "TAG"][random.index(3)]),
                1 => text.push_str(&(1 + random.below(30)).to_string()),
                _ => {
                    let first = 1 + random.below(30);
                    let blank = if random.below(6) == 0 { " " } else { "" };
                    let last = first + random.below(6);
                    text.push_str(&format!("{first}{blank}-{blank}{last}"));
                }
            }
        }
    }
    text
}

/// A set's text with one or two things changed at random.
fn broken(random: &mut Random) -> String {
    const PIECES: [&str; 16] = [
        ":",
        "-",
        ",",
        " ",
        "0",
        "x",
        "_",
        "1",
        "\t",
        "+",
        "9223372036854775806",
        "9223372036854775807",
        ":0",
        "tag",
        "\x0b",
        ".",
    ];
    let mut text = messy(random);
    for _ in 0..=random.below(2) {
        let at = random.index(text.len() + 1);
        if random.below(3) > 0 {
            text.insert_str(at, PIECES[random.index(16)]);
        } else if at < text.len() {
            text.remove(at);
        }
    }
    text
}

#[tokio::test]
async fn the_algebra_is_the_server_s() -> Result<()> {
    let server = Server::start().await?;
    let mut conn = server.conn().await?;
    let mut random = Random(7);
    let (mut subsets, mut disjoint) = (0, 0);
    for _ in 0..1500 {
        let (a, mut b) = (messy(&mut random), messy(&mut random));
        if random.below(2) == 0 {
            b = format!("{b},{a}");
        }
        let answer: (String, bool, String, String) = conn
            .exec_first(
                "SELECT GTID_SUBTRACT(a, ''), GTID_SUBSET(a, b), GTID_SUBTRACT(a, b), \
                 GTID_SUBTRACT(CONCAT(a, ',', b), '') FROM (SELECT ? AS a, ? AS b) AS given",
                (&a, &b),
            )
            .await
            .with_context(|| format!("{a:?} {b:?}"))?
            .context("one row")?;
        let (printed, is_subset, difference, union) = answer;
        let (a, b): (GtidSet, GtidSet) = (a.parse()?, b.parse()?);
        assert_eq!(a.to_string(), printed);
        assert_eq!(a.is_subset(&b), is_subset, "{a} in {b}");
        assert_eq!(a.subtract(&b).to_string(), difference, "{a} without {b}");
        assert_eq!(a.union(&b).to_string(), union, "{a} and {b}");
        let common = a.intersect(&b);
        assert_eq!(common, a.subtract(&a.subtract(&b)), "{a} in both {b}");
        assert_eq!(a.is_disjoint(&b), common.is_empty());
        subsets += usize::from(is_subset);
        disjoint += usize::from(common.is_empty());
    }
    conn.disconnect().await?;
    assert!(subsets > 300 && disjoint > 100, "{subsets}, {disjoint}");
    Ok(())
}

/// What the server takes for a set we take, with the same meaning; what it refuses we refuse.
#[tokio::test]
async fn the_same_texts_are_sets() -> Result<()> {
    let server = Server::start().await?;
    let mut conn = server.conn().await?;
    let mut random = Random(11);
    let (mut taken, mut refused, mut zeros) = (0, 0, 0);
    for _ in 0..3000 {
        let text = broken(&mut random);
        let theirs: Result<Option<String>, _> = conn
            .exec_first("SELECT GTID_SUBTRACT(?, '')", (&text,))
            .await;
        let ours = text.parse::<GtidSet>();
        match (theirs, ours) {
            (Ok(Some(theirs)), Ok(ours)) => {
                assert_eq!(ours.to_string(), theirs, "{text:?}");
                taken += 1;
            }
            (Err(mysql_async::Error::Server(error)), ours) => {
                assert_eq!(error.code, 1772, "{text:?}: {error}");
                assert!(
                    ours.is_err(),
                    "{text:?} is {ours:?} for us and an error for MySQL"
                );
                refused += 1;
            }
            // MySQL 8.0 reads them as octal, 9.7 as decimal: nobody can mean that.
            (Ok(_), Err(error)) if error.to_string().contains("leading zeros") => zeros += 1,
            (theirs, ours) => panic!("{text:?}: {ours:?} here, {theirs:?} there"),
        }
    }
    conn.disconnect().await?;
    assert!(
        taken > 300 && refused > 500 && zeros > 0,
        "{taken} taken, {refused} refused, {zeros} with leading zeros"
    );
    Ok(())
}
