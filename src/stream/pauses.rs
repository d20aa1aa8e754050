//! Pauses between tries: longer each time, and not the same for all.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// The longest pause between two tries, without its random part.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Pauses that begin with `first` and never end. A seed makes them the same each time.
pub(super) fn pauses(first: Duration, jitter_seed: Option<u64>) -> ExponentialBackoff {
    let builder = ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(first)
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times();
    match jitter_seed {
        Some(seed) => builder.with_jitter_seed(seed).build(),
        None => builder.build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_pauses_again() {
        let first = Duration::from_millis(100);
        let some = |seed| pauses(first, seed).take(40).collect::<Vec<_>>();
        assert_eq!(some(Some(7)), some(Some(7)));
        assert_ne!(some(Some(7)), some(Some(8)));
        assert!(
            some(None)
                .iter()
                .all(|p| (first..=LONGEST_PAUSE * 2).contains(p))
        );
    }
}
