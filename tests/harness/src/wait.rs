//! Waiting for a condition with a limit and a reason.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Polls `check` every 50 ms until it gives a value; fails after `limit` with `what` and the last error.
///
/// `Ok(None)` and `Err` both mean "not yet"; a single call of `check` may take as long as it likes, but is abandoned at the limit.
///
/// # Errors
/// The limit has passed.
pub async fn until<T, F, R>(what: &str, limit: Duration, mut check: F) -> Result<T>
where
    F: FnMut() -> R,
    R: Future<Output = Result<Option<T>>>,
{
    let end = Instant::now() + limit;
    let mut last = String::from("it was not so yet");
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, check()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => {}
        }
        if Instant::now() >= end {
            bail!("waited {} s for {what}: {last}", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
