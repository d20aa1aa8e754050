//! What the archive holds and how its objects are made.
//!
//! [`layout`] names every key; [`segment`], [`identity`], [`manifest`], [`marks`], [`script`] and [`rows`]
//! are the formats, without IO;
//! [`catalog`] computes from a listing and the segments' indexes what is restorable, [`history`]
//! adds what a branch has from its parents, [`merge`] makes one segment of several, [`orphans`] tells
//! what dead snapshots have left behind, [`progress`] how to go on with one, [`search`] which transaction did it;
//! [`repository`] joins them to a store. `FORMAT.md` beside this file describes every byte for
//! readers that are not Quillback.
//!
//! Invariant: nothing in an archive is ever overwritten, and what is restorable is computed from
//! the objects that are there, never from a stored conclusion.

pub mod catalog;
pub mod hash;
pub mod history;
pub mod identity;
pub mod layout;
pub mod manifest;
pub mod marks;
pub mod merge;
pub mod orphans;
pub mod progress;
pub mod repository;
pub mod row_checksum;
pub mod rows;
pub mod script;
pub mod search;
pub mod segment;
pub(crate) mod work;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
