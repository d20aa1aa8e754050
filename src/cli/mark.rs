//! `quillback mark`: names a restore point.

use clap::{ArgGroup, Args};
use serde_json::json;

use super::context::Context;
use super::failure::{Done, UsageError};
use super::render;
use crate::archive::marks::{Mark, MarkName, NOTE_LENGTH, make};

/// The options of `mark`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true)))]
pub(super) struct MarkArguments {
    /// The mark's name: letters, digits, '.', '_' and '-'.
    #[arg(group = "what", value_name = "NAME")]
    name: Option<MarkName>,
    /// Show every mark instead.
    #[arg(long, group = "what", conflicts_with_all = ["note", "dry_run"])]
    list: bool,
    /// Why it is made.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    note: String,
    /// Show the mark, and put nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(context: &Context, arguments: MarkArguments) -> anyhow::Result<Done> {
    let Some(name) = arguments.name else {
        return list(context).await;
    };
    if arguments.note.len() > NOTE_LENGTH {
        return Err(UsageError::new(
            format!(
                "the note has {} bytes, and {NOTE_LENGTH} is the most",
                arguments.note.len()
            ),
            "a shorter --note",
        )
        .into());
    }
    let servers = context.servers()?;
    let repository = context.repository().await?;
    let now = context.clock.now();
    let mark = make::of_present(&repository, &servers, name, arguments.note, now).await?;
    if arguments.dry_run {
        match context.json {
            true => render::data(&json!({ "plan": mark })),
            false => {
                render::say(&describe(&mark));
                render::say("nothing was changed (--dry-run)");
            }
        }
        return Ok(Done::Fine);
    }
    repository.put_mark(&mark).await?;
    match context.json {
        true => render::data(&mark),
        false => {
            render::say(&describe(&mark));
            render::say(&format!(
                "restore to it with: quillback restore --until-mark {} --to mysql://user@new-server:3306",
                mark.name
            ));
        }
    }
    Ok(Done::Fine)
}

async fn list(context: &Context) -> anyhow::Result<Done> {
    let marks = context.repository().await?.marks().await?;
    if context.json {
        render::data(&json!({ "marks": marks }));
        return Ok(Done::Fine);
    }
    if marks.is_empty() {
        render::say("no marks");
    }
    for mark in &marks {
        render::say(&describe(mark));
    }
    Ok(Done::Fine)
}

fn describe(mark: &Mark) -> String {
    let mut text = format!(
        "{}  {}  branch {}  {} (MySQL {})\n  {:#}",
        crate::clock::rfc3339(mark.time),
        mark.name,
        mark.branch,
        mark.server.address,
        mark.server.version,
        mark.gtid_executed
    );
    if !mark.note.is_empty() {
        let is_shown = |c: char| if c.is_control() { ' ' } else { c };
        text.push_str("\n  ");
        text.extend(mark.note.chars().map(is_shown));
    }
    text
}
