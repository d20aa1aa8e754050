//! `quillback log`: which transaction did it.

mod offer;
mod recount;
mod rows;
mod show;
mod span;

use std::collections::VecDeque;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::context::Context;
use super::failure::{Done, UsageError};
use super::render;
use super::times::parse_moment;
use crate::archive::catalog::Problem;
use crate::archive::history::Member;
use crate::archive::layout::BranchNumber;
use crate::archive::repository::Repository;
use crate::archive::search::{Batch, Filter, Kind, Search, Verdict};
use crate::archive::segment::IndexedTransaction;
use crate::error::{Class, with_causes};
use crate::gtid::GtidSet;
use crate::mysql::schema::{Filter as Tables, Pattern};

use offer::Offer;
use show::Page;

/// The options of `log`.
#[derive(Debug, Args)]
#[command(
    after_help = "Several filters must all fit. docs/LOG.md tells what each of them looks at."
)]
pub(super) struct LogArguments {
    /// Only transactions committed at or after this moment (RFC 3339, 2026-11-20T14:30:00Z).
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Only transactions committed at or before this moment.
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// Only transactions that touched such a table: db.table or db, with * and ? (may be repeated).
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    table: Vec<Pattern>,
    /// Only these transactions.
    #[arg(long, value_name = "SET")]
    gtid: Option<GtidSet>,
    /// Only statements, or only changes of rows.
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<KindArgument>,
    /// Only transactions with this text in their statement or in a table's name, whatever its case.
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Only transactions that changed at least so many rows.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    min_rows: u64,
    /// Only the last N of those found.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    last: Option<u32>,
    /// Only the first N of those found.
    #[arg(long, value_name = "N", conflicts_with = "last", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// The history to read, if not the newest.
    #[arg(long, value_name = "N")]
    branch: Option<u32>,
    /// Show the rows too, before and after, as mysqlbinlog -v does.
    #[arg(long)]
    rows: bool,
    /// With --rows: show long values whole.
    #[arg(long, requires = "rows")]
    full: bool,
    /// With --rows: of how many transactions at most [default: 20, or what --last or --limit says].
    #[arg(long, value_name = "N", requires = "rows")]
    max_transactions: Option<u32>,
}

/// What a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KindArgument {
    /// A statement: DDL, accounts.
    Ddl,
    /// Changes of rows.
    Dml,
}

/// The rows of so many transactions are shown without further ado.
const ROWS_OF: u32 = 20;

/// A transaction with the segment that it is in.
type Place = (Arc<Member>, IndexedTransaction);

impl LogArguments {
    fn filter(&self) -> anyhow::Result<Filter> {
        let moment = |text: &Option<String>, flag: &str| {
            text.as_deref()
                .map(|text| {
                    parse_moment(text).map_err(|error| {
                        UsageError::new(error, format!("{flag} 2026-11-20T14:30:00Z"))
                    })
                })
                .transpose()
        };
        let since = moment(&self.since, "--since")?;
        let until = moment(&self.until, "--until")?;
        if let (Some(since), Some(until)) = (since, until)
            && since > until
        {
            return Err(UsageError::new(
                format!(
                    "--since {} is after --until {}: nothing can lie between them",
                    crate::clock::rfc3339(since),
                    crate::clock::rfc3339(until)
                ),
                "the earlier moment with --since, the later one with --until",
            )
            .into());
        }
        if self.gtid.as_ref().is_some_and(GtidSet::is_empty) {
            return Err(UsageError::new(
                "the GTID set of --gtid is empty",
                "--gtid 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-42",
            )
            .into());
        }
        Ok(Filter {
            since,
            until,
            tables: Tables {
                include: self.table.clone(),
                exclude: Vec::new(),
            },
            kind: self.kind.map(|kind| match kind {
                KindArgument::Ddl => Kind::Ddl,
                KindArgument::Dml => Kind::Dml,
            }),
            statements: false,
            gtids: self.gtid.clone(),
            text: self.grep.as_ref().map(|text| text.to_lowercase()),
            min_rows: self.min_rows,
        })
    }

    /// Of how many transactions the rows are shown.
    fn rows_of(&self) -> u32 {
        let told = self.max_transactions.or(self.last).or(self.limit);
        told.unwrap_or(ROWS_OF)
    }
}

pub(super) async fn run(context: &Context, arguments: LogArguments) -> anyhow::Result<Done> {
    let filter = arguments.filter()?;
    let repository = context.repository().await?;
    let branches = repository.branches().await?;
    let newest = branches.last().map_or(BranchNumber(1), |last| last.branch);
    let branch = arguments.branch.map_or(newest, BranchNumber);
    let history = repository.history_among(&branches, branch).await?;
    let named = arguments.last.map(|last| last as usize);
    let search = Search::new(repository.clone(), history, filter.clone(), named);
    let mut log = Log {
        context,
        repository,
        filter,
        search,
        page: Page::new(context, !arguments.rows),
        offer: Offer::new(context, (branch != newest).then_some(branch)),
        found: 0,
        is_cut: false,
    };
    if arguments.rows {
        log.rows(&arguments).await?;
    } else {
        log.list(&arguments).await?;
    }
    Ok(log.end())
}

/// A run.
struct Log<'a> {
    context: &'a Context,
    repository: Repository,
    filter: Filter,
    search: Search,
    page: Page,
    offer: Offer,
    found: u64,
    /// Whether there may be more than was asked for.
    is_cut: bool,
}

