//! The metadata of InnoDB Cluster 2.2, laid out by hand.
//!
//! Only MySQL Shell makes it, which Debian does not have. The layout is that of `cluster_metadata/schema.sql`; what proves it
//! is the real Router, which bootstraps itself against it and follows the group by it ([`Router::bootstrap`](crate::Router::bootstrap)).

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, params};

use crate::server::Server;
use crate::trio::Trio;

const SCHEMA: &str = include_str!("cluster_metadata/schema.sql");

/// The id of the cluster.
pub const CLUSTER_ID: &str = "5f0b1c9a-37d2-4a3e-9c55-7d1f00000001";
/// The id of the replica cluster of the ClusterSet.
pub const REPLICA_CLUSTER_ID: &str = "5f0b1c9a-37d2-4a3e-9c55-7d1f00000002";
/// The id of the ClusterSet.
pub const CLUSTER_SET_ID: &str = "5f0b1c9a-37d2-4a3e-9c55-7d1f000000c5";

/// Lays the metadata of a cluster out on a group's primary: its name, its group and its members.
///
/// # Errors
/// A server's; there is no primary.
pub async fn lay_out(trio: &Trio, cluster_name: &str) -> Result<()> {
    let primary = trio.primary().await?;
    let members: Vec<&Server> = trio.members().iter().collect();
    lay_out_on(primary, cluster_name, trio.group_name(), &members).await
}

/// Lays the metadata of a cluster out on one server, whatever that is.
///
/// # Errors
/// A server's.
pub async fn lay_out_on(
    primary: &Server,
    cluster_name: &str,
    group_name: &str,
    members: &[&Server],
) -> Result<()> {
    let mut conn = primary.conn().await?;
    conn.query_drop(SCHEMA)
        .await
        .context("the layout of the metadata")?;
    conn.exec_drop(
        "INSERT INTO mysql_innodb_cluster_metadata.clusters \
         (cluster_id, cluster_name, description, options, attributes, cluster_type, primary_mode, router_options) \
         VALUES (:id, :name, 'Default Cluster', NULL, JSON_OBJECT('adopted', 0, 'default', TRUE, \
         'opt_gtidSetIsComplete', FALSE, 'opt_manualStartOnBoot', FALSE, 'group_replication_group_name', :group), \
         'gr', 'pm', JSON_OBJECT())",
        params! { "id" => CLUSTER_ID, "name" => cluster_name, "group" => group_name },
    )
    .await?;
    for member in members {
        add_instance(&mut conn, CLUSTER_ID, member).await?;
    }
    conn.disconnect().await?;
    Ok(())
}

/// Makes the cluster the primary one of a ClusterSet whose other cluster has gone another way, and gives it a read replica;
/// both are made up of servers that nobody can reach.
///
/// # Errors
/// The server's.
pub async fn add_cluster_set(primary: &Server) -> Result<()> {
    let mut conn = primary.conn().await?;
    conn.query_drop(format!(
        "USE mysql_innodb_cluster_metadata;
         INSERT INTO clustersets VALUES ('{CLUSTER_SET_ID}', 'world', '{{}}', '{{}}',
             '{{\"target_cluster\": \"primary\", \"read_only_targets\": \"all\"}}', 'SINGLE-PRIMARY-STAR');
         INSERT INTO clusters (cluster_id, cluster_name, attributes, cluster_type, clusterset_id)
             VALUES ('{REPLICA_CLUSTER_ID}', 'elsewhere',
             '{{\"group_replication_group_name\": \"5f0b1c9a-37d2-4a3e-9c55-7d1f000000ff\"}}', 'gr', '{CLUSTER_SET_ID}');
         UPDATE clusters SET clusterset_id = '{CLUSTER_SET_ID}', attributes = JSON_SET(attributes,
             '$.replicationAccountUser', 'mysql_innodb_cs_1', '$.replicationAccountHost', '%')
             WHERE cluster_id = '{CLUSTER_ID}';
         INSERT INTO clusterset_views VALUES
             ('{CLUSTER_SET_ID}', 1, 'SINGLE-PRIMARY-TREE', 'CREATE', NOW(6), '{{}}', '{{}}'),
             ('{CLUSTER_SET_ID}', 2, 'SINGLE-PRIMARY-TREE', 'ADD_CLUSTER', NOW(6), '{{}}', '{{}}');
         INSERT INTO clusterset_members VALUES
             ('{CLUSTER_SET_ID}', 1, '{CLUSTER_ID}', NULL, 1, '{{}}'),
             ('{CLUSTER_SET_ID}', 2, '{CLUSTER_ID}', NULL, 1, '{{}}'),
             ('{CLUSTER_SET_ID}', 2, '{REPLICA_CLUSTER_ID}', '{CLUSTER_ID}', 0, '{{}}');
         INSERT INTO instances (cluster_id, address, mysql_server_uuid, instance_name, addresses, attributes) VALUES
             ('{REPLICA_CLUSTER_ID}', 'far.invalid:3306', '5f0b1c9a-37d2-4a3e-9c55-7d1f00000f01', 'far.invalid:3306',
             '{{\"mysqlClassic\": \"far.invalid:3306\"}}', '{{}}'),
             ('{CLUSTER_ID}', 'replica.invalid:3306', '5f0b1c9a-37d2-4a3e-9c55-7d1f00000f02', 'replica.invalid:3306',
             '{{\"mysqlClassic\": \"replica.invalid:3306\"}}', '{{\"instance_type\": \"read-replica\"}}');
         INSERT INTO routers (router_name, product_name, address, attributes, cluster_id, options, clusterset_id) VALUES
             ('front', 'MySQL Router', 'app1', '{{\"RWEndpoint\": \"6446\"}}', '{REPLICA_CLUSTER_ID}',
             '{{\"target_cluster\": \"primary\"}}', '{CLUSTER_SET_ID}')"
    ))
    .await?;
    conn.disconnect().await?;
    Ok(())
}

async fn add_instance(conn: &mut Conn, cluster: &str, member: &Server) -> Result<()> {
    let variables: Vec<(String, String)> = member
        .query(
            "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('mysqlx_port', 'group_replication_local_address')",
        )
        .await?;
    let variable = |name: &str| {
        let found = variables.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.clone())
    };
    let mut addresses = serde_json::json!({ "mysqlClassic": member.address() });
    if let Some(port) = variable("mysqlx_port") {
        addresses["mysqlX"] = format!("127.0.0.1:{port}").into();
    }
    if let Some(local) = variable("group_replication_local_address") {
        addresses["grLocal"] = local.into();
    }
    conn.exec_drop(
        "INSERT INTO mysql_innodb_cluster_metadata.instances \
         (cluster_id, address, mysql_server_uuid, instance_name, addresses, attributes) \
         VALUES (:cluster, :address, :uuid, :address, :addresses, JSON_OBJECT('server_id', :server_id, \
         'recoveryAccountUser', 'group_recovery', 'recoveryAccountHost', '%'))",
        params! {
            "cluster" => cluster,
            "address" => member.address(),
            "uuid" => member.uuid().await?,
            "addresses" => addresses.to_string(),
            "server_id" => member.server_id(),
        },
    )
    .await?;
    Ok(())
}
