//! Repairs of made-up metadata.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::*;
use crate::mysql::server_url::HostPort;

const OLD: &str = "00000000-0000-4000-8000-00000000000a";
const NEW: &str = "00000000-0000-4000-8000-00000000000b";

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else {
        panic!("{value} is no object");
    };
    object
}

fn uuid(number: u32) -> Uuid {
    format!("00000000-0000-4000-8000-{number:012}")
        .parse()
        .expect("a UUID")
}

fn instance(id: u32, number: u32) -> Instance {
    let address = format!("db{number}:3306");
    Instance {
        id,
        cluster: "c1".to_owned(),
        address: Some(address.clone()),
        server_uuid: uuid(number).to_string(),
        name: address.clone(),
        addresses: object(json!({
            "mysqlClassic": address,
            "mysqlX": format!("db{number}:33060"),
            "grLocal": format!("db{number}:33061"),
        })),
        attributes: object(json!({ "server_id": number, "joinTime": "2026-01-01 00:00:00" })),
    }
}

fn cluster(id: &str, name: &str, group: &str) -> Cluster {
    Cluster {
        id: id.to_owned(),
        name: name.to_owned(),
        cluster_type: ClusterType::Group,
        primary_mode: Some("pm".to_owned()),
        attributes: object(json!({ "adopted": 0, "group_replication_group_name": group })),
        router_options: None,
        cluster_set: None,
    }
}

/// Three servers `db1` to `db3` in rows 11 to 13.
fn metadata() -> Metadata {
    let columns = [
        (
            "clusters",
            "cluster_id cluster_name attributes cluster_type primary_mode router_options clusterset_id",
        ),
        (
            "instances",
            "instance_id cluster_id address mysql_server_uuid instance_name addresses attributes",
        ),
        (
            "routers",
            "router_id router_name address attributes options cluster_id clusterset_id",
        ),
        ("clustersets", "clusterset_id domain_name router_options"),
        ("clusterset_views", "clusterset_id view_id"),
        (
            "clusterset_members",
            "clusterset_id view_id cluster_id primary_cluster",
        ),
    ];
    Metadata {
        version: Some(SchemaVersion(2, 2, 0)),
        columns: columns
            .into_iter()
            .map(|(table, columns)| {
                let columns = columns.split(' ').map(str::to_owned).collect();
                (table.to_owned(), columns)
            })
            .collect::<BTreeMap<String, BTreeSet<String>>>(),
        clusters: vec![cluster("c1", "shop", OLD)],
        instances: vec![instance(11, 1), instance(12, 2), instance(13, 3)],
        routers: vec![],
        cluster_sets: vec![],
    }
}

fn member(number: u32) -> NewMember {
    NewMember {
        address: HostPort::new(format!("db{number}"), 3306),
        server_uuid: uuid(number),
        server_id: number,
        x_port: Some(33060),
        local_address: format!("db{number}:33061"),
    }
}

fn group(name: &str, members: Vec<NewMember>) -> NewGroup {
    NewGroup {
        name: name.parse().expect("a UUID"),
        members,
        recovery_account: None,
        view_change_uuid: None,
    }
}

fn trio(name: &str) -> NewGroup {
    group(name, vec![member(1), member(2), member(3)])
}

fn compute(metadata: &Metadata, group: &NewGroup) -> Repair {
    Repair::compute(metadata, group, Change::Formed, None).expect("it can be repaired")
}

#[test]
fn what_matches_needs_nothing() {
    let repair = compute(&metadata(), &trio(OLD));
    assert!(repair.is_empty() && repair.transaction().is_empty());
    assert!(repair.changes.is_empty() && repair.notes.is_empty());
}

#[test]
fn another_group_name_is_one_statement_and_a_word_about_the_routers() {
    let mut metadata = metadata();
    metadata.routers.push(Router {
        id: 4,
        name: "front".to_owned(),
        host: Some("app1".to_owned()),
        version: None,
        attributes: object(json!({ "RWEndpoint": "6446" })),
        options: None,
        cluster: Some("c1".to_owned()),
        cluster_set: None,
    });
    let repair = compute(&metadata, &trio(NEW));
    assert_eq!(
        repair.transaction(),
        [
            "START TRANSACTION",
            &format!(
                "UPDATE mysql_innodb_cluster_metadata.clusters SET attributes = \
                 JSON_SET(IFNULL(attributes, JSON_OBJECT()), '$.group_replication_group_name', '{NEW}') \
                 WHERE cluster_id = 'c1'"
            ),
            "COMMIT"
        ]
    );
    let notes: Vec<String> = repair.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "the Router front on app1 (writes on port 6446) knows only the old group and lets nobody through: stop it, \
             run `mysqlrouter --bootstrap` there again with --force and its --directory and --name, and start it"
        ]
    );
}

