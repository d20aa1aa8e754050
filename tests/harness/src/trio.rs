//! A three-member, single-primary Group Replication on loopback.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use mysql_async::prelude::Queryable;

use crate::port::Port;
use crate::server::{Server, connect};
use crate::trio_options::{Stack, TrioOptions};
use crate::wait;

/// How long the group may take for a change of its members.
const GROUP_LIMIT: Duration = Duration::from_secs(180);
/// How long one member may take to say what it sees; a paused one never does.
const VIEW_LIMIT: Duration = Duration::from_secs(3);

/// Three servers of one group. Members rejoin by themselves when they are started again.
#[derive(Debug)]
pub struct Trio {
    members: Vec<Server>,
    xcom_ports: Vec<Port>,
    options: TrioOptions,
}

/// One row of performance_schema.replication_group_members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its server_uuid.
    pub uuid: String,
    /// Its port.
    pub port: u16,
    /// ONLINE, RECOVERING, UNREACHABLE, OFFLINE, ERROR.
    pub state: String,
    /// PRIMARY, SECONDARY, or nothing.
    pub role: String,
}

/// Finds the primary of a group from the URLs of its members; cheap to clone, and free of the group's lifetime.
#[derive(Debug, Clone)]
pub struct PrimaryFinder {
    urls: Vec<String>,
}

