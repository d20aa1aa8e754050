//! Whatever is asked, a search finds what somebody finds who reads every line.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::archive::layout::BranchNumber;
use crate::archive::segment::IndexedTransaction;
use crate::archive::testing::{Writer, at, set};
use crate::error::{Class, Classified as _};
use crate::mysql::binlog::{Operation, RowCounts, Summary, TableTouch};
use crate::storage::{MemoryStorage, Storage};

const TABLES: [&str; 5] = ["shop.page", "shop.pages", "shop.item", "crm.page", "a.b.c"];
const STATEMENTS: [&str; 6] = [
    "DROP TABLE `shop`.`page` /* x */",
    "ALTER TABLE crm.page ADD c INT",
    "DROP DATABASE shop",
    "CREATE USER ann",
    "INSERT INTO shop.item VALUES (1)",
    "TRUNCATE page",
];

/// A transaction: its second, its tables with their rows (255: not counted), its statement.
type Told = (u64, Vec<(usize, u8)>, Option<usize>);

fn told() -> impl Strategy<Value = Told> {
    let table = (0..TABLES.len(), any::<u8>());
    (
        0..60_u64,
        prop::collection::vec(table, 0..3),
        prop::option::weighted(0.3, 0..STATEMENTS.len()),
    )
}

fn summary((_, tables, statement): &Told) -> Summary {
    let mut touched: Vec<TableTouch> = Vec::new();
    for (number, rows) in tables {
        if touched.iter().any(|touch| touch.name == TABLES[*number]) {
            continue;
        }
        touched.push(TableTouch {
            name: TABLES[*number].to_owned(),
            operations: vec![Operation::Update],
            bytes: 1,
            rows: (*rows < 255).then(|| RowCounts {
                update: u64::from(*rows),
                ..RowCounts::default()
            }),
        });
    }
    Summary {
        tables: touched,
        statement: statement.map(|number| STATEMENTS[number].to_owned()),
        schema: Some("shop".to_owned()),
        incomplete: false,
    }
}

/// What is asked: since, until, patterns, kind, numbers, text, rows.
#[derive(Debug, Clone)]
struct Asked {
    since: Option<u64>,
    until: Option<u64>,
    tables: Vec<&'static str>,
    ddl: Option<bool>,
    gtids: Option<&'static str>,
    text: Option<&'static str>,
    min_rows: u64,
}

fn asked() -> impl Strategy<Value = Asked> {
    let patterns = prop::sample::subsequence(
        vec![
            "shop.page",
            "shop.*",
            "*.page",
            "crm",
            "nobody.here",
            "a.b?c",
        ],
        0..3,
    );
    (
        prop::option::of(0..60_u64),
        prop::option::of(0..60_u64),
        patterns,
        prop::option::of(any::<bool>()),
        prop::option::of(prop::sample::select(vec!["1-5", "7:9", "30"])),
        prop::option::of(prop::sample::select(vec![
            "page", "drop", "item", "nothing",
        ])),
        prop::sample::select(vec![0_u64, 0, 1, 40, 200]),
    )
        .prop_map(|(since, until, tables, ddl, gtids, text, min_rows)| Asked {
            since,
            until,
            tables,
            ddl,
            gtids,
            text,
            min_rows,
        })
}

impl Asked {
    fn filter(&self) -> Filter {
        let mut filter = Filter {
            since: self.since.map(at),
            until: self.until.map(at),
            gtids: self.gtids.map(set),
            text: self.text.map(str::to_owned),
            min_rows: self.min_rows,
            kind: self.ddl.map(|ddl| if ddl { Kind::Ddl } else { Kind::Dml }),
            ..Filter::default()
        };
        filter.tables.include = self
            .tables
            .iter()
            .map(|text| text.parse().expect("a pattern"))
            .collect();
        filter
    }

    /// Whether it is so, told without any of the code under test.
    fn is_met(&self, line: &IndexedTransaction, second: u64) -> bool {
        let summary = &line.summary;
        let statement = summary.statement.as_deref().unwrap_or("");
        let names: Vec<&str> = summary.tables.iter().map(|t| &t.name[..]).collect();
        let has = |name: &str| names.contains(&name);
        let is_insert = statement.starts_with("INSERT");
        let table_met = |pattern: &&str| match *pattern {
            "shop.page" => {
                has("shop.page")
                    || ["DROP TABLE", "DROP DATABASE", "TRUNCATE"]
                        .iter()
                        .any(|verb| statement.starts_with(verb))
            }
            "shop.*" => {
                names.iter().any(|name| name.starts_with("shop."))
                    || ["DROP", "TRUNCATE", "INSERT"]
                        .iter()
                        .any(|verb| statement.starts_with(verb))
            }
            "*.page" => {
                has("shop.page")
                    || has("crm.page")
                    || ["DROP", "TRUNCATE", "ALTER"]
                        .iter()
                        .any(|verb| statement.starts_with(verb))
            }
            "crm" => has("crm.page") || statement.starts_with("ALTER"),
            "a.b?c" => has("a.b.c"),
            _ => false,
        };
        let rows = summary.tables.iter().map(|table| table.rows);
        let counted: u64 = rows.clone().flatten().map(|rows| rows.total()).sum();
        let may_be_more = rows.clone().any(|rows| rows.is_none());
        self.since.is_none_or(|since| second >= since)
            && self.until.is_none_or(|until| second <= until)
            && (self.tables.is_empty() || self.tables.iter().any(table_met))
            && self.ddl.is_none_or(|ddl| match ddl {
                true => !statement.is_empty() && !is_insert,
                false => is_insert || !names.is_empty(),
            })
            && self.gtids.is_none_or(|gnos| match gnos {
                "1-5" => line.gtid.gno <= 5,
                "7:9" => line.gtid.gno == 7 || line.gtid.gno == 9,
                _ => line.gtid.gno == 30,
            })
            && self.text.is_none_or(|text| {
                statement.to_lowercase().contains(text) || names.iter().any(|n| n.contains(text))
            })
            && (counted >= self.min_rows || may_be_more)
    }
}

