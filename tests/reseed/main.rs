//! A cluster from the restored server, on real groups.

mod cluster;
mod in_place;
mod interrupted;
mod metadata;
mod refusals;
mod support;