impl Trio {
    /// Starts a group with the default options and waits until its three members are ONLINE.
    ///
    /// # Errors
    /// A server does not come up or does not join; with the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(TrioOptions::new()).await
    }

    /// Starts a group.
    ///
    /// # Errors
    /// As [`Trio::start`].
    pub async fn start_with(options: TrioOptions) -> Result<Self> {
        let starts: Vec<_> = (0..3)
            .map(|_| tokio::spawn(Server::start_with(options.member())))
            .collect();
        let mut members = Vec::new();
        for start in starts {
            members.push(start.await??);
        }
        let xcom_ports = match options.stack {
            Stack::XCom => (0..3)
                .map(|_| Port::reserve())
                .collect::<Result<Vec<_>>>()?,
            Stack::MySql => Vec::new(),
        };
        let trio = Self {
            members,
            xcom_ports,
            options,
        };
        trio.configure().await?;
        trio.form(0).await?;
        Ok(trio)
    }

    /// The members, in the order of their start; the first one is the first primary.
    pub fn members(&self) -> &[Server] {
        &self.members
    }

    /// The URLs of all members, of `root`, password included.
    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(Server::url).collect()
    }

    /// The group's name, as it was started.
    pub fn group_name(&self) -> &str {
        &self.options.group_name
    }

    /// What finds the primary, also after failovers.
    pub fn finder(&self) -> PrimaryFinder {
        PrimaryFinder { urls: self.urls() }
    }

    /// The group as its majority sees it.
    ///
    /// # Errors
    /// No reachable member is part of a majority.
    pub async fn view(&self) -> Result<Vec<Member>> {
        self.finder().view().await
    }

    /// The primary, as the majority sees it.
    ///
    /// # Errors
    /// There is none now.
    pub async fn primary(&self) -> Result<&Server> {
        let view = self.view().await?;
        let port = primary_port(&view)?;
        self.members
            .iter()
            .find(|member| member.port() == port)
            .context("the primary is not one of the three")
    }

    /// The ONLINE secondaries.
    ///
    /// # Errors
    /// No reachable member is part of a majority.
    pub async fn secondaries(&self) -> Result<Vec<&Server>> {
        let view = self.view().await?;
        let is_secondary = |server: &&Server| {
            view.iter().any(|member| {
                member.port == server.port() && member.role == "SECONDARY" && member.is_online()
            })
        };
        Ok(self.members.iter().filter(is_secondary).collect())
    }

    /// Waits until exactly `count` members are ONLINE and one of them is the primary.
    ///
    /// # Errors
    /// It is not so within three minutes; with what the group looks like.
    pub async fn wait_online(&self, count: usize) -> Result<()> {
        let what = format!("{count} members online");
        let waited = wait::until(&what, GROUP_LIMIT, async || {
            let view = self.view().await?;
            primary_port(&view)?;
            if view.iter().filter(|member| member.is_online()).count() == count
                && view.len() == count
            {
                return Ok(Some(()));
            }
            bail!("{view:?}")
        });
        match waited.await {
            Ok(()) => Ok(()),
            Err(error) => {
                let logs: Vec<_> = self
                    .members
                    .iter()
                    .map(|member| format!("{}:\n{}", member.address(), member.log_tail()))
                    .collect();
                Err(error.context(logs.join("\n")))
            }
        }
    }

    /// Waits until another member than `old` is the primary, and gives it.
    ///
    /// # Errors
    /// None is within three minutes.
    pub async fn wait_failover(&self, old: &Server) -> Result<&Server> {
        wait::until("a new primary", GROUP_LIMIT, async || {
            let primary = self.primary().await?;
            Ok((primary.port() != old.port()).then_some(primary))
        })
        .await
    }

    /// Makes a member the primary and waits until it is.
    ///
    /// # Errors
    /// The group refuses.
    pub async fn set_primary(&self, member: &Server) -> Result<()> {
        let uuid = member.uuid().await?;
        member
            .query::<String>(&format!(
                "SELECT group_replication_set_as_primary('{uuid}')"
            ))
            .await?;
        wait::until("the change of the primary", GROUP_LIMIT, async || {
            Ok((self.primary().await?.port() == member.port()).then_some(()))
        })
        .await
    }

    /// Starts a killed or stopped member again and waits until it has rejoined, so that `count` members are ONLINE.
    ///
    /// # Errors
    /// It does not come up or does not rejoin.
    pub async fn rejoin(&self, member: &Server, count: usize) -> Result<()> {
        member.start_again().await?;
        self.wait_online(count).await
    }

    /// Stops whatever still runs and starts the whole group again from the member that has executed most.
    ///
    /// # Errors
    /// A server does not come up, or the group does not form.
    pub async fn restart_all(&self) -> Result<()> {
        let [a, b, c] = self.members.as_slice() else {
            bail!("a trio with a server more is not started again as a whole")
        };
        let ended = tokio::join!(end(a), end(b), end(c));
        for ended in [ended.0, ended.1, ended.2] {
            ended?;
        }
        let args = ["--group-replication-start-on-boot=OFF"];
        let started = tokio::join!(
            a.start_again_with(&args),
            b.start_again_with(&args),
            c.start_again_with(&args)
        );
        for started in [started.0, started.1, started.2] {
            started?;
        }
        let mut best = 0;
        let mut best_set = self.members[0].gtid_executed().await?;
        for (index, member) in self.members.iter().enumerate().skip(1) {
            let set = member.gtid_executed().await?;
            if member
                .one::<bool>(&format!("SELECT GTID_SUBSET('{best_set}', '{set}')"))
                .await?
            {
                (best, best_set) = (index, set);
            }
        }
        self.form(best).await
    }

    /// Starts a further server with the members' settings, which is no member yet: what replaces one that is lost.
    ///
    /// It comes last in [`Trio::members`], and joins by START GROUP_REPLICATION.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn add_server(&mut self) -> Result<()> {
        self.members
            .push(Server::start_with(self.options.member()).await?);
        if self.options.stack == Stack::XCom {
            self.xcom_ports.push(Port::reserve()?);
        }
        self.configure().await
    }

    async fn configure(&self) -> Result<()> {
        let ports: Vec<u16> = match self.options.stack {
            Stack::XCom => self.xcom_ports.iter().map(Port::number).collect(),
            Stack::MySql => self.members.iter().map(Server::port).collect(),
        };
        let seeds: Vec<_> = ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        for (member, local) in self.members.iter().zip(&seeds) {
            let mut conn = member.conn().await?;
            conn.query_drop(format!(
                "SET PERSIST group_replication_local_address='{local}'"
            ))
            .await?;
            conn.query_drop(format!(
                "SET PERSIST group_replication_group_seeds='{}'",
                seeds.join(",")
            ))
            .await?;
            conn.query_drop(
                "CHANGE REPLICATION SOURCE TO SOURCE_USER='group_recovery', SOURCE_PASSWORD='group-for-tests' \
                 FOR CHANNEL 'group_replication_recovery'",
            )
            .await?;
            conn.disconnect().await?;
        }
        Ok(())
    }

    /// Bootstraps the group on one member and lets the others join it.
    async fn form(&self, first: usize) -> Result<()> {
        let mut conn = self.members[first].conn().await?;
        conn.query_drop("SET GLOBAL group_replication_bootstrap_group=ON")
            .await?;
        let started = conn.query_drop("START GROUP_REPLICATION").await;
        conn.query_drop("SET GLOBAL group_replication_bootstrap_group=OFF")
            .await?;
        started.with_context(|| {
            format!(
                "START GROUP_REPLICATION:\n{}",
                self.members[first].log_tail()
            )
        })?;
        conn.disconnect().await?;
        // One after the other: two that join at once may find each other rather than the group, and wait.
        for (index, member) in self.members.iter().enumerate() {
            if index != first {
                member
                    .exec("START GROUP_REPLICATION")
                    .await
                    .with_context(|| member.log_tail())?;
            }
        }
        self.wait_online(self.members.len()).await
    }
}