impl Log<'_> {
    /// Shows what is found, as it is found.
    async fn list(&mut self, arguments: &LogArguments) -> anyhow::Result<()> {
        if let Some(last) = arguments.last {
            let places = self.newest(last as usize).await?;
            self.show(&places);
            return Ok(());
        }
        let mut left = arguments.limit.map_or(u64::MAX, u64::from);
        while let Some(batch) = self.search.next().await? {
            let mut places = self.settle(batch).await?;
            if (places.len() as u64) >= left {
                places.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                self.is_cut = true;
            }
            left -= places.len() as u64;
            if !self.show(&places) || left == 0 {
                self.is_cut = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Shows the rows of what is found, if that is not too much.
    async fn rows(&mut self, arguments: &LogArguments) -> anyhow::Result<()> {
        let most = arguments.rows_of() as usize;
        let mut places = Vec::new();
        if let Some(last) = arguments.last {
            places = self.newest(last as usize).await?;
        } else {
            while let Some(batch) = self.search.next().await? {
                places.extend(self.settle(batch).await?);
                if let Some(limit) = arguments.limit
                    && places.len() >= limit as usize
                {
                    places.truncate(limit as usize);
                    self.is_cut = true;
                    break;
                }
                if places.len() > most {
                    break;
                }
            }
        }
        if places.len() > most {
            return Err(UsageError::new(
                format!("more than {most} transactions fit, and --rows reads all data of each"),
                "--gtid with one of them, --last 1, or --max-transactions with as many as you want",
            )
            .into());
        }
        let limits = rows::Limits::new(arguments.full);
        self.found += places.len() as u64;
        for (_, transaction) in &places {
            self.offer.take(transaction);
        }
        let run = rows::RowsOf {
            repository: &self.repository,
            history: self.search.history(),
            filter: &self.filter,
            limits,
        };
        run.show(self.context, &mut self.page, &places).await
    }

    /// The newest that are looked for, in their order.
    async fn newest(&mut self, wanted: usize) -> anyhow::Result<Vec<Place>> {
        let mut kept: VecDeque<Place> = VecDeque::new();
        while kept.len() < wanted {
            let Some(batch) = self.search.next().await? else {
                break;
            };
            for place in self.settle(batch).await?.into_iter().rev() {
                if kept.len() < wanted {
                    kept.push_front(place);
                }
            }
        }
        self.is_cut = kept.len() >= wanted;
        Ok(kept.into())
    }

    /// Shows transactions; `false` if nobody reads any more.
    fn show(&mut self, places: &[Place]) -> bool {
        let mut text = String::new();
        let is_open = self.filter.is_open() && !self.is_cut;
        for (member, transaction) in places {
            self.found += 1;
            self.offer.take(transaction);
            self.page.transaction(
                self.search.history(),
                member,
                transaction,
                is_open,
                &mut text,
            );
        }
        render::say_lines(&text)
    }

    /// The finds of a batch, once those have been looked into whose lines do not tell.
    async fn settle(&self, batch: Batch) -> anyhow::Result<Vec<Place>> {
        let mut unclear = GtidSet::new();
        for found in batch.found.iter().filter(|found| found.is_unclear) {
            unclear.insert(&found.transaction.gtid);
        }
        let counted = match unclear.is_empty() {
            true => std::collections::BTreeMap::new(),
            false => recount::summaries(&self.repository, self.search.history(), unclear).await?,
        };
        let mut places = Vec::with_capacity(batch.found.len());
        for found in batch.found {
            let mut transaction = found.transaction;
            if found.is_unclear
                && let Some(summary) = counted.get(&transaction.gtid)
            {
                transaction.summary = summary.clone();
                if self.filter.verdict(&transaction) == Verdict::No {
                    continue;
                }
            }
            places.push((Arc::clone(&batch.member), transaction));
        }
        Ok(places)
    }

    /// Tells where knowledge ends, what is missing, and what to do next.
    fn end(self) -> Done {
        let history = self.search.history();
        if !self.context.quiet {
            for line in span::footer(history, &self.filter, self.found, self.is_cut) {
                render::talk(&line);
            }
        }
        let mut class = None;
        for gap in span::gaps_within(history, &self.filter) {
            if self.page.showed(gap) {
                continue;
            }
            if self.context.json && self.filter.is_open() && !self.is_cut {
                render::say_lines(&show::gap_line(gap));
            }
            render::talk(&format!("warning: no segment holds {gap}"));
        }
        for problem in &history.problems {
            render::talk(&format!("warning: {problem}"));
            class = class.max(Some(match problem {
                Problem::MissingSegments { .. } | Problem::Gap { .. } => Class::Gap,
                _ => Class::Integrity,
            }));
        }
        for damage in self.search.damage() {
            render::talk(&format!(
                "warning: {}; not shown: {} of it, {:#}",
                with_causes(&damage.error),
                render::plural(damage.member.transactions, "transaction"),
                damage.member.added
            ));
            class = Some(Class::Integrity);
        }
        if !self.context.json && !self.context.quiet {
            for line in self.offer.lines(&self.repository, self.found) {
                render::talk(&line);
            }
        }
        class.map_or(Done::Fine, Done::With)
    }
}
