//! The fuzz targets of this crate; see `plenary_media_core::fuzzing`.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};

use crate::token::{
    Claims, DEFAULT_LEEWAY, DEVELOPMENT_SECRET, Issuer, JWKS_KEYS_MAX, Keys, Minter, PublicKey, TokenError, Verifier,
};

/// What is done with an input.
pub type Body = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Body)] = &[("jwt", jwt), ("jwks", jwks)];

const NOW: u64 = 1_800_000_000;
static KEYS: LazyLock<Keys> = LazyLock::new(Keys::development);
static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| Verifier::new(&KEYS, DEFAULT_LEEWAY));

/// A token; and header and claims of one, parted by the first line end, which is properly signed here.
fn jwt(input: &[u8]) {
    if let Ok(token) = std::str::from_utf8(input) {
        let _ = VERIFIER.verify(token, NOW);
    }
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(DEVELOPMENT_SECRET.as_bytes());
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("it signs anything");
    let verdict = VERIFIER.verify(&format!("{message}.{signature}"), NOW);
    assert_ne!(verdict, Err(TokenError::Signature), "it was signed with the right secret");
    if let Ok(claims) = verdict {
        means_the_same_again(&claims);
    }
}

/// A key set as an issuer publishes it, by itself and where the configuration fixes an algorithm. With whatever is in it,
/// nobody gets in who does not have a private key.
fn jwks(set: &[u8]) {
    for only in [None, Some(Algorithm::RS256), Some(Algorithm::PS512), Some(Algorithm::ES256), Some(Algorithm::EdDSA)] {
        let Ok(keys) = PublicKey::from_jwks(set, only) else { continue };
        assert!((1..=JWKS_KEYS_MAX).contains(&keys.len()));
        let tried: Vec<_> = keys.iter().take(4).map(|key| (key.algorithm(), key.id().map(str::to_owned))).collect();
        for key in &keys {
            assert!(only.is_none_or(|only| only == key.algorithm()));
            assert!(!HMAC.contains(&key.algorithm()), "a public secret is none");
        }
        let mut trusted = Keys::new();
        let issuer = Issuer { keys: Some(keys), audience: Vec::new() };
        trusted.add_issuer("idp", issuer).expect("a good name");
        let verifier = Verifier::new(&trusted, DEFAULT_LEEWAY);
        for (algorithm, id) in tried {
            for (algorithm, secret) in [(algorithm, None), (Algorithm::HS256, Some(set))] {
                let header = serde_json::json!({ "alg": format!("{algorithm:?}"), "kid": id });
                let claims = serde_json::json!({ "iss": "idp", "sub": "me", "exp": NOW + 60, "video": {} });
                let encode = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
                let message = format!("{}.{}", encode(&header), encode(&claims));
                let signature = match secret {
                    Some(set) => crypto::sign(message.as_bytes(), &EncodingKey::from_secret(set), algorithm),
                    None => Ok(URL_SAFE_NO_PAD.encode([0; 64])),
                };
                let token = format!("{message}.{}", signature.expect("it signs anything"));
                assert!(verifier.verify(&token, NOW).is_err(), "{token} was let in");
            }
        }
    }
}

const HMAC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// What was believed of a token is what a fresh one of ours says.
fn means_the_same_again(claims: &Claims) {
    claims.permission();
    claims.identity();
    let Ok(token) = Minter::new(&KEYS).mint(claims) else { return };
    let again = VERIFIER.verify(&token, NOW).expect("what we mint is good");
    assert_eq!((again.identity(), again.permission()), (claims.identity(), claims.permission()));
    assert_eq!((&again.video.room, again.video.room_admin), (&claims.video.room, claims.video.room_admin));
}

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "the input is shown when the test fails")]
mod tests {
    use super::*;

    #[test]
    fn every_kept_input_is_quiet() {
        let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, target) in TARGETS {
            target(&[]);
            let mut kept = 0;
            for entry in std::fs::read_dir(corpora.join(name)).expect("it has a corpus") {
                let path = entry.unwrap().path();
                eprintln!("{}", path.display());
                target(&std::fs::read(path).unwrap());
                kept += 1;
            }
            assert!(kept > 0, "{name} has a first input");
        }
    }
}
