//! What a person should know of a snapshot that was taken all the same.

use super::plan::SnapshotPlan;
use crate::mysql::schema::{Schema, Table};

/// Every warning that the schema gives reason for.
pub(super) fn of_schema(plan: &SnapshotPlan, schema: &Schema) -> Vec<String> {
    let mut warnings = planned_otherwise(plan, schema);
    warnings.extend(schema.left_out.iter().cloned());
    warnings.extend(broken_views(schema));
    warnings.extend(cut_views(schema));
    warnings.extend(unplanned_engines(plan, schema));
    warnings.extend(replica_events(schema));
    warnings
}

fn planned_otherwise(plan: &SnapshotPlan, schema: &Schema) -> Vec<String> {
    let planned = |database: &str, name: &str| {
        plan.tables
            .iter()
            .any(|table| table.database == database && table.name == name)
    };
    let came = schema
        .tables
        .iter()
        .filter(|table| !planned(&table.database, &table.name))
        .map(|table| format!("table {} came after the plan", table.display_name()));
    let gone = plan.tables.iter().filter(|planned| {
        !schema
            .tables
            .iter()
            .any(|table| table.database == planned.database && table.name == planned.name)
    });
    let gone = gone.map(|table| {
        format!(
            "table {}.{} went after the plan",
            table.database, table.name
        )
    });
    came.chain(gone).collect()
}

fn broken_views(schema: &Schema) -> Vec<String> {
    schema
        .invalid_views
        .iter()
        .map(|view| {
            format!(
                "view {}.{} is broken on the server: what it reads is gone, or its definer",
                view.database, view.name
            )
        })
        .collect()
}

fn cut_views(schema: &Schema) -> Vec<String> {
    schema
        .cut_views
        .iter()
        .map(|cut| {
            format!(
                "view {}.{} reads {}, which the filter leaves out: a restore cannot make it",
                cut.view.database, cut.view.name, cut.lacks
            )
        })
        .collect()
}

/// Tables of other engines that came after the plan, which names the others.
fn unplanned_engines(plan: &SnapshotPlan, schema: &Schema) -> Vec<String> {
    let planned = |table: &Table| {
        plan.tables
            .iter()
            .any(|planned| planned.database == table.database && planned.name == table.name)
    };
    schema
        .tables
        .iter()
        .filter(|table| !table.is_innodb() && !planned(table))
        .map(|table| {
            format!(
                "rows of {} ({}) belong to no GTID set",
                table.display_name(),
                table.engine
            )
        })
        .collect()
}

/// A secondary does not know whether an event was enabled where it was made: it holds it disabled,
/// and so will whatever is restored from it.
fn replica_events(schema: &Schema) -> Option<String> {
    let is_disabled = |create: &[u8]| {
        ["DISABLE ON SLAVE", "DISABLE ON REPLICA"]
            .iter()
            .any(|words| memchr::memmem::find(create, words.as_bytes()).is_some())
    };
    let names: Vec<String> = schema
        .events
        .iter()
        .filter(|event| is_disabled(&event.create))
        .map(|event| format!("{}.{}", event.database, event.name))
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "a secondary holds its events disabled; after a restore those that shall run need \
             ALTER EVENT ... ENABLE: {}",
            names.join(", ")
        )
    })
}