#[test]
fn rows_are_found_by_uuid_then_by_address() {
    // db2 is a fresh server, the one that was db3 has moved to where db1 was, and that one is gone.
    let moved = NewMember {
        address: HostPort::new("db1", 3306),
        local_address: "db1:33061".to_owned(),
        ..member(3)
    };
    let fresh = NewMember {
        server_uuid: uuid(9),
        x_port: None,
        ..member(2)
    };
    let repair = compute(&metadata(), &group(OLD, vec![fresh, moved, member(4)]));
    let instances = "mysql_innodb_cluster_metadata.instances";
    assert_eq!(
        repair.statements,
        [
            format!("DELETE FROM {instances} WHERE instance_id = 11 AND cluster_id = 'c1'"),
            format!(
                "UPDATE {instances} SET mysql_server_uuid = '{}', \
                 addresses = JSON_REMOVE(IFNULL(addresses, JSON_OBJECT()), '$.mysqlX'), \
                 attributes = JSON_REMOVE(IFNULL(attributes, JSON_OBJECT()), '$.joinTime') \
                 WHERE instance_id = 12 AND cluster_id = 'c1'",
                uuid(9)
            ),
            format!(
                "UPDATE {instances} SET address = 'db1:3306', instance_name = 'db1:3306', \
                 addresses = JSON_SET(IFNULL(addresses, JSON_OBJECT()), '$.mysqlClassic', 'db1:3306', \
                 '$.mysqlX', 'db1:33060', '$.grLocal', 'db1:33061') \
                 WHERE instance_id = 13 AND cluster_id = 'c1'"
            ),
            format!(
                "INSERT INTO {instances} (cluster_id, address, mysql_server_uuid, instance_name, addresses, attributes) \
                 VALUES ('c1', 'db4:3306', '{}', 'db4:3306', \
                 JSON_OBJECT('mysqlClassic', 'db4:3306', 'grLocal', 'db4:33061', 'mysqlX', 'db4:33060'), \
                 JSON_OBJECT('server_id', 4))",
                uuid(4)
            ),
        ]
    );
    assert_eq!(
        repair.changes,
        [
            "db1:3306 is no member any more",
            "db2:3306 is another server than before",
            "db1:3306 instead of db3:3306",
            "db4:3306 is a new member",
        ]
    );
}

#[test]
fn a_name_that_an_operator_gave_stays_and_the_account_is_written_down() {
    let mut metadata = metadata();
    metadata.instances.truncate(1);
    metadata.instances[0].name = "first".to_owned();
    let mut moved = member(1);
    moved.address.port = 3307;
    let mut group = group(OLD, vec![moved]);
    group.recovery_account = Some(RecoveryAccount {
        user: "o'neil".to_owned(),
        host: "10.%".to_owned(),
    });
    let repair = compute(&metadata, &group);
    let [statement] = repair.statements.as_slice() else {
        panic!("{:?}", repair.statements);
    };
    assert!(!statement.contains("instance_name"), "{statement}");
    assert!(
        statement.contains("'$.recoveryAccountUser', 'o''neil', '$.recoveryAccountHost', '10.%'"),
        "{statement}"
    );
}

#[test]
fn only_the_attributes_that_are_there_are_kept_up() {
    let mut metadata = metadata();
    let attributes = &mut metadata.clusters[0].attributes;
    attributes.insert("group_replication_group_seeds".to_owned(), "db1:1".into());
    attributes.insert("group_replication_view_change_uuid".to_owned(), OLD.into());
    metadata.clusters[0].primary_mode = Some("mm".to_owned());
    let text = compute(&metadata, &trio(OLD)).statements.join("\n");
    assert!(text.contains("'db1:33061,db2:33061,db3:33061'"), "{text}");
    assert!(
        text.contains("'$.group_replication_view_change_uuid')"),
        "{text}"
    );
    assert!(text.contains("primary_mode = 'pm'"), "{text}");
    let mut group = trio(OLD);
    group.view_change_uuid = Some(NEW.parse().expect("a UUID"));
    let text = compute(&metadata, &group).statements.join("\n");
    assert!(
        text.contains(&format!("'$.group_replication_view_change_uuid', '{NEW}'")),
        "{text}"
    );
    let plain = compute(&super::tests::metadata(), &group);
    assert!(plain.is_empty(), "{plain:?}");
}

