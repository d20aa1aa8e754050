//! A cluster from the restored server, on real groups.

mod cluster;
mod metadata;
mod support;