impl Member {
    /// Whether it is ONLINE.
    pub fn is_online(&self) -> bool {
        self.state == "ONLINE"
    }
}

impl PrimaryFinder {
    /// The URL of the primary, as the majority sees it.
    ///
    /// # Errors
    /// There is none now.
    pub async fn primary_url(&self) -> Result<String> {
        let view = self.view().await?;
        let suffix = format!(":{}", primary_port(&view)?);
        self.urls
            .iter()
            .find(|url| url.ends_with(&suffix))
            .cloned()
            .context("the primary is none of those asked")
    }

    /// The group as its majority sees it.
    ///
    /// # Errors
    /// No reachable member is part of a majority.
    pub async fn view(&self) -> Result<Vec<Member>> {
        let asked: Vec<_> = self
            .urls
            .iter()
            .map(|url| {
                let url = url.clone();
                tokio::spawn(async move { tokio::time::timeout(VIEW_LIMIT, view_of(&url)).await })
            })
            .collect();
        let mut found = None;
        let mut seen = Vec::new();
        for answer in asked {
            match answer.await? {
                // A member on the losing side of a partition sees the others UNREACHABLE: it is not the majority.
                Ok(Ok((own, view))) if has_majority(own, &view) => found = found.or(Some(view)),
                Ok(Ok((own, view))) => seen.push(format!("{own}: {view:?}")),
                Ok(Err(error)) => seen.push(format!("{error:#}")),
                Err(_) => seen.push("no answer".to_owned()),
            }
        }
        found.with_context(|| format!("no member is part of a majority: {}", seen.join("; ")))
    }
}

/// Stops a member if it runs; one without a majority may never end cleanly, and is killed.
async fn end(member: &Server) -> Result<()> {
    if member.pid().is_none() || member.stop().await.is_ok() || member.pid().is_none() {
        return Ok(());
    }
    member.kill9().await
}

fn has_majority(own: u16, view: &[Member]) -> bool {
    let online = view
        .iter()
        .filter(|member| member.state == "ONLINE" || member.state == "RECOVERING")
        .count();
    let own_online = view
        .iter()
        .any(|member| member.port == own && member.is_online());
    own_online && online * 2 > view.len()
}

fn primary_port(view: &[Member]) -> Result<u16> {
    let primary = view
        .iter()
        .find(|member| member.role == "PRIMARY" && member.is_online());
    primary
        .map(|member| member.port)
        .with_context(|| format!("no primary: {view:?}"))
}

async fn view_of(url: &str) -> Result<(u16, Vec<Member>)> {
    let mut conn = connect(url).await?;
    let own = conn
        .query_first("SELECT @@GLOBAL.port")
        .await?
        .context("no port")?;
    let rows: Vec<(String, Option<u16>, String, String)> = conn
        .query(
            "SELECT MEMBER_ID, MEMBER_PORT, MEMBER_STATE, MEMBER_ROLE \
             FROM performance_schema.replication_group_members",
        )
        .await?;
    conn.disconnect().await?;
    let member = |(uuid, port, state, role): (_, Option<u16>, _, _)| Member {
        uuid,
        port: port.unwrap_or(0),
        state,
        role,
    };
    Ok((own, rows.into_iter().map(member).collect()))
}
