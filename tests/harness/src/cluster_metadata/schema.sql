-- The layout of mysql_innodb_cluster_metadata 2.2: names and types of its columns are those that MySQL Router asks for and
-- that MySQL Shell documents in its `v2_` views. The procedures by which MySQL Shell changes a ClusterSet are left out.

CREATE DATABASE mysql_innodb_cluster_metadata CHARACTER SET utf8mb4;
USE mysql_innodb_cluster_metadata;

CREATE VIEW schema_version AS SELECT 2 AS major, 2 AS minor, 0 AS patch;

CREATE TABLE clustersets (
    clusterset_id VARCHAR(36) CHARACTER SET ascii COLLATE ascii_general_ci PRIMARY KEY,
    domain_name VARCHAR(63) NOT NULL,
    options JSON,
    attributes JSON,
    router_options JSON,
    topology_type ENUM('SINGLE-PRIMARY-STAR')
);

CREATE TABLE clusters (
    cluster_id CHAR(36) CHARACTER SET ascii COLLATE ascii_general_ci PRIMARY KEY,
    cluster_name VARCHAR(63) NOT NULL UNIQUE,
    description TEXT,
    options JSON,
    attributes JSON,
    cluster_type ENUM('gr', 'ar') NOT NULL,
    primary_mode ENUM('pm', 'mm') NOT NULL DEFAULT 'pm',
    router_options JSON,
    clusterset_id VARCHAR(36) CHARACTER SET ascii COLLATE ascii_general_ci
);

CREATE TABLE instances (
    instance_id INT UNSIGNED AUTO_INCREMENT,
    cluster_id CHAR(36) CHARACTER SET ascii COLLATE ascii_general_ci NOT NULL,
    address VARCHAR(265) CHARACTER SET ascii COLLATE ascii_general_ci,
    mysql_server_uuid CHAR(36) CHARACTER SET ascii COLLATE ascii_general_ci NOT NULL,
    instance_name VARCHAR(265) NOT NULL,
    addresses JSON NOT NULL,
    attributes JSON,
    description TEXT,
    PRIMARY KEY (instance_id, cluster_id),
    FOREIGN KEY (cluster_id) REFERENCES clusters (cluster_id)
);

CREATE TABLE async_cluster_views (
    cluster_id CHAR(36) CHARACTER SET ascii COLLATE ascii_general_ci NOT NULL,
    view_id INT UNSIGNED NOT NULL,
    topology_type ENUM('SINGLE-PRIMARY-TREE'),
    view_change_reason VARCHAR(32) NOT NULL,
    view_change_time TIMESTAMP(6) NOT NULL,
    view_change_info JSON NOT NULL,
    attributes JSON NOT NULL,
    PRIMARY KEY (cluster_id, view_id),
    KEY (view_id),
    FOREIGN KEY (cluster_id) REFERENCES clusters (cluster_id)
);

CREATE TABLE async_cluster_members (
    cluster_id CHAR(36) CHARACTER SET ascii COLLATE ascii_general_ci NOT NULL,
    view_id INT UNSIGNED NOT NULL,
    instance_id INT UNSIGNED NOT NULL,
    master_instance_id INT UNSIGNED,
    primary_master BOOL NOT NULL,
    attributes JSON NOT NULL,
    PRIMARY KEY (cluster_id, view_id, instance_id),
    KEY (view_id),
    KEY (instance_id),
    FOREIGN KEY (cluster_id, view_id) REFERENCES async_cluster_views (cluster_id, view_id)
);

CREATE TABLE clusterset_views (
    clusterset_id VARCHAR(36) CHARACTER SET ascii COLLATE ascii_general_ci NOT NULL,
    view_id BIGINT UNSIGNED NOT NULL,
    topology_type ENUM('SINGLE-PRIMARY-TREE'),
    view_change_reason VARCHAR(32) NOT NULL,
    view_change_time TIMESTAMP(6) NOT NULL,
    view_change_info JSON NOT NULL,
    attributes JSON NOT NULL,
    PRIMARY KEY (clusterset_id, view_id),
    KEY (view_id),
    FOREIGN KEY (clusterset_id) REFERENCES clustersets (clusterset_id)
);

CREATE TABLE clusterset_members (
    clusterset_id VARCHAR(36) CHARACTER SET ascii COLLATE ascii_general_ci NOT NULL,
    view_id BIGINT UNSIGNED NOT NULL,
    cluster_id VARCHAR(36) CHARACTER SET ascii COLLATE ascii_general_ci NOT NULL,
    master_cluster_id VARCHAR(36) CHARACTER SET ascii COLLATE ascii_general_ci,
    primary_cluster BOOL NOT NULL,
    attributes JSON NOT NULL,
    PRIMARY KEY (clusterset_id, view_id, cluster_id),
    KEY (view_id),
    KEY (cluster_id),
    FOREIGN KEY (clusterset_id, view_id) REFERENCES clusterset_views (clusterset_id, view_id)
);

CREATE TABLE routers (
    router_id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
    router_name VARCHAR(265) NOT NULL,
    product_name VARCHAR(128) NOT NULL,
    address VARCHAR(256) CHARACTER SET ascii COLLATE ascii_general_ci,
    version VARCHAR(12),
    last_check_in TIMESTAMP NULL,
    attributes JSON,
    cluster_id CHAR(36) CHARACTER SET ascii COLLATE ascii_general_ci,
    options JSON,
    clusterset_id VARCHAR(36) CHARACTER SET ascii COLLATE ascii_general_ci,
    UNIQUE KEY (address, router_name)
);

