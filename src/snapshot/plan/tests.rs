//! What is planned from which facts.

use super::*;
use crate::error::{Class, Classified as _};
use crate::gtid::GtidSet;
use crate::mysql::topology::{Member, MemberState};

fn facts(privileges: &str, engine: &str) -> SnapshotFacts {
    let address = HostPort::new("db2", 3306);
    let version = ServerVersion::parse("8.4.6").expect("good");
    let member = Member {
        address: address.clone(),
        uuid: Some(Uuid::nil()),
        role: Role::Secondary,
        state: MemberState::Online,
        version: Some(version.clone()),
        queue: Some(0),
    };
    let table = |name: &str, bytes| TableFacts {
        database: "shop".to_owned(),
        name: name.to_owned(),
        engine: engine.to_owned(),
        estimated_rows: 10,
        data_bytes: bytes,
        key: None,
        partitions: Vec::new(),
        create_sha256: crate::archive::hash::sha256(name.as_bytes()),
    };
    SnapshotFacts {
        topology: Topology {
            kind: TopologyKind::GroupReplication,
            asked: address.clone(),
            members: vec![member.clone()],
            follows: None,
            notes: Vec::new(),
        },
        choice: Choice {
            member,
            reasons: vec!["db2:3306 is an ONLINE secondary".to_owned()],
        },
        health: HealthSurvey::default(),
        server: ServerFacts {
            address,
            version,
            version_comment: String::new(),
            server_uuid: Uuid::nil(),
            server_id: 2,
            time: DateTime::UNIX_EPOCH,
            gtid_mode: "ON".to_owned(),
            gtid_executed: GtidSet::default(),
            gtid_purged: GtidSet::default(),
            log_bin: true,
            log_replica_updates: true,
            binlog_format: "ROW".to_owned(),
            binlog_row_image: "FULL".to_owned(),
            binlog_checksum: "CRC32".to_owned(),
            sync_binlog: 1,
            innodb_flush_log_at_trx_commit: 1,
            read_only: true,
            super_read_only: true,
            lower_case_table_names: 0,
            local_infile: false,
            max_allowed_packet: 64 << 20,
            character_set_server: "utf8mb4".to_owned(),
            collation_server: "utf8mb4_0900_ai_ci".to_owned(),
            performance_schema: true,
            event_scheduler: "ON".to_owned(),
            innodb_page_size: 16_384,
        },
        privileges: GlobalPrivileges::parse(
            [format!("GRANT {privileges} ON *.* TO `b`@`%`")]
                .iter()
                .map(String::as_str),
        ),
        tables: vec![table("small", 1), table("big", 9), table("middle", 5)],
        survey: FilterSurvey::default(),
    }
}

const ALL: &str = "SELECT, SHOW VIEW, TRIGGER, EVENT, REPLICATION CLIENT, \
                   REPLICATION SLAVE, PROCESS, RESOURCE_GROUP_USER, RELOAD, BACKUP_ADMIN";

#[test]
fn the_biggest_tables_come_first_and_the_plan_survives_json() {
    let options = SnapshotOptions::default();
    let plan = SnapshotPlan::compute(&facts(ALL, "InnoDB"), &options, DateTime::UNIX_EPOCH, 7)
        .expect("nothing is wrong");
    let names: Vec<&str> = plan
        .tables
        .iter()
        .map(|table| table.name.as_str())
        .collect();
    assert_eq!(names, ["big", "middle", "small"]);
    assert_eq!(plan.id.as_str(), "19700101T000000Z-00000007");
    assert!(plan.backup_lock && plan.warnings.is_empty());
    let json = serde_json::to_string(&plan).expect("plans are plain data");
    assert_eq!(
        serde_json::from_str::<SnapshotPlan>(&json).expect("the same"),
        plan
    );
}

