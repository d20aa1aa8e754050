//! `quillback init`: make an archive.

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::failure::Done;
use super::render;
use crate::archive::repository::{ArchiveError, Repository};
use crate::storage;

/// The options of `init`.
#[derive(Debug, Args)]
pub(super) struct InitArguments {
    /// Trust that never two streamers write here, on a store that cannot keep them apart.
    #[arg(long)]
    single_writer: bool,
    /// Show what would be made, and make nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(context: &Context, arguments: InitArguments) -> anyhow::Result<Done> {
    let store = context.storage().await?;
    let url = store.url();
    if arguments.dry_run {
        match Repository::open(store).await {
            Ok(there) => {
                return Err(ArchiveError::Exists {
                    url,
                    created: crate::clock::rfc3339(there.identity().created),
                }
                .into());
            }
            Err(ArchiveError::NotAnArchive { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if context.json {
            render::data(&json!({ "plan": { "archive": url, "branch": 1 } }));
        } else {
            render::say(&format!("would make an archive at {url}"));
        }
        return Ok(Done::Fine);
    }
    if arguments.single_writer {
        context.talk(
            "warning: --single-writer: the store is not probed, and each stream needs the flag too",
        );
    } else {
        storage::probe_conditional_writes(&*store).await?;
    }
    let repository = Repository::init(store, context.clock.now()).await?;
    let identity = repository.identity();
    if context.json {
        render::data(&json!({ "archive": url, "identity": identity }));
    } else {
        render::say(&format!("made an archive at {url}"));
        context.talk("next: quillback stream (in the background), then quillback snapshot");
    }
    Ok(Done::Fine)
}
