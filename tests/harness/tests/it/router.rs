//! The metadata made by hand is good enough for the real Router.

use quillback_harness::{Router, Trio, cluster_metadata};

#[tokio::test(flavor = "multi_thread")]
async fn a_router_bootstraps_itself_against_metadata_made_by_hand_and_follows_a_failover() {
    let trio = Trio::start().await.expect("a group");
    let [a, b, c] = trio.members() else {
        panic!("three members")
    };
    let refused = Router::bootstrap(b)
        .await
        .expect_err("there is no metadata");
    assert!(
        format!("{refused:#}").contains("mysql_innodb_cluster_metadata"),
        "{refused:#}"
    );
    cluster_metadata::lay_out(&trio, "shop")
        .await
        .expect("the metadata");
    let router = Router::bootstrap(b).await.expect("a Router");
    assert_eq!(router.group_name().expect("its state"), trio.group_name());
    router
        .wait_routes(a, &[b, c])
        .await
        .expect("as the group is");
    let registered: Vec<(String, String)> = b
        .query(
            "SELECT address, attributes->>'$.RWEndpoint' \
             FROM mysql_innodb_cluster_metadata.v2_routers",
        )
        .await
        .expect("the Routers");
    let port = router
        .rw_url()
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    assert_eq!(registered, [("127.0.0.1".to_owned(), port)]);

    a.kill9().await.expect("it ran");
    let primary = trio.wait_failover(a).await.expect("a new primary");
    let other = if primary.port() == b.port() { c } else { b };
    router
        .wait_routes(primary, &[other])
        .await
        .expect("as the group is now");
    trio.rejoin(a, 3).await.expect("it comes back");
    router
        .wait_routes(primary, &[a, other])
        .await
        .expect("with the member that came back");
}
