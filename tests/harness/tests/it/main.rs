//! The harness proves itself on real servers.

mod cleanup;
mod data;
mod group;
mod ledger;
mod network;
mod router;
mod server;
mod storage;