/// [`metadata`] in a ClusterSet with another cluster, and a read replica.
fn in_cluster_set() -> Metadata {
    let mut metadata = metadata();
    metadata.clusters.push(cluster("c2", "far", OLD));
    for cluster in &mut metadata.clusters {
        cluster.cluster_set = Some("s".to_owned());
    }
    let mut far = instance(21, 21);
    far.cluster = "c2".to_owned();
    let mut replica = instance(14, 8);
    replica.attributes = object(json!({ "instance_type": "read-replica" }));
    metadata.instances.extend([far, replica]);
    metadata.cluster_sets.push(ClusterSet {
        id: "s".to_owned(),
        domain: "world".to_owned(),
        router_options: Some(object(json!({ "target_cluster": "primary", "tags": {} }))),
        primary: Some("c1".to_owned()),
    });
    metadata.routers.push(Router {
        id: 1,
        name: String::new(),
        host: Some("app1".to_owned()),
        version: None,
        attributes: Map::new(),
        options: Some(object(
            json!({ "target_cluster": "far", "stats_updates_frequency": 5 }),
        )),
        cluster: None,
        cluster_set: Some("s".to_owned()),
    });
    metadata
}

#[test]
fn a_group_formed_anew_leaves_its_cluster_set() {
    let repair = compute(&in_cluster_set(), &trio(NEW));
    let schema = "mysql_innodb_cluster_metadata";
    assert_eq!(
        repair.statements,
        [
            format!(
                "UPDATE {schema}.clusters SET router_options = CAST('{{\"tags\":{{}}}}' AS JSON) \
                 WHERE cluster_id = 'c1'"
            ),
            format!("UPDATE {schema}.clusters SET clusterset_id = NULL WHERE cluster_id = 'c1'"),
            format!(
                "UPDATE {schema}.routers SET clusterset_id = NULL, cluster_id = 'c1', \
                 options = JSON_REMOVE(IFNULL(options, JSON_OBJECT()), '$.target_cluster') WHERE router_id = 1"
            ),
            format!("DELETE FROM {schema}.clusterset_members"),
            format!("DELETE FROM {schema}.clusterset_views"),
            format!("DELETE FROM {schema}.clustersets"),
            format!("DELETE FROM {schema}.instances WHERE cluster_id IN ('c2')"),
            format!("DELETE FROM {schema}.clusters WHERE cluster_id IN ('c2')"),
            format!(
                "UPDATE {schema}.clusters SET attributes = JSON_SET(IFNULL(attributes, JSON_OBJECT()), \
                 '$.group_replication_group_name', '{NEW}') WHERE cluster_id = 'c1'"
            ),
            format!("DELETE FROM {schema}.instances WHERE instance_id = 14 AND cluster_id = 'c1'"),
        ]
    );
    let notes: Vec<String> = repair.notes.iter().map(ToString::to_string).collect();
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert_eq!(
        notes[1],
        "the cluster is no longer part of the ClusterSet world; far of it follow another history and must be made \
         anew from this one"
    );
}

#[test]
fn members_that_come_and_go_leave_a_cluster_set_alone() {
    let mut new = trio(OLD);
    new.members[2] = member(4);
    let repair = Repair::compute(&in_cluster_set(), &new, Change::Members, None)
        .expect("it can be repaired");
    assert_eq!(repair.statements.len(), 2, "{:?}", repair.statements);
    assert!(
        repair.statements[0].starts_with("DELETE FROM mysql_innodb_cluster_metadata.instances")
    );
    assert!(
        repair.statements[1].starts_with("INSERT INTO mysql_innodb_cluster_metadata.instances")
    );
    assert!(repair.notes.is_empty(), "{:?}", repair.notes);
}

