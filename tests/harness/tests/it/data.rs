//! Checksums see what differs and nothing else; Sin Pluma is the same at every run.

use quillback_harness::checksum::{self, Sums};
use quillback_harness::sinpluma::{SinPluma, TABLES};
use quillback_harness::{Server, ServerOptions};

const TABLE: &str = "CREATE TABLE d.t (id INT PRIMARY KEY, a VARCHAR(20), b VARCHAR(20), j JSON, f FLOAT, d DOUBLE, \
    n DECIMAL(10,3), x VARBINARY(20), g GEOMETRY, bits BIT(9), ts TIMESTAMP(6) NULL, \
    twice INT GENERATED ALWAYS AS (id * 2) VIRTUAL)";
const ROWS: [&str; 3] = [
    "(1, 'ab', 'c', '{\"k\": [1, null]}', 0.1, 1e300, 1.000, X'00FF', ST_GeomFromText('POINT(1 2)'), b'100000001', '2026-01-02 03:04:05.678901')",
    "(2, '', NULL, NULL, NULL, NULL, NULL, X'', NULL, NULL, NULL)",
    "(3, 'x', 'y', 'null', -0.5, 0.1, -7.25, X'0A', ST_GeomFromText('POINT(3 4)'), b'1', '2026-01-02 03:04:05')",
];

async fn sum(server: &Server) -> Sums {
    let mut conn = server.conn().await.expect("a connection");
    checksum::schema(&mut conn, "d").await.expect("the sums")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_sees_every_change_and_no_order() {
    let server = Server::start().await.expect("a server");
    server.exec("CREATE DATABASE d").await.expect("a schema");
    let refill = async |order: [usize; 3]| {
        server
            .exec("DROP TABLE IF EXISTS d.t")
            .await
            .expect("dropped");
        server.exec(TABLE).await.expect("a table");
        for row in order {
            let columns = "id, a, b, j, f, d, n, x, g, bits, ts";
            server
                .exec(&format!("INSERT INTO d.t ({columns}) VALUES {}", ROWS[row]))
                .await
                .expect("a row");
        }
    };
    refill([0, 1, 2]).await;
    let original = sum(&server).await;
    assert_eq!(original["d.t"].rows, 3);
    server
        .exec("ALTER TABLE d.t DROP PRIMARY KEY, ADD KEY (a)")
        .await
        .expect("a heap");
    assert_eq!(sum(&server).await, original, "keys do not matter");
    refill([2, 0, 1]).await;
    assert_eq!(sum(&server).await, original, "nor does the order");

    for change in [
        "UPDATE d.t SET a = NULL WHERE id = 2",
        "UPDATE d.t SET b = '' WHERE id = 2",
        "UPDATE d.t SET a = NULL, b = '' WHERE id = 2",
        "UPDATE d.t SET a = 'a', b = 'bc' WHERE id = 1",
        "UPDATE d.t SET a = 'y', b = 'x' WHERE id = 3",
        "UPDATE d.t SET a = 'X' WHERE id = 3",
        "UPDATE d.t SET a = 'x ' WHERE id = 3",
        "UPDATE d.t SET j = JSON_SET(j, '$.k[0]', 2) WHERE id = 1",
        "UPDATE d.t SET j = NULL WHERE id = 3",
        "UPDATE d.t SET f = f + 0.0000001 WHERE id = 1",
        "UPDATE d.t SET d = 0.30000000000000004 - 0.2 WHERE id = 3",
        "UPDATE d.t SET d = 0.1 + 2e-17 WHERE id = 3",
        "UPDATE d.t SET n = -7.251 WHERE id = 3",
        "UPDATE d.t SET x = X'00FE' WHERE id = 1",
        "UPDATE d.t SET x = X'0A00' WHERE id = 3",
        "UPDATE d.t SET g = ST_GeomFromText('POINT(2 1)') WHERE id = 1",
        "UPDATE d.t SET g = ST_GeomFromText('POINT(1 2)', 4326) WHERE id = 1",
        "UPDATE d.t SET bits = b'000000001' WHERE id = 1",
        "UPDATE d.t SET ts = '2026-01-02 03:04:05.678902' WHERE id = 1",
        "UPDATE d.t SET id = 4 WHERE id = 3",
        "DELETE FROM d.t WHERE id = 2",
        "INSERT INTO d.t (id) VALUES (9)",
    ] {
        refill([0, 1, 2]).await;
        server.exec(change).await.expect(change);
        let differences = checksum::differences(&original, &sum(&server).await);
        assert_eq!(differences.len(), 1, "{change} is not seen");
    }
    server
        .exec("CREATE TABLE d.u (a INT)")
        .await
        .expect("another table");
    refill([0, 1, 2]).await;
    assert_eq!(
        checksum::differences(&original, &sum(&server).await),
        ["d.u: not expected"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sin_pluma_is_the_same_everywhere_and_lives() {
    let one = Server::start().await.expect("a server");
    let other = Server::start_with(ServerOptions::new().line("default_time_zone='+09:00'"))
        .await
        .expect("another");
    let mut conn = one.conn().await.expect("a connection");
    let mut other_conn = other.conn().await.expect("a connection");
    let mut data = SinPluma::create(&mut conn, 1).await.expect("the data");
    SinPluma::create(&mut other_conn, 1)
        .await
        .expect("the data again");

    let sums = checksum::all(&mut conn).await.expect("sums");
    assert_eq!(
        checksum::differences(&sums, &checksum::all(&mut other_conn).await.expect("sums")),
        [""; 0]
    );
    let names: Vec<_> = sums.keys().cloned().collect();
    let mut expected: Vec<_> = TABLES
        .iter()
        .map(|table| format!("sinpluma.{table}"))
        .collect();
    expected.sort();
    assert_eq!(names, expected);
    assert_eq!(sums["sinpluma.genre"].rows, 10);
    let rows: u64 = sums.values().map(|sum| sum.rows).sum();
    assert!((3000..10_000).contains(&rows), "{rows} rows");

    let definitions = checksum::schema_fingerprint(&mut conn)
        .await
        .expect("definitions");
    assert_eq!(
        definitions,
        checksum::schema_fingerprint(&mut other_conn)
            .await
            .expect("definitions")
    );
    assert_eq!(definitions.len(), TABLES.len() + 1);
    assert!(
        definitions
            .values()
            .all(|definition| !definition.contains("AUTO_INCREMENT="))
    );

    for _ in 0..20 {
        data.write_some(&mut conn).await.expect("a step");
    }
    let later = checksum::all(&mut conn).await.expect("sums");
    for table in ["page", "reading", "user", "notebook", "has_tags"] {
        assert_ne!(
            later[&format!("sinpluma.{table}")],
            sums[&format!("sinpluma.{table}")],
            "{table} has moved on"
        );
    }
    assert!(later["sinpluma.page"].rows == sums["sinpluma.page"].rows + 20);
}
