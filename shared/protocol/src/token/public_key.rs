//! Public keys of issuers: from PEM or JSON Web Keys, each good for exactly one algorithm.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, crypto,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

/// One public key. Its algorithm is fixed where the key comes from; no token can choose another.
#[derive(Clone)]
pub struct PublicKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl PublicKey {
    /// Every key of a text of PEM blocks (`PUBLIC KEY` of RFC 7468, or `RSA PUBLIC KEY`), all for this algorithm.
    pub fn from_pem(text: &str, algorithm: Algorithm) -> Result<Vec<Self>, PublicKeyError> {
        let mut keys = Vec::new();
        for block in pem_blocks(text) {
            if block.contains("PRIVATE KEY") {
                return Err(PublicKeyError::Private);
            }
            let decoded = match algorithm.family() {
                AlgorithmFamily::Hmac => return Err(PublicKeyError::Symmetric),
                AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(block.as_bytes()),
                AlgorithmFamily::Ec => DecodingKey::from_ec_pem(block.as_bytes()),
                AlgorithmFamily::Ed => DecodingKey::from_ed_pem(block.as_bytes()),
            };
            let jwk = decoded.and_then(|key| Jwk::from_decoding_key(&key, None));
            let jwk = jwk.map_err(|_| PublicKeyError::NotOfAlgorithm(name(algorithm)))?;
            keys.push(Self::from_jwk(&jwk, Some(algorithm)).ok_or(PublicKeyError::NotOfAlgorithm(name(algorithm)))?);
        }
        match keys.len() {
            0 => Err(PublicKeyError::NotPem),
            1..=UNNAMED_KEYS_MAX => Ok(keys),
            _ => Err(PublicKeyError::TooMany { limit: UNNAMED_KEYS_MAX }),
        }
    }

    /// The usable keys of a JSON Web Key Set (RFC 7517 5). Keys for encryption, of unknown types, too weak, or not of
    /// `only` are passed over; a symmetric key is never usable, since whoever reads the set could sign with it.
    pub fn from_jwks(bytes: &[u8], only: Option<Algorithm>) -> Result<Vec<Self>, PublicKeyError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let Set { keys } = serde_json::from_slice(bytes).map_err(|_| PublicKeyError::NotJwks)?;
        if keys.len() > JWKS_KEYS_MAX {
            return Err(PublicKeyError::TooMany { limit: JWKS_KEYS_MAX });
        }
        let read = keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        let usable: Vec<_> = read.filter_map(|jwk| Self::from_jwk(&jwk, only)).collect();
        if usable.is_empty() { Err(PublicKeyError::NoneUsable) } else { Ok(usable) }
    }

    fn from_jwk(jwk: &Jwk, only: Option<Algorithm>) -> Option<Self> {
        let common = &jwk.common;
        let for_signatures = common.public_key_use.as_ref().is_none_or(|what| *what == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let said = match common.key_algorithm {
            Some(said) => Some(Algorithm::try_from(said).ok()?),
            None => None,
        };
        let algorithm = said.or_else(|| implied(&jwk.algorithm, only))?;
        let id = common.key_id.clone();
        let wanted = only.is_none_or(|only| only == algorithm);
        let named_well = id.as_ref().is_none_or(|id| id.len() <= KEY_ID_BYTES_MAX);
        if !for_signatures || !wanted || !named_well || !is_sound(&jwk.algorithm, algorithm) {
            return None;
        }
        Some(Self { id, algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
    }

    /// What its issuer calls it (`kid`).
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn verifies(&self, message: &str, signature: &str) -> bool {
        crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm).unwrap_or(false)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Why no key could be read. No text of the source is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    #[error("it has no public key in PEM form")]
    NotPem,
    #[error("it is a private key: give the public half, which is all that checking takes")]
    Private,
    #[error("secrets belong under [keys]: a public key goes with RS, PS, ES or EdDSA")]
    Symmetric,
    #[error("it is not a public key for {0} (RSA: 2048 to 8192 bits)")]
    NotOfAlgorithm(&'static str),
    #[error("it is not a JSON Web Key Set")]
    NotJwks,
    #[error("it has no key that this server can use")]
    NoneUsable,
    #[error("it has more than {limit} keys")]
    TooMany { limit: usize },
}

/// The algorithm of a key that does not say: its type has only one, or the configuration chose one; a bare RSA key is
/// for RS256, which OpenID Connect makes the default.
fn implied(parameters: &AlgorithmParameters, only: Option<Algorithm>) -> Option<Algorithm> {
    match parameters {
        AlgorithmParameters::RSA(_) => Some(only.unwrap_or(Algorithm::RS256)),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Some(Algorithm::ES256),
            EllipticCurve::P384 => Some(Algorithm::ES384),
            _ => None,
        },
        AlgorithmParameters::OctetKeyPair(_) => Some(Algorithm::EdDSA),
        _ => None,
    }
}

/// Whether the numbers are of a size that the algorithm takes.
fn is_sound(parameters: &AlgorithmParameters, algorithm: Algorithm) -> bool {
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    match parameters {
        AlgorithmParameters::RSA(key) => {
            let modulus = bytes(&key.n);
            let bits = modulus.iter().skip_while(|byte| **byte == 0).count().saturating_mul(8);
            algorithm.family() == AlgorithmFamily::Rsa && RSA_BITS.contains(&bits) && !bytes(&key.e).is_empty()
        }
        AlgorithmParameters::EllipticCurve(key) => {
            let expected = match (&key.curve, algorithm) {
                (EllipticCurve::P256, Algorithm::ES256) => 32,
                (EllipticCurve::P384, Algorithm::ES384) => 48,
                _ => return false,
            };
            bytes(&key.x).len() == expected && bytes(&key.y).len() == expected
        }
        AlgorithmParameters::OctetKeyPair(key) => {
            algorithm == Algorithm::EdDSA && key.curve == EllipticCurve::Ed25519 && bytes(&key.x).len() == 32
        }
        _ => false,
    }
}

/// The blocks of a PEM text, each from its first to its last line. What stands between them is commentary.
fn pem_blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with("-----BEGIN ") {
            open = Some(String::new());
        }
        if let Some(block) = &mut open {
            block.push_str(line);
            block.push('\n');
        }
        if line.starts_with("-----END ") {
            blocks.extend(open.take());
        }
    }
    blocks
}

/// The wire's name of an algorithm.
pub(super) fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::HS256 => "HS256",
        Algorithm::HS384 => "HS384",
        Algorithm::HS512 => "HS512",
        Algorithm::RS256 => "RS256",
        Algorithm::RS384 => "RS384",
        Algorithm::RS512 => "RS512",
        Algorithm::PS256 => "PS256",
        Algorithm::PS384 => "PS384",
        Algorithm::PS512 => "PS512",
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        Algorithm::EdDSA => "EdDSA",
        _ => "an unknown algorithm",
    }
}

/// Keys without a name are tried one after the other, which a wrong token makes us do.
pub const UNNAMED_KEYS_MAX: usize = 4;

/// Keys of one published set; more refuse the set.
pub const JWKS_KEYS_MAX: usize = 64;

const KEY_ID_BYTES_MAX: usize = 256;

const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
