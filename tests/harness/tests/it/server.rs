//! One server: crash, pause, its own RESTART, clone, accounts, replicas, Router.

use std::time::Duration;

use quillback_harness::{Replicas, Router, Server, ServerOptions};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_survives_kill_pause_stop_and_its_own_restart() {
    let options = ServerOptions::new()
        .account("reader", "p@ss", &["SELECT ON *.*"])
        .line("max_connections=77");
    let server = Server::start_with(options).await.expect("it comes up");
    assert_eq!(
        server
            .one::<u32>("SELECT @@max_connections")
            .await
            .expect("a value"),
        77
    );
    assert_eq!(
        server.gtid_executed().await.expect("a set"),
        "",
        "accounts leave no trace in the binlog"
    );
    server.exec("CREATE DATABASE d").await.expect("a write");

    server.kill9().await.expect("it ran");
    assert!(server.pid().is_none());
    assert!(
        server.kill9().await.is_err(),
        "a dead server cannot be killed"
    );
    server.start_again().await.expect("crash recovery");

    server.pause().expect("it runs");
    let answer =
        tokio::time::timeout(Duration::from_millis(500), server.one::<u32>("SELECT 1")).await;
    assert!(answer.is_err(), "a paused server says nothing");
    server.resume().expect("it is there");
    assert_eq!(server.one::<u32>("SELECT 1").await.expect("an answer"), 1);

    server.restart().await.expect("a clean restart");
    let starts = server.starts();
    server.exec("RESTART").await.expect("it has a supervisor");
    quillback_harness::until("the restart", Duration::from_secs(60), async || {
        Ok((server.starts() > starts).then_some(()))
    })
    .await
    .expect("the supervisor starts it");
    server.wait_ready().await.expect("it answers again");
    assert_eq!(
        server
            .query::<String>("SHOW DATABASES LIKE 'd'")
            .await
            .expect("rows"),
        ["d"]
    );

    server.pause().expect("it runs");
    let folder = server.folder().to_owned();
    drop(server);
    assert!(!folder.exists(), "also a paused server is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsupervised_server_refuses_restart() {
    let server = Server::start_with(ServerOptions::new().supervised(false))
        .await
        .expect("it comes up");
    let error = server
        .exec("RESTART")
        .await
        .expect_err("nobody would start it");
    assert!(format!("{error:#}").contains("3707"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_start_shows_its_log() {
    let error = Server::start_with(ServerOptions::new().line("no_such_option=1"))
        .await
        .expect_err("it cannot start");
    assert!(format!("{error:#}").contains("no_such_option"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clone_restarts_the_recipient() {
    let options = || ServerOptions::new().line("plugin_load_add=mysql_clone.so");
    let donor = Server::start_with(options()).await.expect("the donor");
    let recipient = Server::start_with(options()).await.expect("the recipient");
    donor.exec("CREATE DATABASE cloned").await.expect("a write");
    recipient
        .exec(&format!(
            "SET GLOBAL clone_valid_donor_list = '{}'",
            donor.address()
        ))
        .await
        .expect("a list");
    let (user, password) = ("root", quillback_harness::ROOT_PASSWORD);
    let clone = format!(
        "CLONE INSTANCE FROM '{user}'@'127.0.0.1':{} IDENTIFIED BY '{password}'",
        donor.port()
    );
    recipient.exec(&clone).await.expect("the clone");
    quillback_harness::until(
        "the restart after the clone",
        Duration::from_secs(60),
        async || Ok((recipient.starts() == 2).then_some(())),
    )
    .await
    .expect("the supervisor starts it");
    recipient.wait_ready().await.expect("it answers again");
    assert_eq!(
        recipient
            .query::<String>("SHOW DATABASES LIKE 'cloned'")
            .await
            .expect("rows"),
        ["cloned"]
    );
    assert_ne!(
        recipient.uuid().await.expect("its uuid"),
        donor.uuid().await.expect("its uuid")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn router_sends_writes_and_reads_where_it_is_told() {
    let set = Replicas::start(1).await.expect("a source and a replica");
    let (source, replica) = (set.source(), &set.replicas()[0]);
    let router = Router::start(source, &[replica]).await.expect("Router");
    let port_behind = async |url: String| -> u16 {
        let opts = mysql_async::Opts::from_url(&url).expect("a URL");
        let opts = mysql_async::OptsBuilder::from_opts(opts).prefer_socket(Some(false));
        let mut conn = mysql_async::Conn::new(opts).await.expect("a connection");
        let port =
            mysql_async::prelude::Queryable::query_first(&mut conn, "SELECT @@GLOBAL.port").await;
        port.expect("an answer").expect("a row")
    };
    assert_eq!(port_behind(router.rw_url()).await, source.port());
    assert_eq!(port_behind(router.ro_url()).await, replica.port());
    router
        .retarget(replica, &[source])
        .await
        .expect("Router again");
    assert_eq!(port_behind(router.rw_url()).await, replica.port());
    assert_eq!(port_behind(router.ro_url()).await, source.port());
}
