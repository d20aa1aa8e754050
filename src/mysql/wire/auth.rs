//! Proving the password, without IO: what to answer to each step of an authentication.
//!
//! Known plugins are `caching_sha2_password` (both paths), `mysql_native_password` and, over TLS
//! only, `mysql_clear_password` and `sha256_password`. A password never leaves in clear text but
//! inside TLS or sealed with the server's public key.

use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use mysql_common::scramble;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;

/// The default plugin since MySQL 8.0.
pub const CACHING_SHA2: &str = "caching_sha2_password";

/// What the client answers first to a plugin's challenge.
///
/// `nonce` is the server's 20 bytes (a trailing NUL is ignored); `secure` says whether the
/// connection is inside TLS.
///
/// # Errors
///
/// A sentence that says why this plugin cannot be served.
pub fn answer(
    plugin: &str,
    password: &[u8],
    nonce: &[u8],
    secure: bool,
) -> Result<Vec<u8>, String> {
    let nonce = nonce.strip_suffix(&[0]).unwrap_or(nonce);
    match plugin {
        CACHING_SHA2 if password.is_empty() => Ok(Vec::new()),
        CACHING_SHA2 => Ok(scramble::scramble_sha256(nonce, password)
            .map(|scramble| scramble.to_vec())
            .unwrap_or_default()),
        "mysql_native_password" => Ok(scramble::scramble_native(nonce, password)
            .map(|scramble| scramble.to_vec())
            .unwrap_or_default()),
        "mysql_clear_password" | "sha256_password" if secure => Ok(nul_terminated(password)),
        "mysql_clear_password" | "sha256_password" => Err(format!(
            "the account uses {plugin}, which sends the password as it is and so needs TLS"
        )),
        other => Err(format!("the account uses {other}, which is not supported")),
    }
}

/// The password sealed with the server's RSA key, for `caching_sha2_password` without TLS.
///
/// # Errors
///
/// A sentence that says why the server's key cannot be used.
pub fn seal_password(password: &[u8], nonce: &[u8], pem: &[u8]) -> Result<Vec<u8>, String> {
    let nonce = nonce.strip_suffix(&[0]).unwrap_or(nonce);
    if nonce.is_empty() {
        return Err("the server sent no nonce".to_owned());
    }
    let mut masked = nul_terminated(password);
    for (byte, mask) in masked.iter_mut().zip(nonce.iter().cycle()) {
        *byte ^= mask;
    }
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem)
        .map_err(|_| "the server's public key is no PEM text".to_owned())?;
    let no_key = || "the server's public key is no RSA key".to_owned();
    let key = PublicEncryptingKey::from_der(&der).map_err(|_| no_key())?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| no_key())?;
    let mut sealed = vec![0; key.ciphertext_size()];
    let length = key
        .encrypt(&OAEP_SHA1_MGF1SHA1, &masked, &mut sealed, None)
        .map_err(|_| "the password is too long for the server's public key".to_owned())?
        .len();
    sealed.truncate(length);
    Ok(sealed)
}

/// The password as the full authentication inside TLS wants it.
#[must_use]
pub fn nul_terminated(password: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(password.len() + 1);
    out.extend_from_slice(password);
    out.push(0);
    out
}

/// Whether `response` proves `password` for `caching_sha2_password` (the server's side).
///
/// The comparison takes the same time wherever the two differ.
#[must_use]
pub fn proves_password(response: &[u8], password: &[u8], nonce: &[u8]) -> bool {
    let Some(expected) = scramble::scramble_sha256(nonce, password) else {
        return false;
    };
    aws_lc_rs::constant_time::verify_slices_are_equal(response, &expected).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &[u8] = b"abcdefghijklmnopqrst";

    #[test]
    fn only_the_right_password_is_proven() {
        let proof = answer(CACHING_SHA2, b"secret", NONCE, false).expect("known plugin");
        assert!(proves_password(&proof, b"secret", NONCE));
        assert!(!proves_password(&proof, b"Secret", NONCE));
        assert!(!proves_password(&proof, b"secret", b"abcdefghijklmnopqrsu"));
        assert!(!proves_password(&[], b"secret", NONCE));
        assert!(!proves_password(&proof, b"", NONCE));
    }

    #[test]
    fn a_trailing_nul_of_the_nonce_changes_nothing() {
        let with_nul = [NONCE, &[0]].concat();
        assert_eq!(
            answer(CACHING_SHA2, b"secret", NONCE, false),
            answer(CACHING_SHA2, b"secret", &with_nul, false)
        );
    }

    #[test]
    fn a_clear_password_needs_tls() {
        assert!(answer("mysql_clear_password", b"x", NONCE, false).is_err());
        assert_eq!(
            answer("mysql_clear_password", b"x", NONCE, true),
            Ok(b"x\0".to_vec())
        );
        assert!(answer("authentication_ldap_sasl_client", b"x", NONCE, true).is_err());
    }

    #[test]
    fn a_broken_public_key_is_an_error_and_no_panic() {
        let bodies: [&[u8]; 3] = [
            b"",
            b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            b"-----BEGIN",
        ];
        for pem in bodies {
            assert!(seal_password(b"secret", NONCE, pem).is_err());
        }
    }
}