async fn found(
    writer: &Writer,
    filter: Filter,
    newest: Option<usize>,
) -> Vec<Vec<IndexedTransaction>> {
    let history = writer.repository.history(BranchNumber(1)).await;
    let history = history.expect("a history");
    let mut search = Search::new(writer.repository.clone(), history, filter, newest);
    let mut batches = Vec::new();
    while let Some(batch) = search.next().await.expect("the store works") {
        let lines = batch.found.into_iter().map(|found| found.transaction);
        batches.push(lines.collect());
    }
    assert!(search.damage().is_empty());
    batches
}

/// The archive of these transactions, as many in a segment as told, some compacted.
async fn archive(segments: &[Vec<Told>], compacted: Option<usize>) -> Writer {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let mut writer = Writer::new(storage).await;
    for segment in segments {
        let lines: Vec<_> = segment
            .iter()
            .map(|told| (at(told.0), summary(told)))
            .collect();
        writer.segment_of(&lines).await;
    }
    if let Some(first) = compacted
        && first + 1 < segments.len()
    {
        writer.compact(first..(first + 3).min(segments.len())).await;
    }
    writer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn a_search_finds_what_reading_everything_finds(
        segments in prop::collection::vec(prop::collection::vec(told(), 0..6), 1..9),
        compacted in prop::option::of(0..6_usize),
        asked in asked(),
        newest in 1..5_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let writer = archive(&segments, compacted).await;
            let all: Vec<&Told> = segments.iter().flatten().collect();
            let everything = found(&writer, Filter::default(), None).await.concat();
            prop_assert_eq!(everything.len(), all.len());
            let expected: Vec<_> = everything
                .iter()
                .zip(&all)
                .filter(|(line, told)| asked.is_met(line, told.0))
                .map(|(line, _)| line.clone())
                .collect();
            let found_all = found(&writer, asked.filter(), None).await.concat();
            prop_assert_eq!(&found_all, &expected);
            // From the end: segment by segment, of each no fewer than asked for.
            let mut behind = Vec::new();
            for batch in found(&writer, asked.filter(), Some(newest)).await {
                behind.splice(0..0, batch);
            }
            let few = newest.min(expected.len());
            prop_assert_eq!(
                &behind[behind.len() - few..],
                &expected[expected.len() - few..]
            );
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_segments_that_can_match_are_read() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let mut writer = Writer::new(Arc::clone(&storage)).await;
    for table in [0, 2, 0, 3] {
        let told = (5, vec![(table, 1)], None);
        writer.segment_of(&[(at(5), summary(&told))]).await;
    }
    let history = writer.repository.history(BranchNumber(1)).await;
    let history = history.expect("a history");
    // Those that cannot match are not even there any more.
    for member in &history.members {
        if !member.stored.index.tables.contains(&"shop.page".to_owned()) {
            let key = member.stored.name.key();
            storage.delete(&key).await.expect("deleted");
        }
    }
    let mut filter = Filter::default();
    filter.tables.include = vec!["shop.page".parse().expect("a pattern")];
    let mut search = Search::new(writer.repository.clone(), history, filter, None);
    let mut count = 0;
    while let Some(batch) = search.next().await.expect("the store works") {
        count += batch.found.len();
    }
    assert_eq!(count, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_goes_on_behind_compaction() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let mut writer = Writer::new(storage).await;
    for _ in 0..40 {
        writer.segment(1).await;
    }
    let history = writer.repository.history(BranchNumber(1)).await;
    let history = history.expect("a history");
    let mut search = Search::new(writer.repository.clone(), history, Filter::default(), None);
    let mut gnos = Vec::new();
    while let Some(batch) = search.next().await.expect("the store works") {
        gnos.extend(batch.found.iter().map(|found| found.transaction.gtid.gno));
        // Reaches over what has been passed and what has not.
        match gnos.len() {
            2 => writer.compact(0..30).await,
            20 => writer.compact(0..11).await,
            _ => {}
        }
    }
    let expected: Vec<u64> = (1..=40).collect();
    assert_eq!(gnos, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_segment_hides_no_other() {
    let storage = MemoryStorage::new();
    let mut writer = Writer::new(Arc::new(storage.clone())).await;
    for _ in 0..3 {
        writer.segment(2).await;
    }
    let history = writer.repository.history(BranchNumber(1)).await;
    let history = history.expect("a history");
    let stored = &history.members[1].stored;
    let key = stored.name.key();
    let mut bytes = storage.get(&key).await.expect("there").to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    storage.delete(&key).await.expect("deleted");
    storage
        .put_if_absent(&key, bytes.into())
        .await
        .expect("put");
    let mut search = Search::new(writer.repository.clone(), history, Filter::default(), None);
    let mut gnos = Vec::new();
    while let Some(batch) = search.next().await.expect("the store works") {
        gnos.extend(batch.found.iter().map(|found| found.transaction.gtid.gno));
    }
    assert_eq!(gnos, [1, 2, 5, 6]);
    let damage = search.damage();
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].member.added, set("3-4"));
    assert_eq!(damage[0].error.class(), Class::Integrity);
}
