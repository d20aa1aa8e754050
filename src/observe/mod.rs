//! What a run tells about itself: phases, progress, metrics, logging.

pub mod fail_point;
pub mod phase;
