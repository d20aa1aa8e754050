//! By replication: the server's own applier catches up from the archive.
//!
//! The connection is TLS with a certificate that lives as long as the run, and a password that was
//! made for it. That keeps listeners out, and strangers from being served. The server cannot check
//! our certificate (it takes an authority only from a file of its own host), so somebody who can
//! change the packets between the two could stand in between; the password itself never passes,
//! only its scramble.

use rand::RngExt as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::channel::{self, Source, Words};
use super::listen::listen;
use super::{ReplayError, ReplayJob, tuning, watch};
use crate::config::Secret;
use crate::mysql::server_url::ServerUrl;
use crate::mysql::session::Session;
use crate::mysql::version::ServerVersion;
use crate::mysql::wire::tls::ServerIdentity;
use crate::restore::serve::{ServeOptions, Server};

/// The account that the server uses; it exists nowhere but in our own answers.
const USER: &str = "quillback";

/// Replays until the server has the job's set, on top of what it has.
///
/// # Errors
///
/// [`ReplayError`]; the channel is removed and the settings are put back even then, unless the
/// server is gone.
pub async fn by_replication(job: &ReplayJob<'_>, session: &mut Session) -> Result<(), ReplayError> {
    let words = Words::of(&job.facts.version);
    // What an earlier run left.
    channel::detach(job.server, session, words, job.cancel).await?;
    let (listener, place) = listen(job).await?;
    let identity =
        ServerIdentity::generate().map_err(|reason| ReplayError::Certificate { reason })?;
    let password = Secret::new(Uuid::new_v4().simple().to_string());
    let ours = unused_server_id(job, &[job.facts.server_id]);
    let server = Server::start(
        listener,
        place.to_string(),
        job.repository.clone(),
        (job.branch, job.members.to_vec()),
        job.set.clone(),
        ServeOptions {
            user: USER.to_owned(),
            password: password.clone(),
            version: job.facts.version.to_string(),
            server_id: ours,
            server_uuid: Uuid::new_v4(),
            identity: Some(identity),
        },
    );
    let source = Source {
        place: &place,
        user: USER,
        password: &password,
        tls: true,
    };
    let other_id = other_server_id(job, ours);
    let outcome = tuned(job, session, words, &source, &server, other_id).await;
    server.stop().await;
    outcome
}

async fn tuned(
    job: &ReplayJob<'_>,
    session: &mut Session,
    words: Words,
    source: &Source<'_>,
    server: &Server,
    other_id: Option<u32>,
) -> Result<(), ReplayError> {
    let found = tuning::tune(session, job.workers.max(1), other_id).await?;
    let outcome = match channel::attach(session, words, source).await {
        Ok(()) => watch::wait(job, session, server).await,
        Err(error) => Err(error),
    };
    let detached = channel::detach(job.server, session, words, job.cancel).await;
    let restored = tuning::put_back(session, &found).await;
    if let (Err(ReplayError::Cancelled), Err(ReplayError::StillApplying { .. })) =
        (&outcome, &detached)
    {
        return detached;
    }
    outcome?;
    detached?;
    restored?;
    Ok(())
}

/// Stops and removes the channel that a replay which was cut off has left, if it did.
///
/// # Errors
///
/// [`ReplayError`]; [`ReplayError::StillApplying`] if the server takes longer than the caller.
pub async fn drop_channel(
    server: &ServerUrl,
    session: &mut Session,
    version: &ServerVersion,
    cancel: &CancellationToken,
) -> Result<(), ReplayError> {
    channel::detach(server, session, Words::of(version), cancel).await
}

/// The `server_id` that the server has while it replays: another one than its own, if the log holds
/// events of that.
fn other_server_id(job: &ReplayJob<'_>, ours: u32) -> Option<u32> {
    let own = job.facts.server_id;
    used_server_ids(job)
        .any(|used| used == own)
        .then(|| unused_server_id(job, &[own, ours]))
}

fn used_server_ids(job: &ReplayJob<'_>) -> impl Iterator<Item = u32> {
    job.members
        .iter()
        .filter_map(|member| member.stored.index.source.as_ref())
        .flat_map(|source| source.server_ids.iter().copied())
}

/// A `server_id` that neither the log nor any of `besides` has.
fn unused_server_id(job: &ReplayJob<'_>, besides: &[u32]) -> u32 {
    let used: Vec<u32> = used_server_ids(job).collect();
    let mut random = rand::rng();
    loop {
        let candidate = random.random_range(0x8000_0000..u32::MAX);
        if !used.contains(&candidate) && !besides.contains(&candidate) {
            return candidate;
        }
    }
}
