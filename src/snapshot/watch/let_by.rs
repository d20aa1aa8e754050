//! How the one who opens the views asks the watch to let DDL by.
//!
//! DDL that waits for the backup lock stands in the way of the views: a replica's has its GTID
//! already, so that no moment is quiet, and holds the global metadata lock, so that FLUSH TABLES
//! WITH READ LOCK waits for it while it waits for us. As long as no view is open nothing is lost by
//! letting it go first; afterwards the schema is another one and must be read again.

use tokio::sync::{mpsc, oneshot};

/// Asks.
#[derive(Debug)]
pub(in crate::snapshot) struct Asking(mpsc::Sender<oneshot::Sender<bool>>);

/// Is asked.
#[derive(Debug)]
pub(super) struct Asked(mpsc::Receiver<oneshot::Sender<bool>>);

/// The two ends.
pub(super) fn pair() -> (Asking, Asked) {
    let (sender, receiver) = mpsc::channel(1);
    (Asking(sender), Asked(receiver))
}

impl Asking {
    /// Has the backup lock let go until the DDL that waits for it has had its turn, and taken
    /// again; `false` if there is no lock of ours that could be in its way.
    pub(in crate::snapshot) async fn let_ddl_by(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        self.0.send(reply).await.is_ok() && answer.await.unwrap_or(false)
    }
}

impl Asked {
    /// The next one who asks, and waits for the reply. Dropping the future loses nobody.
    pub(super) async fn next(&mut self) -> oneshot::Sender<bool> {
        match self.0.recv().await {
            Some(reply) => reply,
            // The views are open.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_gets_the_answer_and_nobody_waits_in_vain() {
        let (asking, mut asked) = pair();
        let answering = async {
            let reply = asked.next().await;
            reply.send(true).expect("somebody waits");
        };
        let (answer, ()) = tokio::join!(asking.let_ddl_by(), answering);
        assert!(answer);
        drop(asked);
        assert!(!asking.let_ddl_by().await);
    }
}
