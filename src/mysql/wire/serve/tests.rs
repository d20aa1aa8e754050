//! Our client at our server.

use tokio::net::TcpListener;

use super::*;
use crate::mysql::wire::{WireConnection, WireOptions};

const PASSWORD: &str = "one-time";

/// What a client of this URL gets, and what became of it on our side.
async fn meet(
    identity: Option<&ServerIdentity>,
    login: &str,
    mode: &str,
) -> (Result<(), WireError>, Result<(), WireError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let url = format!("mysql://{login}@127.0.0.1:{port}?ssl-mode={mode}")
        .parse()
        .expect("a URL");
    let password = Secret::new(PASSWORD.to_owned());
    let server = async {
        let (socket, _) = listener.accept().await.expect("a client");
        let door = Door {
            version: "9.7.0",
            user: "quillback",
            password: &password,
            identity,
        };
        let mut served = ServedConnection::accept(socket, 1, &door).await?;
        match served.next_command().await? {
            Command::Query(text) => served.send_value(&text, "7").await,
            other => panic!("{other:?}"),
        }
    };
    let client = async {
        let options = WireOptions::default();
        let mut connection = WireConnection::connect(&url, &options).await?;
        connection.execute("SELECT 7").await.map(|_| ())
    };
    tokio::join!(client, server)
}

#[tokio::test]
async fn the_right_password_is_let_in_over_tls_only() {
    let identity = ServerIdentity::generate().expect("a certificate");
    let right = format!("quillback:{PASSWORD}");
    let (client, server) = meet(Some(&identity), &right, "REQUIRED").await;
    client.expect("let in");
    server.expect("a client");

    for login in ["quillback:wrong", "root:one-time", "quillback"] {
        let (client, server) = meet(Some(&identity), login, "REQUIRED").await;
        let error = client.expect_err(login);
        assert_eq!(error.server_code(), Some(1045), "{login}: {error}");
        assert!(matches!(server, Err(WireError::Authentication { .. })));
    }

    let (client, server) = meet(Some(&identity), &right, "DISABLED").await;
    let error = client.expect_err("a plain client");
    assert_eq!(error.server_code(), Some(3159), "{error}");
    assert!(matches!(server, Err(WireError::Tls { .. })));
}

#[tokio::test]
async fn without_a_certificate_it_is_plain() {
    let right = format!("quillback:{PASSWORD}");
    let (client, server) = meet(None, &right, "DISABLED").await;
    client.expect("let in");
    server.expect("a client");
    let (client, _) = meet(None, &right, "REQUIRED").await;
    assert!(matches!(client, Err(WireError::Tls { .. })));
}

#[tokio::test]
async fn large_events_pass_as_they_are() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!(
        "mysql://quillback:{PASSWORD}@{}?ssl-mode=REQUIRED",
        listener.local_addr().expect("an address")
    )
    .parse()
    .expect("a URL");
    let identity = ServerIdentity::generate().expect("a certificate");
    let password = Secret::new(PASSWORD.to_owned());
    let sizes = [
        10,
        GATHERED,
        GATHERED + 1,
        (1 << 24) - 2,
        1 << 24,
        40 << 20,
        11,
    ];
    let server = async {
        let (socket, _) = listener.accept().await.expect("a client");
        let door = Door {
            version: "9.7.0",
            user: "quillback",
            password: &password,
            identity: Some(&identity),
        };
        let mut served = ServedConnection::accept(socket, 1, &door).await?;
        served.next_command().await?;
        for size in sizes {
            let event: Vec<u8> = (0..size).map(|at| (at % 253) as u8).collect();
            served.send_event(&event).await?;
        }
        served.flush().await?;
        Ok::<_, WireError>(served)
    };
    let client = async {
        let options = WireOptions::default();
        let mut connection = WireConnection::connect(&url, &options).await?;
        connection.command(0x12, b"").await?;
        let mut found = Vec::new();
        for _ in sizes {
            let payload = connection.read_payload().await?;
            let same = payload[1..]
                .iter()
                .enumerate()
                .all(|(at, byte)| *byte == (at % 253) as u8);
            assert!(payload[0] == 0 && same, "{} bytes", payload.len());
            found.push(payload.len() - 1);
        }
        Ok::<_, WireError>(found)
    };
    let (found, served) = tokio::join!(client, server);
    served.expect("sent");
    assert_eq!(found.expect("came"), sizes);
}