#[test]
fn the_cluster_is_found_or_it_is_said_that_it_is_not() {
    let strangers = group(NEW, vec![member(31)]);
    let try_it = |metadata: &Metadata, group, name| {
        Repair::compute(metadata, group, Change::Formed, name).map(|repair| repair.cluster)
    };
    let both = in_cluster_set();
    let at_far = group(NEW, vec![member(21)]);
    assert_eq!(try_it(&both, &at_far, None), Ok("far".to_owned()));
    assert_eq!(try_it(&both, &strangers, None), Ok("shop".to_owned()));
    assert_eq!(try_it(&both, &strangers, Some("far")), Ok("far".to_owned()));
    let names = vec!["shop".to_owned(), "far".to_owned()];
    assert_eq!(
        try_it(&both, &strangers, Some("near")),
        Err(MetadataError::NotFound {
            name: "near".to_owned(),
            names: names.clone()
        })
    );
    let mut loose = both;
    loose.cluster_sets.clear();
    assert_eq!(
        try_it(&loose, &strangers, None),
        Err(MetadataError::Ambiguous { names })
    );
    let mut only = metadata();
    assert_eq!(try_it(&only, &strangers, None), Ok("shop".to_owned()));
    only.clusters[0].cluster_type = ClusterType::ReplicaSet;
    assert_eq!(
        try_it(&only, &strangers, None),
        Err(MetadataError::ReplicaSet {
            name: "shop".to_owned()
        })
    );
    only.clusters.clear();
    assert_eq!(
        try_it(&only, &strangers, None),
        Err(MetadataError::NoCluster)
    );
}

#[test]
fn layouts_that_are_not_known_are_refused_and_can_be_dropped() {
    for (version, text) in [
        (Some(SchemaVersion(1, 0, 1)), "version 1.0.1"),
        (Some(SchemaVersion(3, 0, 0)), "version 3.0.0"),
        (Some(SchemaVersion(0, 0, 0)), "upgrade"),
        (None, "no schema_version"),
    ] {
        let metadata = Metadata {
            version,
            clusters: vec![],
            instances: vec![],
            ..metadata()
        };
        let error = Repair::compute(&metadata, &trio(NEW), Change::Formed, None)
            .expect_err(text)
            .to_string();
        assert!(error.contains(text), "{error}");
        let removal = Removal::compute(&metadata, None, Some("it's"));
        assert_eq!(
            removal.statement,
            "DROP SCHEMA mysql_innodb_cluster_metadata"
        );
        assert_eq!(
            removal.adopt,
            r"dba.createCluster('it\'s', {adoptFromGR: true})"
        );
    }
    let mut odd = metadata();
    odd.columns
        .get_mut("instances")
        .expect("it is there")
        .remove("addresses");
    let error = Repair::compute(&odd, &trio(NEW), Change::Formed, None).expect_err("no column");
    assert_eq!(
        error.to_string(),
        "the cluster's metadata has no instances.addresses"
    );
}

#[test]
fn an_older_layout_without_cluster_sets_is_not_asked_for_them() {
    let mut old = metadata();
    old.version = Some(SchemaVersion(2, 0, 0));
    for table in ["clustersets", "clusterset_views", "clusterset_members"] {
        old.columns.remove(table);
    }
    for table in ["clusters", "routers"] {
        let columns = old.columns.get_mut(table).expect("it is there");
        columns.remove("clusterset_id");
    }
    let text = compute(&old, &trio(NEW)).statements.join("\n");
    assert!(!text.contains("clusterset"), "{text}");
    assert!(text.contains(NEW), "{text}");
}

#[test]
fn a_hidden_member_is_told_of_and_accounts_are_named_once() {
    let mut metadata = metadata();
    metadata.instances[1]
        .attributes
        .insert("tags".to_owned(), json!({ "_hidden": true }));
    for instance in &mut metadata.instances {
        let account = json!({ "recoveryAccountUser": "r", "recoveryAccountHost": "%" });
        instance.attributes.extend(object(account));
    }
    let repair = compute(&metadata, &trio(OLD));
    assert_eq!(
        repair.notes,
        [Note::Hidden {
            address: "db2:3306".to_owned()
        }]
    );
    assert_eq!(metadata.recovery_accounts().len(), 1);
}

#[test]
fn what_is_left_of_a_cluster_set_is_removed_where_it_can_be() {
    let left = Leftovers {
        channel: true,
        followed: vec!["g".to_owned()],
        disabled_actions: vec![("a".to_owned(), "E".to_owned())],
    };
    let channel = [
        "STOP REPLICA FOR CHANNEL 'clusterset_replication'",
        "RESET REPLICA ALL FOR CHANNEL 'clusterset_replication'",
    ];
    assert_eq!(left.statements(Place::Secondary), channel);
    assert_eq!(
        left.statements(Place::Primary)[2..],
        [
            "SELECT asynchronous_connection_failover_delete_managed('clusterset_replication', 'g')",
            "SELECT group_replication_enable_member_action('a', 'E')",
        ]
    );
    assert!(Leftovers::default().statements(Place::Primary).is_empty());
}
