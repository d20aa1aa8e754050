//! Stand-in until the load lands.
use crate::archive::manifest::Manifest;
use crate::mysql::ServerUrl;
use crate::storage::Storage;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct LoadError;
impl crate::error::Classified for LoadError {
    fn class(&self) -> crate::error::Class {
        crate::error::Class::Failure
    }
}
pub struct LoadOptions {
    pub threads: usize,
    pub cancel: CancellationToken,
    pub progress: Arc<dyn Fn(u64, u64) + Send + Sync>,
}
pub struct LoadReport {
    pub rows: u64,
    pub stored_bytes: u64,
}
pub async fn load(
    _: &ServerUrl,
    _: Arc<dyn Storage>,
    _: &Manifest,
    _: &LoadOptions,
) -> Result<LoadReport, LoadError> {
    Err(LoadError)
}
