//! A feed whose segments are compacted away.
