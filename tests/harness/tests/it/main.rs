//! The harness proves itself on real servers.

mod group;
