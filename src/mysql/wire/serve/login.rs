//! The packets before a client is let in.

use mysql_common::constants::CapabilityFlags;
use rand::RngExt as _;

use super::{COLLATION, STATUS};
use crate::mysql::wire::auth;
use crate::mysql::wire::packet::{Fields, Truncated};

/// The bytes of a client's wish for TLS: a login that ends before its user's name.
const SSL_REQUEST: usize = 32;

/// Twenty random bytes without NUL, as a challenge.
pub(super) fn nonce() -> [u8; 20] {
    let mut nonce = [0; 20];
    let mut random = rand::rng();
    for byte in &mut nonce {
        *byte = random.random_range(1..=127);
    }
    nonce
}

/// Whether a client's first packet is its wish for TLS.
pub(super) fn wants_tls(payload: &[u8]) -> bool {
    let bits = Fields::new(payload).uint::<4>().ok();
    let flags = bits.and_then(|bits| u32::try_from(bits).ok());
    payload.len() == SSL_REQUEST
        && flags.is_some_and(|bits| {
            CapabilityFlags::from_bits_truncate(bits).contains(CapabilityFlags::CLIENT_SSL)
        })
}

/// The first packet of a connection.
pub(super) fn greeting(
    server_version: &str,
    connection_id: u32,
    nonce: &[u8; 20],
    offers_tls: bool,
) -> Vec<u8> {
    let tls = if offers_tls {
        CapabilityFlags::CLIENT_SSL
    } else {
        CapabilityFlags::empty()
    };
    let capabilities = (tls
        | CapabilityFlags::CLIENT_PROTOCOL_41
        | CapabilityFlags::CLIENT_LONG_PASSWORD
        | CapabilityFlags::CLIENT_LONG_FLAG
        | CapabilityFlags::CLIENT_TRANSACTIONS
        | CapabilityFlags::CLIENT_SECURE_CONNECTION
        | CapabilityFlags::CLIENT_CONNECT_WITH_DB
        | CapabilityFlags::CLIENT_MULTI_RESULTS
        | CapabilityFlags::CLIENT_PLUGIN_AUTH
        | CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
        | CapabilityFlags::CLIENT_CONNECT_ATTRS
        | CapabilityFlags::CLIENT_DEPRECATE_EOF)
        .bits()
        .to_le_bytes();
    let mut out = vec![10];
    out.extend_from_slice(&auth::nul_terminated(server_version.as_bytes()));
    out.extend_from_slice(&connection_id.to_le_bytes());
    out.extend_from_slice(&nonce[..8]);
    out.push(0);
    out.extend_from_slice(&capabilities[..2]);
    out.push(COLLATION);
    out.extend_from_slice(&STATUS.to_le_bytes());
    out.extend_from_slice(&capabilities[2..]);
    out.push(21);
    out.extend_from_slice(&[0; 10]);
    out.extend_from_slice(&nonce[8..]);
    out.push(0);
    out.extend_from_slice(&auth::nul_terminated(auth::CACHING_SHA2.as_bytes()));
    out
}

/// What a client's first packet says.
pub(super) struct Login {
    pub(super) capabilities: CapabilityFlags,
    pub(super) user: Vec<u8>,
    pub(super) proof: Vec<u8>,
    pub(super) plugin: Vec<u8>,
}

impl Login {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, Truncated> {
        let mut fields = Fields::new(payload);
        let bits = u32::try_from(fields.uint::<4>()?).map_err(|_| Truncated)?;
        let capabilities = CapabilityFlags::from_bits_truncate(bits);
        let _max_packet = fields.uint::<4>()?;
        let _collation = fields.uint::<1>()?;
        let _filler = fields.bytes(23)?;
        let user = fields.nul_terminated()?.to_vec();
        let proof = if capabilities.contains(CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA)
        {
            fields.lenenc_bytes()?
        } else {
            let length = fields.uint::<1>()?;
            fields.bytes(usize::try_from(length).map_err(|_| Truncated)?)?
        };
        if capabilities.contains(CapabilityFlags::CLIENT_CONNECT_WITH_DB) {
            fields.nul_terminated()?;
        }
        let plugin = if capabilities.contains(CapabilityFlags::CLIENT_PLUGIN_AUTH) {
            fields.nul_terminated()?
        } else {
            &[]
        };
        Ok(Self {
            capabilities,
            user,
            proof: proof.to_vec(),
            plugin: plugin.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wish_for_tls_is_told_from_a_login() {
        let ssl = CapabilityFlags::CLIENT_SSL.bits().to_le_bytes();
        let request = [&ssl[..], &[0; 28]].concat();
        assert!(wants_tls(&request));
        assert!(!wants_tls(&request[..31]));
        assert!(!wants_tls(&[&request[..], b"root\0"].concat()));
        assert!(!wants_tls(&[0; 32]));
    }

    #[test]
    fn tls_is_offered_only_with_a_certificate() {
        for offered in [false, true] {
            let packet = greeting("9.7.0", 1, &[b'n'; 20], offered);
            // Protocol, version, thread, nonce, filler: then the low half of the capabilities.
            let at = 1 + 6 + 4 + 8 + 1;
            let low = u16::from_le_bytes([packet[at], packet[at + 1]]);
            let flags = CapabilityFlags::from_bits_truncate(low.into());
            assert_eq!(flags.contains(CapabilityFlags::CLIENT_SSL), offered);
        }
    }

    proptest! {
        #[test]
        fn no_client_makes_us_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Login::parse(&bytes);
            let _ = wants_tls(&bytes);
        }
    }
}