#[test]
fn what_would_be_short_in_silence_is_refused() {
    let compute = |facts: &SnapshotFacts, lock| {
        let options = SnapshotOptions {
            lock,
            ..SnapshotOptions::default()
        };
        SnapshotPlan::compute(facts, &options, DateTime::UNIX_EPOCH, 7)
    };
    for missing in [
        "SELECT",
        "SHOW VIEW",
        "TRIGGER",
        "EVENT",
        "PROCESS",
        "REPLICATION CLIENT",
    ] {
        let fewer = ALL.replace(&format!("{missing}, "), "");
        let error = compute(&facts(&fewer, "InnoDB"), LockMode::Auto).expect_err(missing);
        assert!(error.to_string().contains(missing), "{error}");
        assert_eq!(error.class(), Class::Authentication);
    }
    let error = compute(&facts(ALL, "MyISAM"), LockMode::Auto).expect_err("MyISAM");
    assert!(error.to_string().contains("shop.big (MyISAM)"), "{error}");
    assert_eq!(error.class(), Class::Refused);
    let mut without = facts(ALL, "InnoDB");
    without.server.gtid_mode = "OFF_PERMISSIVE".to_owned();
    assert!(compute(&without, LockMode::Auto).is_err());
}

#[test]
fn other_engines_are_taken_by_name_and_filters_must_match() {
    let compute = |facts: &SnapshotFacts, filter: &Filter| {
        let options = SnapshotOptions {
            allow_non_innodb: true,
            filter: filter.clone(),
            ..SnapshotOptions::default()
        };
        SnapshotPlan::compute(facts, &options, DateTime::UNIX_EPOCH, 7)
    };
    let has = |plan: &SnapshotPlan, text: &str| plan.warnings.iter().any(|w| w.contains(text));
    let mut mixed = facts(ALL, "InnoDB");
    mixed.tables[0].engine = "MyISAM".to_owned();
    mixed.tables[1].engine = "MRG_MYISAM".to_owned();
    let plan = compute(&mixed, &Filter::default()).expect("allowed");
    assert!(has(&plan, "shop.small (MyISAM)") && has(&plan, "shop.big (MRG_MYISAM)"));
    let chunks: Vec<u64> = plan.tables.iter().map(|table| table.chunks).collect();
    assert_eq!(chunks, [0, 1, 1]);

    let pattern = |text: &str| text.parse().expect("a pattern");
    let filter = Filter {
        include: vec![pattern("shop"), pattern("x.*")],
        exclude: vec![pattern("*.tmp")],
    };
    mixed.survey.unmatched = filter.exclude.clone();
    let plan = compute(&mixed, &filter).expect("only an exclude is idle");
    assert!(has(&plan, "--exclude *.tmp"), "{:?}", plan.warnings);
    mixed.survey.unmatched = vec![filter.include[1].clone()];
    let error = compute(&mixed, &filter).expect_err("an include is idle");
    assert_eq!(error.class(), Class::Usage);
    assert!(error.to_string().contains("x.*"), "{error}");
    mixed.survey.unmatched.clear();
    mixed.survey.leave_nothing = filter.exclude.clone();
    let said = compute(&mixed, &filter).map_err(|error| error.to_string());
    let expected = "--exclude *.tmp leaves nothing of what --include shop --include x.* takes";
    assert_eq!(said, Err(format!("{expected} on db2:3306")));
}

#[test]
fn without_the_privilege_to_lock_only_the_lock_free_way_is_left() {
    let few = facts(&ALL.replace(", RELOAD, BACKUP_ADMIN", ""), "InnoDB");
    let compute = |lock| {
        let options = SnapshotOptions {
            lock,
            ..SnapshotOptions::default()
        };
        SnapshotPlan::compute(&few, &options, DateTime::UNIX_EPOCH, 7)
    };
    let plan = compute(LockMode::Auto).expect("possible");
    assert_eq!(
        (plan.lock, plan.backup_lock, plan.warnings.len()),
        (LockMode::None, false, 2)
    );
    assert!(compute(LockMode::Flush).is_err());
}
