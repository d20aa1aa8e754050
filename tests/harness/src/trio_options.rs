//! What a test may ask of a group.

use uuid::Uuid;

use crate::server_options::ServerOptions;

/// What the members of a group talk with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// XCom on a port of its own: the default, and works with every 8.0.
    XCom,
    /// MySQL's own protocol on the server's port (8.0.27 and later).
    MySql,
}

/// How a [`Trio`](crate::Trio) is set up.
#[derive(Debug, Clone)]
pub struct TrioOptions {
    pub(crate) group_name: String,
    pub(crate) stack: Stack,
    pub(crate) expel_timeout: u32,
    pub(crate) lines: Vec<String>,
}

impl Default for TrioOptions {
    fn default() -> Self {
        Self {
            group_name: Uuid::new_v4().to_string(),
            stack: Stack::XCom,
            expel_timeout: 0,
            lines: Vec::new(),
        }
    }
}

impl TrioOptions {
    /// XCom, a new group name, and members expelled as soon as they are suspected (which takes five seconds).
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the group's name, a UUID.
    #[must_use]
    pub fn group_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.group_name);
        self
    }

    /// Sets the communication stack.
    #[must_use]
    pub fn stack(mut self, stack: Stack) -> Self {
        self.stack = stack;
        self
    }

    /// Sets group_replication_member_expel_timeout, in seconds.
    #[must_use]
    pub fn expel_timeout(mut self, seconds: u32) -> Self {
        self.expel_timeout = seconds;
        self
    }

    /// Adds a line to each member's my.cnf.
    #[must_use]
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// The options of one member; it does not join by itself at its first start, but at every later one.
    pub(crate) fn member(&self) -> ServerOptions {
        let stack = match self.stack {
            Stack::XCom => "XCOM",
            Stack::MySql => "MYSQL",
        };
        let mut options = ServerOptions::new()
            .line("plugin_load_add=group_replication.so;mysql_clone.so")
            .line(format!("group_replication_group_name={}", self.group_name))
            .line(format!("loose-group_replication_communication_stack={stack}"))
            .line(format!("group_replication_member_expel_timeout={}", self.expel_timeout))
            .line("group_replication_start_on_boot=ON")
            .line("group_replication_single_primary_mode=ON")
            .line("group_replication_recovery_get_public_key=ON")
            .line("group_replication_recovery_reconnect_interval=1")
            .line("group_replication_autorejoin_tries=20")
            .line("group_replication_message_cache_size=134217728")
            .account(
                "group_recovery",
                "group-for-tests",
                &["REPLICATION SLAVE, BACKUP_ADMIN, CONNECTION_ADMIN, GROUP_REPLICATION_STREAM ON *.*"],
            )
            .first_args(&["--group-replication-start-on-boot=OFF"]);
        for line in &self.lines {
            options = options.line(line.clone());
        }
        options
    }
}
