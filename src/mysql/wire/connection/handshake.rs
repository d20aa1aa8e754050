//! The first packets of a connection: greeting, TLS, login.

use mysql_common::constants::CapabilityFlags;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{HandshakePacket, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize as _;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{MAX_PACKET, UTF8MB4, WireConnection, WireOptions};
use crate::mysql::server_url::{ServerUrl, SslMode};
use crate::mysql::wire::packet::Fields;
use crate::mysql::wire::{WireError, auth, tls};

impl WireConnection {
    /// Takes the server's greeting, goes over to TLS if the URL asks for it, and logs in.
    pub(super) async fn handshake(
        mut self,
        url: &ServerUrl,
        options: &WireOptions,
    ) -> Result<Self, WireError> {
        let greeting = self.read_payload().await?;
        self.fail_on_error_packet(&greeting)?;
        let handshake = ParseBuf(&greeting)
            .parse::<HandshakePacket<'_>>(())
            .map_err(|error| self.malformed(&error.to_string()))?;
        self.server_version = handshake.server_version_str().into_owned();
        self.connection_id = handshake.connection_id();
        let offered = handshake.capabilities();
        let nonce = handshake.nonce();
        let plugin = handshake
            .auth_plugin_name_str()
            .map_or_else(|| auth::CACHING_SHA2.to_owned(), |name| name.into_owned());
        drop(handshake);

        let secure = match url.ssl_mode {
            SslMode::Disabled => false,
            SslMode::Preferred => offered.contains(CapabilityFlags::CLIENT_SSL),
            _ if offered.contains(CapabilityFlags::CLIENT_SSL) => true,
            _ => {
                return Err(WireError::Tls {
                    address: self.address,
                    reason: "the server does not offer it".to_owned(),
                });
            }
        };
        let mut capabilities = CapabilityFlags::CLIENT_PROTOCOL_41
            | CapabilityFlags::CLIENT_LONG_PASSWORD
            | CapabilityFlags::CLIENT_LONG_FLAG
            | CapabilityFlags::CLIENT_TRANSACTIONS
            | CapabilityFlags::CLIENT_SECURE_CONNECTION
            | CapabilityFlags::CLIENT_PLUGIN_AUTH
            | CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
            | CapabilityFlags::CLIENT_LOCAL_FILES
            | CapabilityFlags::CLIENT_DEPRECATE_EOF
            | CapabilityFlags::CLIENT_CONNECT_ATTRS;
        if secure {
            capabilities |= CapabilityFlags::CLIENT_SSL;
        }
        capabilities &= offered | CapabilityFlags::CLIENT_LOCAL_FILES;
        if !capabilities.contains(
            CapabilityFlags::CLIENT_PROTOCOL_41
                | CapabilityFlags::CLIENT_PLUGIN_AUTH
                | CapabilityFlags::CLIENT_DEPRECATE_EOF,
        ) {
            return Err(WireError::Authentication {
                reason: format!(
                    "the server {} lacks capabilities of MySQL 8.0",
                    self.server_version
                ),
                address: self.address,
            });
        }
        let mut number = 1;
        if secure {
            let mut request = Vec::new();
            SslRequest::new(capabilities, MAX_PACKET, UTF8MB4).serialize(&mut request);
            number = self.send(&request, number).await?;
            self = self.into_tls(url).await?;
        }
        let password = url.password.as_ref().map_or("", |secret| secret.expose());
        let answer = auth::answer(&plugin, password.as_bytes(), &nonce, secure)
            // The account may use another plugin than the server's default: let it ask.
            .unwrap_or_default();
        let attributes = [
            ("_client_name".to_owned(), "quillback".to_owned()),
            ("program_name".to_owned(), options.program_name.clone()),
        ];
        let response = HandshakeResponse::new(
            Some(answer),
            (8, 0, 0),
            Some(url.user.as_bytes()),
            None::<&[u8]>,
            Some(mysql_common::packets::AuthPlugin::from_bytes(
                plugin.as_bytes(),
            )),
            capabilities,
            Some(attributes.into_iter().collect()),
            MAX_PACKET,
        );
        let mut payload = Vec::new();
        response.serialize(&mut payload);
        self.send(&payload, number).await?;
        self.finish_authentication(password.as_bytes(), plugin, nonce, secure)
            .await?;
        Ok(self)
    }

    async fn into_tls(mut self, url: &ServerUrl) -> Result<Self, WireError> {
        let refuse = |reason: String| WireError::Tls {
            address: url.address().to_string(),
            reason,
        };
        let config = tls::client_config(url).map_err(refuse)?;
        let name = ServerName::try_from(url.host.clone()).map_err(|e| refuse(e.to_string()))?;
        let stream = TlsConnector::from(config)
            .connect(name, self.transport)
            .await
            .map_err(|error| refuse(error.to_string()))?;
        self.transport = Box::new(stream);
        Ok(self)
    }

    async fn finish_authentication(
        &mut self,
        password: &[u8],
        mut plugin: String,
        mut nonce: Vec<u8>,
        secure: bool,
    ) -> Result<(), WireError> {
        loop {
            let payload = self.read_payload().await?;
            let next = self.decoder.sequence();
            match payload.first() {
                Some(0x00) => return Ok(()),
                Some(0xFE) => {
                    let mut fields = Fields::new(&payload[1..]);
                    let name = fields.nul_terminated().map_err(|e| self.truncated(e))?;
                    plugin = String::from_utf8_lossy(name).into_owned();
                    nonce = fields.rest().to_vec();
                    let answer = auth::answer(&plugin, password, &nonce, secure)
                        .map_err(|reason| self.refused(reason))?;
                    self.send(&answer, next).await?;
                }
                Some(0x01) => match (&payload[1..], plugin.as_str()) {
                    ([3], auth::CACHING_SHA2) => {}
                    ([4], auth::CACHING_SHA2) if secure => {
                        self.send(&auth::nul_terminated(password), next).await?;
                    }
                    ([4], auth::CACHING_SHA2) => {
                        self.send(&[2], next).await?;
                        let key = self.read_payload().await?;
                        self.fail_on_error_packet(&key)?;
                        let pem = key.get(1..).unwrap_or_default();
                        let sealed = auth::seal_password(password, &nonce, pem)
                            .map_err(|reason| self.refused(reason))?;
                        let next = self.decoder.sequence();
                        self.send(&sealed, next).await?;
                    }
                    _ => return Err(self.malformed("unexpected step of authentication")),
                },
                _ => {
                    self.fail_on_error_packet(&payload)?;
                    return Err(self.malformed("unexpected answer to the login"));
                }
            }
        }
    }
}