CREATE TABLE router_rest_accounts (
    cluster_id CHAR(36) CHARACTER SET ascii COLLATE ascii_general_ci NOT NULL,
    user VARCHAR(256) NOT NULL,
    authentication_method VARCHAR(64) NOT NULL DEFAULT 'modular_crypt_format',
    authentication_string TEXT CHARACTER SET ascii COLLATE ascii_general_ci,
    description VARCHAR(255),
    privileges JSON,
    attributes JSON,
    PRIMARY KEY (cluster_id, user)
);

CREATE SQL SECURITY INVOKER VIEW v2_clusters AS
    SELECT cluster_type, primary_mode, cluster_id, cluster_name, router_options FROM clusters;

CREATE SQL SECURITY INVOKER VIEW v2_gr_clusters AS
    SELECT cluster_type, primary_mode, cluster_id, cluster_name,
           JSON_UNQUOTE(JSON_EXTRACT(attributes, '$.group_replication_group_name')) AS group_name,
           attributes, options, router_options, description, clusterset_id
    FROM clusters WHERE cluster_type = 'gr';

CREATE SQL SECURITY INVOKER VIEW v2_instances AS
    SELECT instance_id, cluster_id, instance_name AS label, mysql_server_uuid, address,
           JSON_UNQUOTE(JSON_EXTRACT(addresses, '$.mysqlClassic')) AS endpoint,
           JSON_UNQUOTE(JSON_EXTRACT(addresses, '$.mysqlX')) AS xendpoint,
           attributes,
           IFNULL(JSON_UNQUOTE(JSON_EXTRACT(attributes, '$.instance_type')), 'group-member') AS instance_type
    FROM instances;

CREATE SQL SECURITY INVOKER VIEW v2_this_instance AS
    SELECT own.cluster_id, own.instance_id, own.instance_type, of_it.cluster_name, of_it.cluster_type
    FROM v2_instances own JOIN clusters of_it USING (cluster_id)
    WHERE own.mysql_server_uuid = CONVERT((SELECT variable_value FROM performance_schema.global_variables
                                           WHERE variable_name = 'server_uuid') USING ascii);

CREATE SQL SECURITY INVOKER VIEW v2_ar_clusters AS
    SELECT seen.view_id, of_it.cluster_type, of_it.primary_mode, seen.topology_type AS async_topology_type,
           of_it.cluster_id, of_it.cluster_name, of_it.attributes, of_it.options, of_it.router_options,
           of_it.description, of_it.clusterset_id
    FROM clusters of_it JOIN async_cluster_views seen USING (cluster_id)
    WHERE of_it.cluster_type = 'ar'
      AND NOT EXISTS (SELECT 1 FROM async_cluster_views later
                      WHERE later.cluster_id = seen.cluster_id AND later.view_id > seen.view_id);

CREATE SQL SECURITY INVOKER VIEW v2_ar_members AS
    SELECT part.view_id, own.cluster_id, own.instance_id, own.instance_name AS label,
           own.mysql_server_uuid AS member_id,
           IF(part.primary_master, 'PRIMARY', 'SECONDARY') AS member_role,
           part.master_instance_id, source.mysql_server_uuid AS master_member_id
    FROM instances own
    JOIN async_cluster_members part ON part.cluster_id = own.cluster_id AND part.instance_id = own.instance_id
    LEFT JOIN instances source ON source.instance_id = part.master_instance_id
    WHERE NOT EXISTS (SELECT 1 FROM async_cluster_views later
                      WHERE later.cluster_id = part.cluster_id AND later.view_id > part.view_id);

CREATE SQL SECURITY INVOKER VIEW v2_cs_clustersets AS
    SELECT seen.view_id, seen.topology_type AS async_topology_type, whole.clusterset_id, whole.domain_name,
           whole.attributes, whole.options, whole.router_options
    FROM clustersets whole JOIN clusterset_views seen USING (clusterset_id)
    WHERE NOT EXISTS (SELECT 1 FROM clusterset_views later
                      WHERE later.clusterset_id = seen.clusterset_id AND later.view_id > seen.view_id);

CREATE SQL SECURITY INVOKER VIEW v2_cs_members AS
    SELECT newest.view_id, of_it.clusterset_id, of_it.cluster_id, of_it.cluster_name,
           CASE part.primary_cluster WHEN 1 THEN 'PRIMARY' WHEN 0 THEN 'REPLICA' END AS member_role,
           part.master_cluster_id, part.view_id IS NULL AS invalidated
    FROM clusters of_it
    JOIN (SELECT clusterset_id, MAX(view_id) AS view_id FROM clusterset_views GROUP BY clusterset_id) newest
      ON newest.clusterset_id = of_it.clusterset_id
    LEFT JOIN clusterset_members part
      ON part.clusterset_id = of_it.clusterset_id AND part.cluster_id = of_it.cluster_id
         AND part.view_id = newest.view_id;

CREATE SQL SECURITY INVOKER VIEW v2_routers AS
    SELECT router_id, cluster_id, router_name, product_name, address, version, last_check_in, attributes, options,
           clusterset_id
    FROM routers;

CREATE SQL SECURITY INVOKER VIEW v2_router_rest_accounts AS
    SELECT cluster_id, user, authentication_method, authentication_string, description, privileges, attributes
    FROM router_rest_accounts;

CREATE SQL SECURITY INVOKER VIEW v2_router_options AS
    SELECT own.router_id, CONCAT(own.address, '::', own.router_name) AS router_label, own.cluster_id,
           own.clusterset_id,
           JSON_MERGE_PATCH(COALESCE(whole.router_options, of_it.router_options, '{}'), IFNULL(own.options, '{}'))
               AS router_options
    FROM routers own
    LEFT JOIN clusters of_it ON of_it.cluster_id = own.cluster_id
    LEFT JOIN clustersets whole ON whole.clusterset_id = own.clusterset_id;
