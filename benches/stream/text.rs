//! Numbers and prose that are the same at every run.
//!
//! How well a binlog compresses decides much of what is measured here, so the text must be neither noise nor a handful of
//! words: a vocabulary of 20,000 made-up words, drawn as people draw them, few of them often and most of them seldom.

use std::fmt::Write as _;
use std::sync::Arc;

const WORDS: u64 = 20_000;
const ONSETS: [&str; 20] = [
    "b", "br", "c", "ch", "d", "f", "g", "gr", "h", "l", "m", "n", "p", "pl", "r", "s", "st", "t",
    "tr", "v",
];
const VOWELS: [&str; 10] = ["a", "e", "i", "o", "u", "ai", "ea", "io", "ou", "é"];
const CODAS: [&str; 10] = ["", "", "", "n", "r", "s", "l", "t", "nd", "m"];

/// What splitmix64's state grows by.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(state: u64) -> u64 {
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A generator with its state (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
    words: Arc<Vec<String>>,
}

impl Random {
    /// A generator; the same seed gives the same numbers and words.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self {
            state: 0,
            words: Arc::default(),
        };
        let words = (0..WORDS).map(|_| random.make_word()).collect();
        random.words = Arc::new(words);
        random.fork(seed)
    }

    /// Another one with the same vocabulary.
    pub(crate) fn fork(&self, seed: u64) -> Self {
        // States a few steps apart would give the same numbers a few steps later, and texts that repeat each other.
        let mut state = seed;
        for _ in 0..3 {
            state = mix(state.wrapping_add(STEP));
        }
        Self {
            state,
            words: Arc::clone(&self.words),
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// A number from 0 to `limit` - 1.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// A number from 0 up to 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[usize::try_from(self.below(of.len() as u64)).expect("it is below a length")]
    }

    fn make_word(&mut self) -> String {
        let mut word = String::new();
        for _ in 0..=self.below(3) {
            word.push_str(self.pick(&ONSETS));
            word.push_str(self.pick(&VOWELS));
            word.push_str(self.pick(&CODAS));
        }
        word
    }

    /// Appends `count` words; the word of rank n comes about 1/n as often as the first (Zipf's law).
    pub(crate) fn prose(&mut self, out: &mut String, count: u64) {
        for number in 0..count {
            let rank = (WORDS as f64).powf(self.fraction()) as usize - 1;
            let word = &self.words[rank.min(self.words.len() - 1)];
            let _ = match number {
                0 => write!(out, "{word}"),
                _ if number % 11 == 0 => write!(out, ". {word}"),
                _ => write!(out, " {word}"),
            };
        }
    }

    /// Appends `groups` groups of eleven digits, as sysbench fills its columns.
    pub(crate) fn digits(&mut self, out: &mut String, groups: u64) {
        for number in 0..groups {
            let dash = if number == 0 { "" } else { "-" };
            let _ = write!(out, "{dash}{:011}", self.below(100_000_000_000));
        }
    }
}
