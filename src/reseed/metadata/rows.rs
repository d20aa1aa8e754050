//! Reading the rows of the metadata, whatever columns its version has.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;

use super::SCHEMA;
use super::facts::{
    Cluster, ClusterSet, ClusterType, Instance, Metadata, Object, Router, SchemaVersion, table,
};

/// What every layout of version 2 has, and a repair cannot do without.
pub(super) const REQUIRED: [(&str, &str); 12] = [
    ("clusters", "cluster_id"),
    ("clusters", "cluster_name"),
    ("clusters", "attributes"),
    ("clusters", "cluster_type"),
    ("instances", "instance_id"),
    ("instances", "cluster_id"),
    ("instances", "address"),
    ("instances", "mysql_server_uuid"),
    ("instances", "instance_name"),
    ("instances", "addresses"),
    ("instances", "attributes"),
    ("routers", "router_id"),
];

/// One field of a row, as text.
type Field = Option<String>;
type Columns = BTreeMap<String, BTreeSet<String>>;

/// [`Metadata::load`].
pub(super) async fn load(session: &mut Session) -> Result<Option<Metadata>, MysqlError> {
    let found: Vec<(String, String)> = session
        .query(format!(
            "SELECT TABLE_NAME AS t, COLUMN_NAME AS c FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = {}",
            quote::string(SCHEMA)
        ))
        .await?;
    let mut columns = Columns::new();
    for (table, column) in found {
        columns
            .entry(table.to_lowercase())
            .or_default()
            .insert(column.to_lowercase());
    }
    if columns.is_empty() {
        return Ok(None);
    }
    let version = version(session, &columns).await?;
    let mut metadata = Metadata {
        version,
        columns,
        clusters: Vec::new(),
        instances: Vec::new(),
        routers: Vec::new(),
        cluster_sets: Vec::new(),
    };
    if metadata.check_layout().is_ok() {
        let mut reader = Reader {
            session,
            columns: &metadata.columns,
        };
        let clusters = reader.clusters().await?;
        let instances = reader.instances().await?;
        let routers = reader.routers().await?;
        let cluster_sets = reader.cluster_sets().await?;
        metadata = Metadata {
            clusters,
            instances,
            routers,
            cluster_sets,
            ..metadata
        };
    }
    Ok(Some(metadata))
}

/// 2.0 and later have a view with three columns; the first layout had two of them.
async fn version(
    session: &mut Session,
    columns: &Columns,
) -> Result<Option<SchemaVersion>, MysqlError> {
    let Some(own) = columns.get("schema_version") else {
        return Ok(None);
    };
    if !own.contains("major") || !own.contains("minor") {
        return Ok(None);
    }
    let patch = if own.contains("patch") { "patch" } else { "0" };
    let row: Option<(u32, u32, u32)> = session
        .query_first(format!(
            "SELECT major, minor, {patch} FROM {}",
            table("schema_version")
        ))
        .await?;
    Ok(row.map(|(major, minor, patch)| SchemaVersion(major, minor, patch)))
}

struct Reader<'a> {
    session: &'a mut Session,
    columns: &'a Columns,
}

