//! Checksums over rows that do not depend on their order.
//!
//! They tell whether two tables hold the same rows; that nobody changed a file is what its SHA-256
//! is for. So a row's hash need not withstand an attacker, who would write another sum into the
//! manifest, and can be one that costs next to nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use super::hash::{Sha256, Sha256Writer, sha256};
use super::manifest::ManifestError;

/// The sum modulo 2^128 of the hashes of all rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RowChecksum(u128);

/// How a row's line, without its newline, is hashed to 128 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RowHash {
    /// The first 16 bytes, little-endian, of its SHA-256: the manifests of format 1.
    Sha256,
    /// XXH3 with 128 bits and without a seed.
    #[default]
    Xxh3,
}

/// The hash of a line that comes in pieces.
pub enum RowHasher {
    /// Of [`RowHash::Sha256`].
    Sha256(Sha256Writer),
    /// Of [`RowHash::Xxh3`].
    Xxh3(Box<XxHash3_128>),
}

impl RowHash {
    /// The hash of a whole line.
    #[must_use]
    pub fn of(self, line: &[u8]) -> u128 {
        match self {
            Self::Sha256 => first_half(&sha256(line)),
            Self::Xxh3 => XxHash3_128::oneshot(line),
        }
    }

    /// The hash of a line that is to come.
    #[must_use]
    pub fn hasher(self) -> RowHasher {
        match self {
            Self::Sha256 => RowHasher::Sha256(Sha256Writer::default()),
            Self::Xxh3 => RowHasher::Xxh3(Box::new(XxHash3_128::new())),
        }
    }
}

impl fmt::Debug for RowHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256(_) => "Sha256",
            Self::Xxh3(_) => "Xxh3",
        })
    }
}

impl RowHasher {
    /// Adds the line's next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Xxh3(hasher) => hasher.write(bytes),
        }
    }

    /// The hash of all of them.
    #[must_use]
    pub fn finish(self) -> u128 {
        match self {
            Self::Sha256(hasher) => first_half(&hasher.finish()),
            Self::Xxh3(hasher) => hasher.finish_128(),
        }
    }
}

fn first_half(digest: &Sha256) -> u128 {
    let (first, _) = digest
        .as_bytes()
        .split_first_chunk::<16>()
        .expect("a SHA-256 has 32 bytes");
    u128::from_le_bytes(*first)
}

impl RowChecksum {
    /// Adds a row, given its hash.
    pub const fn add_row(&mut self, hash: u128) {
        self.0 = self.0.wrapping_add(hash);
    }

    /// Adds the rows of another part of the same table.
    pub const fn add(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl fmt::Display for RowChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for RowChecksum {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, ManifestError> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| ManifestError::BadChecksum(text.to_owned()))
    }
}

impl TryFrom<String> for RowChecksum {
    type Error = ManifestError;

    fn try_from(text: String) -> Result<Self, ManifestError> {
        text.parse()
    }
}

impl From<RowChecksum> for String {
    fn from(checksum: RowChecksum) -> Self {
        checksum.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(hash: RowHash, lines: &[&str]) -> RowChecksum {
        let mut checksum = RowChecksum::default();
        for line in lines {
            checksum.add_row(hash.of(line.as_bytes()));
        }
        checksum
    }

    #[test]
    fn a_checksum_does_not_depend_on_the_order_but_on_every_row() {
        for hash in [RowHash::Sha256, RowHash::Xxh3] {
            let sum = |lines: &[&str]| sum(hash, lines);
            assert_eq!(sum(&["1\ta", "2\tb"]), sum(&["2\tb", "1\ta"]));
            assert_ne!(sum(&["1\ta"]), sum(&["1\ta", "1\ta"]));
            assert_ne!(sum(&["1\ta"]), sum(&["1\tb"]));
            let mut parts = sum(&["1\ta"]);
            parts.add(sum(&["2\tb"]));
            assert_eq!(parts, sum(&["1\ta", "2\tb"]));
            assert_eq!(sum(&["x"]).to_string().parse(), Ok(sum(&["x"])));
        }
        assert!("x".repeat(32).parse::<RowChecksum>().is_err());
    }

    #[test]
    fn the_hashes_are_the_published_ones() {
        // The SHA-256 of the empty text starts with e3b0c44298fc1c149afbf4c8996fb924.
        let empty = sum(RowHash::Sha256, &[""]).to_string();
        assert_eq!(empty, "24b96f99c8f4fb9a141cfc9842c4b0e3");
        // As `printf '' | xxhsum -H2` prints it.
        let empty = sum(RowHash::Xxh3, &[""]).to_string();
        assert_eq!(empty, "99aa06d3014798d86001c324468d497f");
    }

    #[test]
    fn a_line_may_come_in_pieces() {
        let line: Vec<u8> = (0..3000_u32).map(|n| (n % 251) as u8).collect();
        for hash in [RowHash::Sha256, RowHash::Xxh3] {
            for length in [0, 1, 3, 16, 128, 240, 241, 1024, 3000] {
                for step in [1, 7, 300] {
                    let mut hasher = hash.hasher();
                    for piece in line[..length].chunks(step) {
                        hasher.update(piece);
                    }
                    assert_eq!(
                        hasher.finish(),
                        hash.of(&line[..length]),
                        "{hash:?} {length}"
                    );
                }
            }
        }
    }
}
