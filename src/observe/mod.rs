//! What a run tells about itself: phases, metrics, probes, the service manager, fail points.

pub mod endpoint;
pub mod fail_point;
pub mod phase;
pub mod service;
