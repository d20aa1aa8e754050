//! A cluster from a restored server, on real groups and with the real Router.
//!
//! The programs are found on PATH or by `tests/setup`; without them these tests fail.

mod metadata;
