//! Tokens of issuers with public keys: every algorithm, and every way to confuse one key or algorithm with another.

use std::{sync::OnceLock, time::Duration};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        Ed25519KeyPair, KeyPair,
    },
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64},
};
use jsonwebtoken::{EncodingKey, crypto};
use plenary_protocol::token::{
    Algorithm, Claims, DEFAULT_LEEWAY, Issuer, JWKS_KEYS_MAX, KeyError, Keys, PublicKey, PublicKeyError,
    TOKEN_BYTES_MAX, TokenError, Verifier,
};
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;
const IDP: &str = "https://login.example/realms/product";
const ALL: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// A key pair of an issuer.
struct Pair {
    signing: EncodingKey,
    public_pem: String,
    private_pem: String,
    /// The members of its JSON Web Key (RFC 7518 6).
    numbers: Value,
}

impl Pair {
    fn jwk(&self, algorithm: Algorithm, kid: &str) -> Value {
        let mut jwk = self.numbers.clone();
        jwk["alg"] = json!(format!("{algorithm:?}"));
        jwk["kid"] = json!(kid);
        jwk["use"] = json!("sig");
        jwk
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn rsa(size: KeySize) -> Pair {
    let pair = RsaKeyPair::generate(size).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let (modulus, exponent) = (pair.public_key().modulus(), pair.public_key().exponent());
    let (modulus, exponent) = (modulus.big_endian_without_leading_zero(), exponent.big_endian_without_leading_zero());
    let private_pem = pem("PRIVATE KEY", private.as_ref());
    Pair {
        signing: EncodingKey::from_rsa_pem(private_pem.as_bytes()).unwrap(),
        public_pem: pem("PUBLIC KEY", public.as_ref()),
        private_pem,
        numbers: json!({ "kty": "RSA", "n": BASE64.encode(modulus), "e": BASE64.encode(exponent) }),
    }
}

fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> Pair {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let private = pair.to_pkcs8v1().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    let curve = if x.len() == 32 { "P-256" } else { "P-384" };
    let private_pem = pem("PRIVATE KEY", private.as_ref());
    Pair {
        signing: EncodingKey::from_ec_pem(private_pem.as_bytes()).unwrap(),
        public_pem: pem("PUBLIC KEY", public.as_ref()),
        private_pem,
        numbers: json!({ "kty": "EC", "crv": curve, "x": BASE64.encode(x), "y": BASE64.encode(y) }),
    }
}

fn ed() -> Pair {
    let pair = Ed25519KeyPair::generate().unwrap();
    let private = pair.to_pkcs8().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let private_pem = pem("PRIVATE KEY", private.as_ref());
    Pair {
        signing: EncodingKey::from_ed_pem(private_pem.as_bytes()).unwrap(),
        public_pem: pem("PUBLIC KEY", public.as_ref()),
        private_pem,
        numbers: json!({ "kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(pair.public_key().as_ref()) }),
    }
}

/// The issuer's pair for an algorithm, and a stranger's of the same kind.
fn pairs(algorithm: Algorithm) -> (&'static Pair, &'static Pair) {
    static RSA: OnceLock<(Pair, Pair)> = OnceLock::new();
    static P256: OnceLock<(Pair, Pair)> = OnceLock::new();
    static P384: OnceLock<(Pair, Pair)> = OnceLock::new();
    static ED: OnceLock<(Pair, Pair)> = OnceLock::new();
    let (own, foreign) = match algorithm {
        Algorithm::ES256 => {
            P256.get_or_init(|| (ec(&ECDSA_P256_SHA256_FIXED_SIGNING), ec(&ECDSA_P256_SHA256_FIXED_SIGNING)))
        }
        Algorithm::ES384 => {
            P384.get_or_init(|| (ec(&ECDSA_P384_SHA384_FIXED_SIGNING), ec(&ECDSA_P384_SHA384_FIXED_SIGNING)))
        }
        Algorithm::EdDSA => ED.get_or_init(|| (ed(), ed())),
        _ => RSA.get_or_init(|| (rsa(KeySize::Rsa2048), rsa(KeySize::Rsa2048))),
    };
    (own, foreign)
}

fn signed_text(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let signature = crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

fn signed(header: Value, claims: Value, algorithm: Algorithm) -> String {
    signed_text(&header.to_string(), &claims.to_string(), &pairs(algorithm).0.signing, algorithm)
}

fn good_claims() -> Value {
    json!({ "iss": IDP, "sub": "ann", "exp": NOW + 600, "video": { "roomJoin": true, "room": "r" } })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good_claims();
    claims[name] = value;
    claims
}

fn header(algorithm: Algorithm) -> Value {
    json!({ "alg": format!("{algorithm:?}"), "typ": "JWT" })
}

fn verifier(issuer: Issuer) -> Verifier {
    let mut keys = Keys::new();
    keys.add("api", "a secret of at least thirty-two bytes".into()).unwrap();
    keys.add_issuer(IDP, issuer).unwrap();
    Verifier::new(&keys, DEFAULT_LEEWAY)
}

fn with_pem(algorithm: Algorithm) -> Verifier {
    let keys = PublicKey::from_pem(&pairs(algorithm).0.public_pem, algorithm).unwrap();
    verifier(Issuer { keys: Some(keys), audience: Vec::new() })
}

fn with_jwks(jwks: Value) -> Verifier {
    let keys = PublicKey::from_jwks(jwks.to_string().as_bytes(), None).unwrap();
    verifier(Issuer { keys: Some(keys), audience: Vec::new() })
}

fn verify(verifier: &Verifier, token: &str) -> Result<Claims, TokenError> {
    verifier.verify(token, NOW)
}

#[test]
fn every_algorithm_is_good_by_pem_and_by_jwks() {
    for algorithm in ALL {
        let by_pem = with_pem(algorithm);
        assert_eq!(
            verify(&by_pem, &signed(header(algorithm), good_claims(), algorithm)).unwrap().identity(),
            Some("ann")
        );
        let by_jwks = with_jwks(json!({ "keys": [pairs(algorithm).0.jwk(algorithm, "k1")] }));
        for kid in [json!("k1"), Value::Null] {
            let header = json!({ "alg": format!("{algorithm:?}"), "kid": kid, "typ": "at+jwt" });
            assert!(verify(&by_jwks, &signed(header, good_claims(), algorithm)).is_ok(), "{algorithm:?} {kid}");
        }
    }
}

#[test]
fn no_algorithm_passes_for_another() {
    for ours in ALL {
        let doors = with_pem(ours);
        for theirs in ALL.into_iter().filter(|theirs| *theirs != ours) {
            // Signed with the issuer's very key where the algorithms share one.
            let outcome = verify(&doors, &signed(header(theirs), good_claims(), theirs));
            assert!(matches!(outcome, Err(TokenError::Algorithm(_))), "{theirs:?} for {ours:?}: {outcome:?}");
            // The same signature under the right name.
            let renamed =
                signed_text(&header(ours).to_string(), &good_claims().to_string(), &pairs(theirs).0.signing, theirs);
            assert_eq!(verify(&doors, &renamed), Err(TokenError::Signature), "{theirs:?} called {ours:?}");
        }
        for name in ["none", "NONE", "", "HS256", "HS512", "ES256K", "RS256\n"] {
            let mut token = signed(json!({ "alg": name }), good_claims(), ours);
            let outcome = verify(&doors, &token);
            assert!(matches!(outcome, Err(TokenError::Algorithm(_))), "{name}: {outcome:?}");
            token.truncate(token.rfind('.').unwrap() + 1);
            let outcome = verify(&doors, &token);
            assert!(matches!(outcome, Err(TokenError::Algorithm(_))), "{name} unsigned: {outcome:?}");
        }
    }
}

#[test]
fn a_public_key_is_no_secret() {
    for algorithm in ALL {
        let (own, _) = pairs(algorithm);
        let doors = with_pem(algorithm);
        let public = own.jwk(algorithm, "k1").to_string();
        for secret in [own.public_pem.as_bytes(), own.public_pem.trim_end().as_bytes(), public.as_bytes(), b""] {
            for (name, hmac) in [("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)]
            {
                let forged = signed_text(
                    &json!({ "alg": name }).to_string(),
                    &good_claims().to_string(),
                    &EncodingKey::from_secret(secret),
                    hmac,
                );
                assert_eq!(verify(&doors, &forged), Err(TokenError::Algorithm(name)), "{algorithm:?}");
            }
        }
        assert_eq!(Keys::new().add("api", own.public_pem.clone().into()), Err(KeyError::PublicSecret));
    }
    // A set that publishes a symmetric key publishes a forger's tool.
    let symmetric = json!({ "keys": [{ "kty": "oct", "k": BASE64.encode([7; 64]), "alg": "HS256", "kid": "k1" }] });
    let outcome = PublicKey::from_jwks(symmetric.to_string().as_bytes(), None);
    assert_eq!(outcome.unwrap_err(), PublicKeyError::NoneUsable);
    let doors =
        with_jwks(json!({ "keys": [symmetric["keys"][0], pairs(Algorithm::EdDSA).0.jwk(Algorithm::EdDSA, "k2")] }));
    let forged = signed_text(
        r#"{"alg":"HS256","kid":"k1"}"#,
        &good_claims().to_string(),
        &EncodingKey::from_secret(&[7; 64]),
        Algorithm::HS256,
    );
    assert_eq!(verify(&doors, &forged), Err(TokenError::UnknownKid));
}

#[test]
fn api_keys_and_issuers_do_not_sign_for_each_other() {
    for algorithm in ALL {
        let doors = with_pem(algorithm);
        let as_api_key = signed(header(algorithm), with("iss", json!("api")), algorithm);
        assert!(matches!(verify(&doors, &as_api_key), Err(TokenError::Algorithm(_))));
        let secret = EncodingKey::from_secret(b"a secret of at least thirty-two bytes");
        let as_issuer =
            signed_text(&json!({ "alg": "HS256" }).to_string(), &good_claims().to_string(), &secret, Algorithm::HS256);
        assert_eq!(verify(&doors, &as_issuer), Err(TokenError::Algorithm("HS256")));
        for issuer in ["https://login.example/realms/product/", "HTTPS://login.example/realms/product", "other"] {
            let token = signed(header(algorithm), with("iss", json!(issuer)), algorithm);
            assert_eq!(verify(&doors, &token), Err(TokenError::UnknownKey), "{issuer}");
        }
    }
}

#[test]
fn what_is_signed_by_a_stranger_or_changed_afterwards_is_refused() {
    for algorithm in ALL {
        let (_, foreign) = pairs(algorithm);
        let doors = with_pem(algorithm);
        let text = (header(algorithm).to_string(), good_claims().to_string());
        let stranger = signed_text(&text.0, &text.1, &foreign.signing, algorithm);
        assert_eq!(verify(&doors, &stranger), Err(TokenError::Signature), "{algorithm:?}");
        let good = signed(header(algorithm), good_claims(), algorithm);
        let (message, signature) = good.rsplit_once('.').unwrap();
        let (head, _) = message.split_once('.').unwrap();
        let other = BASE64.encode(with("sub", json!("bob")).to_string());
        for token in [
            format!("{head}.{other}.{signature}"),
            format!("{message}."),
            format!("{message}.{}", &signature[..signature.len() / 2 / 4 * 4]),
            format!("{message}.{}", BASE64.encode([0; 64])),
            format!("{message}.{}", BASE64.encode([0; 256])),
        ] {
            assert_eq!(verify(&doors, &token), Err(TokenError::Signature), "{algorithm:?} {token}");
        }
        assert_eq!(verify(&doors, &format!("{message}.!")), Err(TokenError::Malformed));
    }
}

#[test]
fn a_key_id_finds_a_key_and_does_nothing_else() {
    let (p256, ed) = (pairs(Algorithm::ES256).0, pairs(Algorithm::EdDSA).0);
    let doors = with_jwks(json!({ "keys": [p256.jwk(Algorithm::ES256, "ec"), ed.jwk(Algorithm::EdDSA, "ed")] }));
    let token = |kid: Value| signed(json!({ "alg": "ES256", "kid": kid }), good_claims(), Algorithm::ES256);
    assert!(verify(&doors, &token(json!("ec"))).is_ok());
    assert_eq!(verify(&doors, &token(json!("ed"))), Err(TokenError::Algorithm("ES256")));
    for unknown in ["", "EC", "../ec", "../../../etc/passwd", "' OR 1=1 --", "ec\0", "http://169.254.169.254/"] {
        assert_eq!(verify(&doors, &token(json!(unknown))), Err(TokenError::UnknownKid), "{unknown}");
    }
    for odd in [json!(1), json!(["ec"]), json!({ "kid": "ec" })] {
        assert_eq!(verify(&doors, &token(odd.clone())), Err(TokenError::Header), "{odd}");
    }
    assert_eq!(verify(&doors, &token(json!("x".repeat(1 << 20)))), Err(TokenError::TooLarge));
    assert_eq!(verify(&doors, &token(json!("x".repeat(TOKEN_BYTES_MAX / 2)))), Err(TokenError::UnknownKid));
    // Keys that a token brings along are nobody's.
    let foreign = pairs(Algorithm::ES256).1;
    let header = json!({ "alg": "ES256", "kid": "ec", "jwk": foreign.jwk(Algorithm::ES256, "ec"),
                         "jku": "https://evil.example/jwks", "x5u": "https://evil.example/cert" });
    let forged = signed_text(&header.to_string(), &good_claims().to_string(), &foreign.signing, Algorithm::ES256);
    assert_eq!(verify(&doors, &forged), Err(TokenError::Signature));
}

#[test]
fn a_token_must_name_its_key_among_many() {
    let keys = |count: usize| {
        let all: Vec<_> =
            (0..count).map(|number| pairs(Algorithm::ES256).0.jwk(Algorithm::ES256, &format!("k{number}"))).collect();
        with_jwks(json!({ "keys": all }))
    };
    let token = |kid: Value| signed(json!({ "alg": "ES256", "kid": kid }), good_claims(), Algorithm::ES256);
    assert!(verify(&keys(4), &token(Value::Null)).is_ok());
    assert_eq!(verify(&keys(5), &token(Value::Null)), Err(TokenError::NoKid), "signatures are not tried without end");
    assert!(verify(&keys(5), &token(json!("k4"))).is_ok());
}

#[test]
fn keys_that_must_not_sign_tokens_are_passed_over() {
    let good = || pairs(Algorithm::ES256).0.jwk(Algorithm::ES256, "k");
    let rsa_key = || pairs(Algorithm::RS256).0.jwk(Algorithm::RS256, "k");
    let changed = |mut key: Value, name: &str, value: Value| {
        key[name] = value;
        key
    };
    let unusable = [
        changed(good(), "use", json!("enc")),
        changed(good(), "key_ops", json!(["encrypt"])),
        changed(good(), "alg", json!("ES384")),
        changed(good(), "alg", json!("HS256")),
        changed(good(), "alg", json!("RSA-OAEP")),
        changed(good(), "alg", json!("invented")),
        changed(good(), "crv", json!("P-521")),
        changed(good(), "crv", json!("secp256k1")),
        changed(good(), "kty", json!("invented")),
        changed(good(), "x", json!("AAAA")),
        changed(good(), "x", json!("not base64!")),
        changed(good(), "kid", json!("x".repeat(257))),
        changed(good(), "kid", json!(5)),
        changed(rsa_key(), "n", json!(BASE64.encode([0xff; 128]))),
        changed(rsa_key(), "n", json!(BASE64.encode([0xff; 1025]))),
        changed(rsa_key(), "e", json!("")),
        changed(rsa_key(), "alg", json!("ES256")),
        json!(null),
        json!("key"),
        json!({}),
    ];
    for key in unusable {
        let outcome = PublicKey::from_jwks(json!({ "keys": [key] }).to_string().as_bytes(), None);
        assert_eq!(outcome.unwrap_err(), PublicKeyError::NoneUsable, "{key}");
        let beside = PublicKey::from_jwks(json!({ "keys": [key, good()] }).to_string().as_bytes(), None).unwrap();
        assert_eq!(beside.len(), 1, "one bad key does not spoil the rest: {key}");
    }
    for text in ["", "{}", "[]", "null", "<html>", r#"{"keys":{}}"#, r#"{"keys":5}"#, "{\"keys\":[", "\u{0}"] {
        assert_eq!(PublicKey::from_jwks(text.as_bytes(), None).unwrap_err(), PublicKeyError::NotJwks, "{text}");
    }
    let many = json!({ "keys": vec![good(); JWKS_KEYS_MAX + 1] });
    let outcome = PublicKey::from_jwks(many.to_string().as_bytes(), None);
    assert_eq!(outcome.unwrap_err(), PublicKeyError::TooMany { limit: JWKS_KEYS_MAX });
}

#[test]
fn a_key_that_does_not_name_its_algorithm_still_has_one() {
    let bare = |algorithm: Algorithm| {
        let mut jwk = pairs(algorithm).0.jwk(algorithm, "k");
        jwk.as_object_mut().unwrap().remove("alg");
        json!({ "keys": [jwk] }).to_string()
    };
    let algorithm_of = |algorithm: Algorithm, only: Option<Algorithm>| {
        PublicKey::from_jwks(bare(algorithm).as_bytes(), only).map(|keys| keys[0].algorithm())
    };
    for (key, only, expected) in [
        (Algorithm::RS256, None, Ok(Algorithm::RS256)),
        (Algorithm::RS256, Some(Algorithm::PS384), Ok(Algorithm::PS384)),
        (Algorithm::RS256, Some(Algorithm::ES256), Err(PublicKeyError::NoneUsable)),
        (Algorithm::ES256, None, Ok(Algorithm::ES256)),
        (Algorithm::ES384, None, Ok(Algorithm::ES384)),
        (Algorithm::ES384, Some(Algorithm::ES256), Err(PublicKeyError::NoneUsable)),
        (Algorithm::EdDSA, None, Ok(Algorithm::EdDSA)),
        (Algorithm::EdDSA, Some(Algorithm::HS256), Err(PublicKeyError::NoneUsable)),
    ] {
        assert_eq!(algorithm_of(key, only), expected, "{key:?} {only:?}");
    }
}

#[test]
fn pem_files_hold_public_keys_of_the_right_kind_only() {
    let read = |text: &str, algorithm| PublicKey::from_pem(text, algorithm).map(|keys| keys.len());
    let (es256, es384) = (pairs(Algorithm::ES256), pairs(Algorithm::ES384));
    let (rs, ed) = (pairs(Algorithm::RS256), pairs(Algorithm::EdDSA));
    let not_of = |name| Err(PublicKeyError::NotOfAlgorithm(name));
    assert_eq!(read(&es384.0.public_pem, Algorithm::ES256), not_of("ES256"));
    assert_eq!(read(&es256.0.public_pem, Algorithm::ES384), not_of("ES384"));
    assert_eq!(read(&rs.0.public_pem, Algorithm::EdDSA), not_of("EdDSA"));
    assert_eq!(read(&ed.0.public_pem, Algorithm::PS256), not_of("PS256"));
    assert_eq!(read(&rs.0.public_pem, Algorithm::HS256), Err(PublicKeyError::Symmetric));
    for (pair, algorithm) in
        [(rs.0, Algorithm::RS256), (es256.0, Algorithm::ES256), (es384.0, Algorithm::ES384), (ed.0, Algorithm::EdDSA)]
    {
        assert_eq!(read(&pair.private_pem, algorithm), Err(PublicKeyError::Private));
        let with_both = format!("{}{}", pair.public_pem, pair.private_pem);
        assert_eq!(read(&with_both, algorithm), Err(PublicKeyError::Private));
    }
    for text in ["", "hello", "-----BEGIN PUBLIC KEY-----\n", "-----END PUBLIC KEY-----\n"] {
        assert_eq!(read(text, Algorithm::ES256), Err(PublicKeyError::NotPem), "{text}");
    }
    for text in [pem("PUBLIC KEY", b"junk"), pem("PUBLIC KEY", b""), pem("CERTIFICATE REQUEST", &[0x30, 0])] {
        assert_eq!(read(&text, Algorithm::ES256), not_of("ES256"), "{text}");
    }
    let both = format!("# old\n{}\n# new\r\n{}", es256.0.public_pem, es256.1.public_pem);
    assert_eq!(read(&both, Algorithm::ES256), Ok(2), "while a key is rotated both are good");
    assert_eq!(read(&es256.0.public_pem.repeat(5), Algorithm::ES256), Err(PublicKeyError::TooMany { limit: 4 }));
}

#[test]
fn the_audience_is_one_of_ours_or_nobody() {
    let doors = |audience: &[&str]| {
        let keys = PublicKey::from_pem(&pairs(Algorithm::EdDSA).0.public_pem, Algorithm::EdDSA).unwrap();
        verifier(Issuer { keys: Some(keys), audience: audience.iter().map(|one| (*one).into()).collect() })
    };
    let token = |aud: Value| signed(header(Algorithm::EdDSA), with("aud", aud), Algorithm::EdDSA);
    let ours = doors(&["plenary", "calls"]);
    for good in [json!("plenary"), json!("calls"), json!(["other", "calls"])] {
        assert!(verify(&ours, &token(good.clone())).is_ok(), "{good}");
    }
    for wrong in [Value::Null, json!(""), json!("other"), json!([]), json!(["Plenary", "plenary "])] {
        assert_eq!(verify(&ours, &token(wrong.clone())), Err(TokenError::Audience), "{wrong}");
    }
    for odd in [json!(5), json!({ "plenary": 1 }), json!(["plenary", 5])] {
        assert_eq!(verify(&ours, &token(odd.clone())), Err(TokenError::BadClaims), "{odd}");
    }
    let nobody = doors(&[]);
    assert!(verify(&nobody, &token(Value::Null)).is_ok());
    assert_eq!(verify(&nobody, &token(json!("somebody else's service"))), Err(TokenError::Audience));
}

#[test]
fn time_is_checked_for_them_too() {
    let doors = with_pem(Algorithm::ES256).with_life_max(Duration::from_secs(3_600));
    let at = |name: &str, time: Value| {
        verify(&doors, &signed(header(Algorithm::ES256), with(name, time), Algorithm::ES256)).map(|_| ())
    };
    assert_eq!(at("exp", Value::Null), Err(TokenError::NoExpiry));
    assert_eq!(at("exp", json!(NOW - 60)), Ok(()));
    assert_eq!(at("exp", json!(NOW - 61)), Err(TokenError::Expired { ago_s: 61, now_unix_s: NOW }));
    assert_eq!(at("nbf", json!(NOW + 61)), Err(TokenError::NotYetValid { in_s: 61, now_unix_s: NOW }));
    assert_eq!(at("exp", json!(NOW + 3_660)), Ok(()));
    assert_eq!(at("exp", json!(NOW + 3_661)), Err(TokenError::TooLong { limit_s: 3_600 }));
    assert_eq!(at("exp", json!(u64::MAX)), Err(TokenError::TooLong { limit_s: 3_600 }));
}

#[test]
fn keys_not_fetched_yet_are_not_the_tokens_fault() {
    let doors = verifier(Issuer::default());
    let token = signed(header(Algorithm::ES256), good_claims(), Algorithm::ES256);
    let error = verify(&doors, &token).unwrap_err();
    assert_eq!((error, error.http_status()), (TokenError::KeysUnavailable, 503), "clients try again after a 503");
    assert_eq!(doors.issuer_of(&token).as_deref(), Some(IDP));
    let of_api_key = signed(header(Algorithm::ES256), with("iss", json!("api")), Algorithm::ES256);
    for nobody in [of_api_key.as_str(), "a.b.c", "", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
        assert_eq!(doors.issuer_of(nobody), None, "nothing to fetch for this one");
    }
}
