//! Whether a server may be filled, stands alone and can hold what is restored.

use std::collections::BTreeMap;

use super::{Content, Reason, ServerState, Wishes, held, some};
use crate::archive::manifest::Manifest;
use crate::mysql::quote;
use crate::restore::load::parts::TABLES_JOURNAL;
use crate::restore::parts::is_staging_schema;
use crate::restore::replay::CHANNEL;

/// Empty, or unfinished and to be gone on with, or named to be emptied.
pub(super) fn whether_it_may_be_filled(
    state: &ServerState,
    wishes: &Wishes<'_>,
    reasons: &mut Vec<Reason>,
) {
    let address = &state.facts.server.address;
    let begun = state.journal.is_some() || state.malformed_journal.is_some();
    match wishes.wipe {
        Some(named) if named != address => {
            reasons.push(Reason::new(
                format!("--wipe names {named}, which is not the target"),
                format!("--wipe {address}, if it is that server that shall be emptied"),
            ));
            return;
        }
        Some(_) if !(wishes.resume && state.journal.is_some()) => return,
        _ => {}
    }
    if wishes.resume {
        if let Some(malformed) = &state.malformed_journal {
            reasons.push(Reason::new(
                malformed,
                format!("--wipe {address}, to begin anew"),
            ));
        } else if state.journal.is_none() {
            reasons.push(Reason::new(
                "there is nothing to go on with: no restore was begun on it, or it came to its end",
                "without --resume",
            ));
        }
        return;
    }
    if begun {
        let which = state.journal.as_ref().map_or_else(String::new, |journal| {
            format!(
                " (of {}, begun {})",
                journal.run.target,
                crate::clock::rfc3339(journal.run.started)
            )
        });
        reasons.push(Reason::new(
            format!("it is unfinished: an earlier restore{which} did not come to its end"),
            format!("--resume to go on with that one, or --wipe {address} to begin anew"),
        ));
        return;
    }
    let (unfinished, others): (Vec<Content>, Vec<Content>) = state
        .contents
        .iter()
        .cloned()
        .partition(|content| is_of_unfinished_tables(content, state));
    if !unfinished.is_empty() {
        let drops: Vec<String> = unfinished
            .iter()
            .map(|content| format!("DROP DATABASE {}", quote::identifier(&content.schema)))
            .collect();
        reasons.push(Reason::new(
            "a restore of tables to it (--tables) did not come to its end",
            format!(
                "restore --resume with the same --tables, which goes on with that one; or, to give \
                 it up, on the server: {};",
                drops.join("; ")
            ),
        ));
    }
    if !others.is_empty() {
        reasons.push(Reason::new(
            format!("it is not empty: it has {}", held(&others)),
            format!("an empty server, or --wipe {address}, which removes all that is on it"),
        ));
    }
}

/// Whether a schema is what an unfinished restore of tables has made: its journal, or one of those that the
/// tables are built in. The journal is made first and removed last, so without it none is.
fn is_of_unfinished_tables(content: &Content, state: &ServerState) -> bool {
    let is_journal = |content: &Content| content.schema == TABLES_JOURNAL;
    state.contents.iter().any(is_journal)
        && (is_journal(content) || is_staging_schema(&content.schema))
}

/// Nobody else depends on it or feeds it.
pub(super) fn whether_it_stands_alone(
    state: &ServerState,
    wishes: &Wishes<'_>,
    reasons: &mut Vec<Reason>,
) {
    if let Some(member) = &state.facts.group_member_state {
        reasons.push(Reason::new(
            format!("it is a member of a running group ({member})"),
            "a server outside of the group; if it is really this one, STOP GROUP_REPLICATION there",
        ));
    }
    // The channel of a replay that was cut off is our own.
    let ours = |name: &&String| name.as_str() == CHANNEL && state.journal.is_some();
    let named = |channels: &[String]| {
        let channels = channels.iter().filter(|name| !ours(name));
        let names: Vec<&str> = channels
            .map(|name| match name.as_str() {
                "" => "the default one",
                name => name,
            })
            .collect();
        names.join(", ")
    };
    let running = named(&state.running_channels);
    let configured = named(&state.facts.replication_channels);
    if !running.is_empty() {
        reasons.push(Reason::new(
            format!("it is a replica: a replication channel runs ({running})"),
            "a server that replicates from nobody; if it is really this one, STOP REPLICA and \
             RESET REPLICA ALL there",
        ));
    } else if !configured.is_empty() && wishes.wipe.is_none() {
        reasons.push(Reason::new(
            format!("it has replication channels ({configured})"),
            "RESET REPLICA ALL on it, if they are of no use any more",
        ));
    }
    if !state.readers.is_empty() {
        let mut readers: Vec<&str> = state.readers.iter().map(String::as_str).collect();
        readers.dedup();
        reasons.push(Reason::new(
            format!(
                "it has replicas or a stream: {} read its binlog",
                readers.join(", ")
            ),
            "a server that nobody follows; or STOP REPLICA on those that follow it",
        ));
    }
    if state.prepared > 0 && wishes.wipe.is_none() && !wishes.resume {
        reasons.push(Reason::new(
            format!(
                "it has {} prepared XA transactions, which hold locks",
                state.prepared
            ),
            "XA RECOVER on it, and XA ROLLBACK for each",
        ));
    }
}

