//! Histories over forks.
