//! Histories through the cutter.