/// Version, settings, engines and the like.
pub(super) fn whether_it_can_hold_it(
    manifest: &Manifest,
    state: &ServerState,
    reasons: &mut Vec<Reason>,
) {
    let facts = &state.facts.server;
    let source = &manifest.server;
    let series = |version: (u16, u16, u16)| (version.0, version.1);
    if series(facts.version.triple()) < series(source.version.triple()) {
        reasons.push(Reason::new(
            format!(
                "it runs MySQL {}, older than the snapshot's {}",
                facts.version, source.version
            ),
            format!("a server of MySQL {} or newer", source.version),
        ));
    }
    if !facts.version.at_least(8, 0, 23) {
        reasons.push(Reason::new(
            format!(
                "it runs MySQL {}, replay needs 8.0.23 or newer",
                facts.version
            ),
            "a newer server",
        ));
    }
    if !facts.has_gtids() {
        reasons.push(Reason::new(
            format!("its gtid_mode is {}, not ON", facts.gtid_mode),
            "gtid_mode=ON and enforce_gtid_consistency=ON in its my.cnf",
        ));
    }
    if facts.lower_case_table_names != source.lower_case_table_names {
        reasons.push(Reason::new(
            format!(
                "its lower_case_table_names is {}, the snapshot's was {}",
                facts.lower_case_table_names, source.lower_case_table_names
            ),
            format!(
                "a server initialised with lower_case_table_names={}",
                source.lower_case_table_names
            ),
        ));
    }
    if !facts.performance_schema {
        reasons.push(Reason::new(
            "its performance_schema is off, so nobody can see whether the replay works",
            "performance_schema=ON in its my.cnf",
        ));
    }
    if facts.server_id == 0 {
        reasons.push(Reason::new(
            "its server_id is 0, with which no server can replicate",
            "SET PERSIST server_id = a number of its own",
        ));
    }
    let lacking = lacking_engines(manifest, state);
    if !lacking.is_empty() {
        let engines: Vec<String> = lacking
            .iter()
            .map(|(engine, table)| format!("{engine} (of {table})"))
            .collect();
        reasons.push(Reason::new(
            format!(
                "it does not have the storage engines {}",
                engines.join(", ")
            ),
            "INSTALL PLUGIN on it, or a server that has them",
        ));
    }
    if !manifest.needs.keyring.is_empty() && !state.has_keyring {
        reasons.push(Reason::new(
            format!(
                "it has no keyring, but these are encrypted: {}",
                some(&manifest.needs.keyring)
            ),
            "a server with a keyring component, such as component_keyring_file",
        ));
    }
    if !state.unknown_time_zones.is_empty() {
        reasons.push(Reason::new(
            format!(
                "it does not know the time zones of events: {}",
                some(&state.unknown_time_zones)
            ),
            "mysql_tzinfo_to_sql /usr/share/zoneinfo on that server, into its schema mysql",
        ));
    }
}

/// The engines that tables of the snapshot have and the server has not, each with one such table.
fn lacking_engines(manifest: &Manifest, state: &ServerState) -> BTreeMap<String, String> {
    manifest
        .tables
        .iter()
        .filter_map(|table| Some((table.engine.as_ref()?.to_ascii_uppercase(), table)))
        .filter(|(engine, _)| !state.engines.contains(engine))
        .map(|(engine, table)| (engine, table.display_name()))
        .collect()
}
