//! Questions to the source beside its dump, so that a slow answer holds nothing up.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::error::StreamError;
use super::upstream::{Answer, Source};

/// How often the source is asked when it purges.
const PURGE_INTERVAL: Duration = Duration::from_secs(30);

/// Asks a source again and again, as long as it lives.
#[derive(Debug)]
pub(super) struct Monitor {
    answers: mpsc::Receiver<Result<Answer, StreamError>>,
    task: JoinHandle<()>,
}

impl Monitor {
    /// Asks at once, and then `interval` after each answer.
    pub(super) fn start(mut source: Box<dyn Source>, interval: Duration) -> Self {
        let (tell, answers) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let mut purge_asked: Option<Instant> = None;
            loop {
                let purge = purge_asked.is_none_or(|asked| asked.elapsed() >= PURGE_INTERVAL);
                if purge {
                    purge_asked = Some(Instant::now());
                }
                let answer = source.ask(purge).await;
                let failed = answer.is_err();
                if tell.send(answer).await.is_err() || failed {
                    return;
                }
                tokio::time::sleep(interval).await;
            }
        });
        Self { answers, task }
    }

    /// The next answer.
    pub(super) async fn next(&mut self) -> Result<Answer, StreamError> {
        match self.answers.recv().await {
            Some(answer) => answer,
            // After its failure, which was told.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}
