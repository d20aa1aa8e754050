//! Logins over the packet layer and over mysql_async: every plugin, every ssl-mode, and what is
//! said when it does not work.

use anyhow::Result;
use quillback::error::{Class, Classified as _};
use quillback::mysql::Session;
use quillback_harness::{ROOT_PASSWORD, Server};

use crate::support::{chain, connect, url_with};

#[tokio::test]
async fn a_new_account_logs_in_without_tls() -> Result<()> {
    let server = Server::start().await?;
    // The password is longer than a block, and is not ASCII.
    let password = format!("zażółć 😀 {}", "x".repeat(150));
    server
        .exec(&format!("CREATE USER fresh IDENTIFIED BY '{password}'"))
        .await?;
    server.exec("CREATE USER nothing IDENTIFIED BY ''").await?;
    let escaped: String = url::form_urlencoded::byte_serialize(password.as_bytes())
        .collect::<String>()
        .replace('+', "%20");
    let base = server.url_for("fresh", &escaped);
    // Nothing is cached yet: the first login takes the whole way, with the server's RSA key.
    for _whole_then_cached in 0..2 {
        let mut connection = connect(&url_with(&base, "ssl-mode=DISABLED")).await?;
        let user = connection.query_text("SELECT CURRENT_USER()").await?;
        assert_eq!(user.as_deref(), Some("fresh@%"));
        let cipher = connection.query_text("SELECT VARIABLE_VALUE FROM performance_schema.session_status WHERE VARIABLE_NAME = 'Ssl_cipher'");
        assert_eq!(cipher.await?.as_deref(), Some(""));
    }
    server.exec("FLUSH PRIVILEGES").await?;
    let mut connection = connect(&url_with(&base, "ssl-mode=REQUIRED")).await?;
    let cipher = connection.query_text("SELECT VARIABLE_VALUE FROM performance_schema.session_status WHERE VARIABLE_NAME = 'Ssl_cipher'");
    assert_ne!(cipher.await?.as_deref(), Some(""));
    let empty = server.url_for("nothing", "").replace(":@", "@");
    for mode in ["DISABLED", "REQUIRED"] {
        connect(&url_with(&empty, &format!("ssl-mode={mode}"))).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_is_told_as_such_and_not_repeated() -> Result<()> {
    let server = Server::start().await?;
    for mode in ["DISABLED", "PREFERRED", "REQUIRED"] {
        let url = url_with(
            &server.url_for("root", "not-this-one"),
            &format!("ssl-mode={mode}"),
        );
        let error = connect(&url).await.expect_err("a wrong password");
        assert_eq!(error.class(), Class::Authentication, "{error}");
        assert_eq!(error.server_code(), Some(1045), "{error}");
        assert!(!format!("{error:?} {url:?}").contains("not-this-one"));
        let error = Session::connect(&url).await.expect_err("a wrong password");
        assert_eq!(error.class(), Class::Authentication, "{}", chain(&error));
        assert!(!format!("{error:?}").contains("not-this-one"));
    }
    // No such account: the server asks for any plugin, so that nobody can tell.
    for user in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        for mode in ["DISABLED", "REQUIRED"] {
            let url = url_with(&server.url_for(user, "x"), &format!("ssl-mode={mode}"));
            let error = connect(&url).await.expect_err("no account");
            assert_eq!(error.class(), Class::Authentication, "{user}: {error}");
            let error = Session::connect(&url).await.expect_err("no account");
            assert_eq!(
                error.class(),
                Class::Authentication,
                "{user}: {}",
                chain(&error)
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn other_plugins_work_or_are_named() -> Result<()> {
    let server = Server::start().await?;
    let plugins: Vec<String> = server
        .query("SELECT PLUGIN_NAME FROM information_schema.PLUGINS WHERE PLUGIN_TYPE = 'AUTHENTICATION' AND PLUGIN_STATUS = 'ACTIVE'")
        .await?;
    assert!(
        plugins.contains(&"caching_sha2_password".to_owned()),
        "{plugins:?}"
    );
    for plugin in ["mysql_native_password", "sha256_password"] {
        if !plugins.contains(&plugin.to_owned()) {
            // The server itself names what it lacks.
            let error = server
                .exec(&format!("CREATE USER old IDENTIFIED WITH {plugin} BY 'pw'"))
                .await
                .expect_err("it has no such plugin");
            assert!(format!("{error:#}").contains(plugin), "{error:#}");
            continue;
        }
        server
            .exec(&format!(
                "CREATE USER {plugin} IDENTIFIED WITH {plugin} BY 'pw'"
            ))
            .await?;
        let base = server.url_for(plugin, "pw");
        let mut connection = connect(&url_with(&base, "ssl-mode=REQUIRED")).await?;
        assert_eq!(
            connection.query_text("SELECT 1").await?.as_deref(),
            Some("1")
        );
        let plain = connect(&url_with(&base, "ssl-mode=DISABLED")).await;
        if plugin == "sha256_password" {
            let error = plain.expect_err("it sends the password as it is");
            assert_eq!(error.class(), Class::Authentication, "{error}");
            assert!(error.to_string().contains("needs TLS"), "{error}");
        } else {
            plain?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_ssl_mode_is_kept_to_the_letter() -> Result<()> {
    let server = Server::start().await?;
    let base = server.url();
    let own_ca = server.data_dir().join("ca.pem").display().to_string();
    let other = Server::start().await?;
    // All servers of the harness are copies of one: this one makes itself new certificates.
    other.stop().await?;
    for file in std::fs::read_dir(other.data_dir())? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            std::fs::remove_file(path)?;
        }
    }
    other.start_again().await?;
    let other_ca = other.data_dir().join("ca.pem").display().to_string();
    let both = async |query: String| {
        let url = url_with(&base, &query);
        let wire = connect(&url).await.map(drop);
        let session = Session::connect(&url).await.map(drop);
        (wire, session)
    };
    for query in [
        "ssl-mode=DISABLED".to_owned(),
        "ssl-mode=PREFERRED".to_owned(),
        "ssl-mode=REQUIRED".to_owned(),
        format!("ssl-mode=VERIFY_CA&ssl-ca={own_ca}"),
    ] {
        let (wire, session) = both(query.clone()).await;
        assert!(wire.is_ok(), "{query}: {wire:?}");
        assert!(session.is_ok(), "{query}: {session:?}");
    }
    for query in [
        // Signed by another authority, by none that the system knows, or for another name.
        format!("ssl-mode=VERIFY_CA&ssl-ca={other_ca}"),
        "ssl-mode=VERIFY_CA".to_owned(),
        format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={own_ca}"),
        "ssl-mode=VERIFY_IDENTITY".to_owned(),
        // A file that is none.
        "ssl-mode=VERIFY_CA&ssl-ca=/no/such/file.pem".to_owned(),
    ] {
        let (wire, session) = both(query.clone()).await;
        let error = wire.expect_err(&query);
        assert_eq!(error.class(), Class::Authentication, "{query}: {error}");
        let error = session.expect_err(&query);
        let text = chain(&error);
        assert_eq!(error.class(), Class::Authentication, "{query}: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_insists_on_tls_says_so() -> Result<()> {
    // The harness itself logs in without TLS, so the setting comes later.
    let server = Server::start().await?;
    server
        .exec("SET GLOBAL require_secure_transport = ON")
        .await?;
    let base = server.url_for("root", ROOT_PASSWORD);
    for mode in ["PREFERRED", "REQUIRED"] {
        connect(&url_with(&base, &format!("ssl-mode={mode}"))).await?;
        Session::connect(&url_with(&base, &format!("ssl-mode={mode}"))).await?;
    }
    let url = url_with(&base, "ssl-mode=DISABLED");
    let error = connect(&url).await.expect_err("no TLS");
    assert_eq!(error.class(), Class::Authentication, "{error}");
    assert!(error.to_string().contains("secure transport"), "{error}");
    let error = Session::connect(&url).await.expect_err("no TLS");
    assert_eq!(error.class(), Class::Authentication, "{}", chain(&error));
    Ok(())
}
