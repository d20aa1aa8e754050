//! Work for the processor beside the tasks that wait for others.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinError;

/// Does work that takes long where it holds up no task.
///
/// A runtime of one thread, as tests have it whose events shall come in the same order each time,
/// has no such place: there it is done at once.
///
/// # Errors
///
/// [`JoinError`] if the work panics.
pub(crate) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}
