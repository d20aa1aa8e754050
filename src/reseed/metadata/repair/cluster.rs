//! The rows of the cluster itself, of the ClusterSet that it was part of, and of its Routers.

use serde_json::Value;

use crate::mysql::quote;

use super::super::facts::Object;
use super::super::note::Note;
use super::json::JsonChange;
use super::{Change, Draft};

/// Routing options that mean something only within a ClusterSet.
const CLUSTER_SET_OPTIONS: [&str; 3] = [
    "target_cluster",
    "invalidated_cluster_policy",
    "use_replica_primary_as_rw",
];

impl Draft<'_> {
    /// A Router knows its cluster by the group's name, or the ClusterSet by its id, and closes its
    /// ports when the metadata has another. Its row stays: it is found by host and name when it is
    /// bootstrapped again.
    pub(super) fn routers(&mut self, change: Change) {
        let renamed = self.cluster.attributes.get("group_replication_group_name")
            != Some(&Value::String(self.group.name.to_string()));
        for router in &self.metadata.routers {
            let of_set = router.cluster_set.is_some() && change == Change::Formed;
            let elsewhere = router
                .cluster
                .as_ref()
                .is_some_and(|cluster| *cluster != self.cluster.id)
                && change == Change::Members;
            if (renamed && !elsewhere) || of_set {
                self.notes.push(Note::BootstrapRouter {
                    router_id: router.id,
                    host: router.host.clone().unwrap_or_default(),
                    name: router.name.clone(),
                    rw_port: router.rw_endpoint().map(str::to_owned),
                });
            }
        }
    }

    /// Makes the cluster one by itself again.
    pub(super) fn leave_cluster_set(&mut self) {
        let own = quote::string(&self.cluster.id);
        if !self.metadata.cluster_sets.is_empty() {
            self.keep_routing_options(&own);
        }
        if self.cluster.cluster_set.is_some() {
            self.update(
                "clusters",
                &["clusterset_id = NULL".to_owned()],
                &format!("cluster_id = {own}"),
            );
        }
        for router in &self.metadata.routers {
            let mut fields = Vec::new();
            if router.cluster_set.is_some() {
                fields.push("clusterset_id = NULL".to_owned());
            }
            if router.cluster.as_deref() != Some(&self.cluster.id)
                && self.metadata.has("routers", "cluster_id")
                && (router.cluster.is_some() || router.cluster_set.is_some())
            {
                fields.push(format!("cluster_id = {own}"));
            }
            if let Some(options) = &router.options {
                let mut change = JsonChange::new("options", options);
                for key in CLUSTER_SET_OPTIONS {
                    change.remove(key);
                }
                fields.extend(change.assignment());
            }
            self.update("routers", &fields, &format!("router_id = {}", router.id));
        }
        if self.metadata.cluster_sets.is_empty() {
            return;
        }
        if self.metadata.has("routing_guidelines", "clusterset_id")
            && self.metadata.has("routing_guidelines", "cluster_id")
        {
            self.update(
                "routing_guidelines",
                &[
                    format!("cluster_id = {own}"),
                    "clusterset_id = NULL".to_owned(),
                ],
                "clusterset_id IS NOT NULL",
            );
        }
        for table in ["clusterset_members", "clusterset_views", "clustersets"] {
            if self.metadata.columns.contains_key(table) {
                self.delete(table, None);
            }
        }
        for set in &self.metadata.cluster_sets {
            let others = self
                .metadata
                .clusters
                .iter()
                .filter(|cluster| {
                    cluster.id != self.cluster.id && cluster.cluster_set.as_deref() == Some(&set.id)
                })
                .map(|cluster| cluster.name.clone())
                .collect();
            self.changes
                .push(format!("the ClusterSet {} is forgotten", set.domain));
            self.notes.push(Note::LeftClusterSet {
                domain: set.domain.clone(),
                others,
            });
        }
    }

    /// What Routers were told for the ClusterSet they go on to be told for the cluster.
    fn keep_routing_options(&mut self, own: &str) {
        if !self.metadata.has("clusters", "router_options") {
            return;
        }
        let old = self.cluster.router_options.clone().unwrap_or_default();
        let mut new = old.clone();
        for set in &self.metadata.cluster_sets {
            let options: Object = set
                .router_options
                .iter()
                .flatten()
                .filter(|(key, _)| !CLUSTER_SET_OPTIONS.contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            new.extend(options);
        }
        if new != old {
            let text = quote::string(&Value::Object(new).to_string());
            self.update(
                "clusters",
                &[format!("router_options = CAST({text} AS JSON)")],
                &format!("cluster_id = {own}"),
            );
        }
    }

    /// Takes out the clusters that follow another history, with all that is of them.
    pub(super) fn forget_other_clusters(&mut self) {
        let others: Vec<_> = self
            .metadata
            .clusters
            .iter()
            .filter(|cluster| cluster.id != self.cluster.id)
            .collect();
        if others.is_empty() {
            return;
        }
        let ids: Vec<String> = others
            .iter()
            .map(|other| quote::string(&other.id))
            .collect();
        let which = format!("cluster_id IN ({})", ids.join(", "));
        for table in [
            "async_cluster_members",
            "async_cluster_views",
            "router_rest_accounts",
            "routing_guidelines",
            "instances",
            "clusters",
        ] {
            if self.metadata.has(table, "cluster_id") {
                self.delete(table, Some(&which));
            }
        }
        for other in others {
            self.change(format!("the cluster {} is forgotten", other.name));
        }
    }

    /// The group's name, and what else the cluster's attributes say of the group.
    pub(super) fn attributes(&mut self) {
        let mut fields = Vec::new();
        let mut change = JsonChange::new("attributes", &self.cluster.attributes);
        let name = self.group.name.to_string();
        let old = self.cluster.attributes.get("group_replication_group_name");
        if change.text("group_replication_group_name", &name) {
            let old = old.and_then(Value::as_str).unwrap_or("none");
            self.changes
                .push(format!("the group's name: {name} instead of {old}"));
        }
        let has = |key| self.cluster.attributes.contains_key(key);
        if has("group_replication_group_seeds") {
            let seeds: Vec<&str> = self
                .group
                .members
                .iter()
                .map(|member| member.local_address.as_str())
                .collect();
            change.text("group_replication_group_seeds", &seeds.join(","));
        }
        match self.group.view_change_uuid {
            Some(uuid) if has("group_replication_view_change_uuid") => {
                change.text("group_replication_view_change_uuid", &uuid.to_string());
            }
            Some(_) => {}
            None => {
                change.remove("group_replication_view_change_uuid");
            }
        }
        if self.cluster.cluster_set.is_none() || self.leaves_cluster_set() {
            // The account of the channel between the clusters.
            change.remove("replicationAccountUser");
            change.remove("replicationAccountHost");
        }
        fields.extend(change.assignment());
        if self.cluster.primary_mode.as_deref() == Some("mm") {
            fields.push("primary_mode = 'pm'".to_owned());
            self.changes
                .push("the group has one primary instead of many".to_owned());
        }
        let own = quote::string(&self.cluster.id);
        self.update("clusters", &fields, &format!("cluster_id = {own}"));
    }

    fn leaves_cluster_set(&self) -> bool {
        self.notes
            .iter()
            .any(|note| matches!(note, Note::LeftClusterSet { .. }))
    }
}
