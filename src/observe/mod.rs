//! What a run tells about itself: phases, progress, metrics, logging.

pub mod phase;
