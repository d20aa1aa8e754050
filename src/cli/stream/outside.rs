//! How a stream is seen from outside: the HTTP endpoint and the service manager.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::context::Context;
use super::super::failure::UsageError;
use super::super::render;
use super::super::status::archive_facts;
use super::tell::line;
use crate::archive::repository::Repository;
use crate::clock::Clock;
use crate::error::with_causes;
use crate::observe::endpoint::Endpoint;
use crate::observe::service::ServiceManager;
use crate::stream::health::{Doing, Health};
use crate::stream::{HEARTBEAT, StreamEvent};

/// How often the archive is asked for new snapshots.
const ARCHIVE_INTERVAL: Duration = Duration::from_secs(60);
/// How often the service manager is told how it goes, while nothing changes.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// What answers and tells.
pub(super) struct Outside {
    endpoint: Option<Endpoint>,
    health: Arc<Health>,
    manager: Arc<Manager>,
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Outside {
    /// Begins to answer at the address, if there is one, and finds the service manager by the
    /// environment.
    pub(super) async fn open(
        context: &Context,
        listen: Option<&str>,
        health: &Arc<Health>,
    ) -> anyhow::Result<Self> {
        let endpoint = match listen {
            None => None,
            Some(address) => {
                let listener = Endpoint::bind(address).await.map_err(|error| {
                    UsageError::new(
                        format!("cannot listen on {address:?} for metrics: {error}"),
                        "--metrics-listen 127.0.0.1:9187, or 0.0.0.0:9187 for all interfaces: an \
                         address of this host with a port that is free",
                    )
                })?;
                let endpoint = Endpoint::start(listener, Arc::clone(health) as Arc<_>)?;
                context.talk(&format!("metrics: http://{}/metrics", endpoint.address()));
                Some(endpoint)
            }
        };
        Ok(Self {
            endpoint,
            health: Arc::clone(health),
            manager: Arc::new(Manager::from_environment(Arc::clone(health))),
            tasks: Vec::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Looks at the archive for the metrics, and says when the run is told to end.
    pub(super) fn watch(
        &mut self,
        context: &Context,
        repository: &Repository,
        cancel: &CancellationToken,
    ) {
        self.tasks.push(tokio::spawn(say_stopping(
            Arc::clone(&self.health),
            Arc::clone(&self.manager),
            cancel.clone(),
            self.stop.clone(),
        )));
        if self.endpoint.is_some() {
            self.tasks.push(tokio::spawn(watch_archive(
                repository.clone(),
                Arc::clone(&context.clock),
                Arc::clone(&self.health),
                self.stop.clone(),
            )));
        }
    }

    /// Who tells the service manager.
    pub(super) fn manager(&self) -> Arc<Manager> {
        Arc::clone(&self.manager)
    }

    /// Ends all of it.
    pub(super) async fn stop(self) {
        self.manager.stopping();
        self.stop.cancel();
        for task in self.tasks {
            // It has no way to fail but a panic, which was told.
            let _ = task.await;
        }
        if let Some(endpoint) = self.endpoint {
            endpoint.stop().await;
        }
    }
}

async fn say_stopping(
    health: Arc<Health>,
    manager: Arc<Manager>,
    cancel: CancellationToken,
    stop: CancellationToken,
) {
    tokio::select! {
        biased;
        () = cancel.cancelled() => {
            health.stopping();
            manager.stopping();
        }
        () = stop.cancelled() => {}
    }
}

/// Reads from the archive what the stream itself does not know, when there is a new snapshot.
async fn watch_archive(
    repository: Repository,
    clock: Arc<dyn Clock>,
    health: Arc<Health>,
    stop: CancellationToken,
) {
    let mut known = None;
    let mut pause = HEARTBEAT;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        // Before that somebody else tells it, or nobody knows.
        if !matches!(health.summary().doing, Doing::Following { .. }) {
            continue;
        }
        pause = ARCHIVE_INTERVAL;
        let looked = async {
            let ids = repository.snapshot_ids().await?;
            if known.as_ref() != Some(&ids) {
                health.archive_is(archive_facts(&repository, clock.now()).await?);
                known = Some(ids);
            }
            anyhow::Ok(())
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            looked = looked => if let Err(error) = looked {
                let error = with_causes(error.as_ref());
                tracing::info!(error, "the archive could not be read for the metrics");
            }
        }
    }
}

/// What the service manager is told.
pub(super) struct Manager {
    to: Option<ServiceManager>,
    watchdog: bool,
    health: Arc<Health>,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    ready: bool,
    stopping: bool,
    status: Option<Instant>,
}

impl Manager {
    /// As sd_notify(3) and sd_watchdog_enabled(3) have it.
    fn from_environment(health: Arc<Health>) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let to = variable("NOTIFY_SOCKET").and_then(|address| {
            ServiceManager::at(&address)
                .map_err(|error| {
                    render::talk(&format!(
                        "warning: NOTIFY_SOCKET={address} cannot be used, so no service manager \
                         is told: {error}"
                    ));
                })
                .ok()
        });
        let own = std::process::id().to_string();
        let meant = variable("WATCHDOG_PID").is_none_or(|process| process == own);
        let limit = variable("WATCHDOG_USEC")
            .and_then(|text| text.parse().ok())
            .map(Duration::from_micros)
            .filter(|_| meant && to.is_some());
        if let Some(limit) = limit.filter(|limit| *limit < HEARTBEAT * 3) {
            render::talk(&format!(
                "warning: the service manager's watchdog waits only {} s, and a sign of life comes \
                 every {} s: WatchdogSec=60 is a good value",
                limit.as_secs_f64(),
                HEARTBEAT.as_secs()
            ));
        }
        Self {
            to,
            watchdog: limit.is_some(),
            health,
            said: Mutex::default(),
        }
    }

    /// Takes an event that the health knows already.
    pub(super) fn hear(&self, event: &StreamEvent) {
        let Some(to) = &self.to else { return };
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let (ready, changed) = match event {
            StreamEvent::Following { .. } | StreamEvent::Standby { .. } => (true, true),
            StreamEvent::Claimed { .. }
            | StreamEvent::Interrupted { .. }
            | StreamEvent::StoreFailing { .. } => (false, true),
            _ => (false, false),
        };
        if ready && !said.ready {
            said.ready = true;
            to.ready();
        }
        let due = said
            .status
            .is_none_or(|told| told.elapsed() >= STATUS_INTERVAL);
        if (changed || due) && !said.stopping {
            said.status = Some(Instant::now());
            to.status(&line(&self.health.summary()));
        }
        if self.watchdog && matches!(event, StreamEvent::Alive) {
            to.watchdog();
        }
    }

    /// It has begun to end.
    fn stopping(&self) {
        let Some(to) = &self.to else { return };
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.stopping {
            said.stopping = true;
            to.stopping();
            to.status("stopping: storing what was received");
        }
    }
}
