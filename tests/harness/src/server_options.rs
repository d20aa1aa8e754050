//! What a test may ask of a server.

use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// The password of `root`, on every server of the harness.
pub const ROOT_PASSWORD: &str = "root-for-tests";

/// An account beside root.
#[derive(Debug, Clone)]
pub struct Account {
    /// The user's name, at host `%`.
    pub user: String,
    /// The password, for caching_sha2_password.
    pub password: String,
    /// What to grant, such as `SELECT ON *.*`.
    pub grants: Vec<String>,
}

/// How a [`Server`](crate::Server) is configured: small, quick to start, and otherwise as a production server with GTIDs.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    pub(crate) server_id: u32,
    pub(crate) lines: Vec<String>,
    pub(crate) accounts: Vec<Account>,
    pub(crate) supervised: bool,
    pub(crate) first_args: Vec<String>,
    pub(crate) keyring: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        static NEXT_ID: AtomicU32 = AtomicU32::new(101);
        Self {
            server_id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            lines: Vec::new(),
            accounts: Vec::new(),
            supervised: true,
            first_args: Vec::new(),
            keyring: false,
        }
    }
}

impl ServerOptions {
    /// The defaults, with a server_id that no other server of this process has.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets server_id.
    #[must_use]
    pub fn server_id(mut self, id: u32) -> Self {
        self.server_id = id;
        self
    }

    /// Adds a line to `[mysqld]` of my.cnf; a later line overrides an earlier one and the harness's own.
    #[must_use]
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Adds an account, made without a binlog entry; each grant is such as `SELECT ON *.*`.
    #[must_use]
    pub fn account(mut self, user: &str, password: &str, grants: &[&str]) -> Self {
        self.accounts.push(Account {
            user: user.to_owned(),
            password: password.to_owned(),
            grants: grants.iter().map(|grant| (*grant).to_owned()).collect(),
        });
        self
    }

    /// Whether the server's own RESTART, and the restart after a clone, find a supervisor (they do by default).
    #[must_use]
    pub fn supervised(mut self, supervised: bool) -> Self {
        self.supervised = supervised;
        self
    }

    /// Gives it a keyring of its own, and encrypts its binlog on disk.
    #[must_use]
    pub fn encrypted_binlog(mut self) -> Self {
        self.keyring = true;
        self.line("binlog_encryption=ON")
    }

    /// Arguments for the first start only.
    pub(crate) fn first_args(mut self, args: &[&str]) -> Self {
        self.first_args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self
    }

    /// The text of my.cnf.
    pub(crate) fn my_cnf(&self, folder: &Path, port: u16) -> String {
        let mut text = String::from("[mysqld]\n");
        let folder = folder.display();
        if rustix::process::geteuid().is_root() {
            text.push_str("user=root\n");
        }
        write!(
            text,
            "datadir={folder}/data\n\
             socket={folder}/s.sock\n\
             pid_file={folder}/pid\n\
             tmpdir={folder}/tmp\n\
             port={port}\n\
             bind_address=127.0.0.1\n\
             report_host=127.0.0.1\n\
             report_port={port}\n\
             server_id={}\n",
            self.server_id
        )
        .expect("writing to a string");
        text.push_str(COMMON);
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// The options of every server. The sizes bring it to less than 300 MB; sync_binlog and the log's format are the defaults,
/// written out because tests lean on them.
const COMMON: &str = "\
mysqlx=OFF
secure_file_priv=NULL
skip_name_resolve=ON
gtid_mode=ON
enforce_gtid_consistency=ON
log_bin=binlog
relay_log=relay
binlog_row_image=FULL
log_replica_updates=ON
sync_binlog=1
local_infile=ON
innodb_buffer_pool_size=64M
innodb_redo_log_capacity=32M
innodb_log_buffer_size=2M
loose-innodb_doublewrite_files=2
innodb_buffer_pool_dump_at_shutdown=OFF
innodb_buffer_pool_load_at_startup=OFF
key_buffer_size=1M
table_open_cache=400
table_definition_cache=600
performance_schema_accounts_size=20
performance_schema_users_size=20
performance_schema_hosts_size=20
performance_schema_max_thread_instances=400
performance_schema_max_table_instances=800
performance_schema_max_table_handles=600
performance_schema_events_statements_history_long_size=100
performance_schema_events_waits_history_long_size=10
performance_schema_events_stages_history_long_size=10
performance_schema_events_transactions_history_long_size=100
performance_schema_digests_size=200
performance_schema_max_digest_length=256
performance_schema_max_sql_text_length=256
performance_schema_error_size=600
";