impl Reader<'_> {
    async fn clusters(&mut self) -> Result<Vec<Cluster>, MysqlError> {
        let rows = self
            .rows::<7>(
                "clusters",
                "cluster_id",
                [
                    "cluster_id",
                    "cluster_name",
                    "cluster_type",
                    "primary_mode",
                    "attributes",
                    "router_options",
                    "clusterset_id",
                ],
            )
            .await?;
        rows.into_iter()
            .map(|[id, name, kind, primary_mode, attributes, options, set]| {
                Ok(Cluster {
                    id: id.unwrap_or_default(),
                    name: name.unwrap_or_default(),
                    cluster_type: match kind.as_deref() {
                        Some("gr") => ClusterType::Group,
                        Some("ar") => ClusterType::ReplicaSet,
                        other => {
                            return Err(self.odd(format!("a cluster is of the type {other:?}")));
                        }
                    },
                    primary_mode,
                    attributes: self.object(attributes)?.unwrap_or_default(),
                    router_options: self.object(options)?,
                    cluster_set: set,
                })
            })
            .collect()
    }

    async fn instances(&mut self) -> Result<Vec<Instance>, MysqlError> {
        let rows = self
            .rows::<7>(
                "instances",
                "instance_id",
                [
                    "instance_id",
                    "cluster_id",
                    "address",
                    "mysql_server_uuid",
                    "instance_name",
                    "addresses",
                    "attributes",
                ],
            )
            .await?;
        rows.into_iter()
            .map(
                |[id, cluster, address, uuid, name, addresses, attributes]| {
                    Ok(Instance {
                        id: self.number(id)?,
                        cluster: cluster.unwrap_or_default(),
                        address,
                        server_uuid: uuid.unwrap_or_default(),
                        name: name.unwrap_or_default(),
                        addresses: self.object(addresses)?.unwrap_or_default(),
                        attributes: self.object(attributes)?.unwrap_or_default(),
                    })
                },
            )
            .collect()
    }

    async fn routers(&mut self) -> Result<Vec<Router>, MysqlError> {
        let rows = self
            .rows::<8>(
                "routers",
                "router_id",
                [
                    "router_id",
                    "router_name",
                    "address",
                    "version",
                    "attributes",
                    "options",
                    "cluster_id",
                    "clusterset_id",
                ],
            )
            .await?;
        rows.into_iter()
            .map(
                |[id, name, host, version, attributes, options, cluster, set]| {
                    Ok(Router {
                        id: self.number(id)?,
                        name: name.unwrap_or_default(),
                        host,
                        version,
                        attributes: self.object(attributes)?.unwrap_or_default(),
                        options: self.object(options)?,
                        cluster,
                        cluster_set: set,
                    })
                },
            )
            .collect()
    }

    async fn cluster_sets(&mut self) -> Result<Vec<ClusterSet>, MysqlError> {
        if !self.columns.contains_key("clustersets") {
            return Ok(Vec::new());
        }
        let rows = self
            .rows::<3>(
                "clustersets",
                "clusterset_id",
                ["clusterset_id", "domain_name", "router_options"],
            )
            .await?;
        // In the order of the views, so that the newest one is what remains.
        let primaries: BTreeMap<String, String> = if self.columns.contains_key("clusterset_members")
        {
            self.session
                .query::<(String, String)>(format!(
                    "SELECT clusterset_id, cluster_id FROM {} WHERE primary_cluster ORDER BY view_id",
                    table("clusterset_members")
                ))
                .await?
                .into_iter()
                .collect()
        } else {
            BTreeMap::new()
        };
        rows.into_iter()
            .map(|[id, domain, options]| {
                let id = id.unwrap_or_default();
                Ok(ClusterSet {
                    primary: primaries.get(&id).cloned(),
                    id,
                    domain: domain.unwrap_or_default(),
                    router_options: self.object(options)?,
                })
            })
            .collect()
    }

    /// The rows of a table as text, NULL for a column that this version does not have.
    async fn rows<const N: usize>(
        &mut self,
        name: &str,
        order: &str,
        wanted: [&str; N],
    ) -> Result<Vec<[Field; N]>, MysqlError> {
        let own = self.columns.get(name);
        let fields: Vec<String> = wanted
            .iter()
            .map(|column| match own {
                Some(own) if own.contains(*column) => {
                    format!("CAST({} AS CHAR)", quote::identifier(column))
                }
                _ => "NULL".to_owned(),
            })
            .collect();
        let found: Vec<mysql_async::Row> = self
            .session
            .query(format!(
                "SELECT {} FROM {} ORDER BY {order}",
                fields.join(", "),
                table(name)
            ))
            .await?;
        Ok(found
            .into_iter()
            .map(|mut row| {
                std::array::from_fn(|at| {
                    row.take_opt::<Field, _>(at).and_then(Result::ok).flatten()
                })
            })
            .collect())
    }

    fn number(&self, field: Field) -> Result<u32, MysqlError> {
        let text = field.unwrap_or_default();
        text.parse()
            .map_err(|_| self.odd(format!("{text:?} is no number of a row")))
    }

    fn object(&self, field: Field) -> Result<Option<Object>, MysqlError> {
        match field.as_deref().map(serde_json::from_str) {
            None | Some(Ok(Value::Null)) => Ok(None),
            Some(Ok(Value::Object(object))) => Ok(Some(object)),
            Some(_) => Err(self.odd("a field that always holds a JSON object does not".to_owned())),
        }
    }

    fn odd(&self, reason: String) -> MysqlError {
        MysqlError::Protocol { reason }
            .of(format!("schema {SCHEMA}"))
            .at(self.session.address())
    }
}
