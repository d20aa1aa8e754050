//! From the archive back to a server.

pub mod load;
