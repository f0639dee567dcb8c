//! Every way a token can be wrong, and the odd but right ones that released minters write.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use plenary_protocol::token::{Claims, DEFAULT_LEEWAY, Keys, Minter, TOKEN_BYTES_MAX, TokenError, Verifier};
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;
const SECRET: &str = "a secret of at least thirty-two bytes";
const NEWER: &str = "the secret that is being rotated in now";
const FOREIGN: &str = "the secret of somebody else altogether";

fn keys() -> Keys {
    let mut keys = Keys::new();
    keys.add("api", SECRET.into()).unwrap();
    keys.add("other", FOREIGN.into()).unwrap();
    keys
}

fn verify(token: &str) -> Result<Claims, TokenError> {
    Verifier::new(&keys(), DEFAULT_LEEWAY).verify(token, NOW)
}

/// A token of exactly these bytes, properly signed.
fn signed_text(header: &str, claims: &str, secret: &str) -> String {
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn signed(header: Value, claims: Value) -> String {
    signed_text(&header.to_string(), &claims.to_string(), SECRET)
}

fn good_claims() -> Value {
    json!({ "iss": "api", "sub": "ann", "exp": NOW + 600, "video": { "roomJoin": true, "room": "r" } })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good_claims();
    claims[name] = value;
    claims
}

#[test]
fn headers_as_released_minters_write_them_are_accepted() {
    for header in
        [json!({ "alg": "HS256" }), json!({ "alg": "HS256", "typ": "JWT" }), json!({ "typ": "jwt", "alg": "HS256" })]
    {
        assert_eq!(verify(&signed(header, good_claims())).unwrap().identity(), Some("ann"));
    }
}

#[test]
fn claims_as_released_minters_write_them_are_accepted() {
    let node = json!({
        "video": { "roomJoin": true, "room": "r", "canPublish": true, "canSubscribe": true }, "name": "Ann",
        "metadata": "{\"a\":1}", "attributes": { "k": "v" }, "iss": "api", "exp": NOW + 21_600, "nbf": 0, "sub": "ann",
    });
    let python = json!({
        "sub": "ann", "iss": "api", "nbf": NOW, "exp": NOW + 21_600, "name": "Ann", "metadata": "", "sha256": "",
        "kind": "standard", "attributes": {}, "roomPreset": "", "sip": null, "roomConfig": null,
        "video": { "roomJoin": true, "room": "r", "canPublish": true, "canUpdateOwnMetadata": null, "hidden": false },
    });
    let go = json!({
        "exp": NOW + 21_600, "iss": "api", "jti": "ann", "name": "Ann", "nbf": NOW, "sub": "ann", "kindDetails": [],
        "video": { "roomJoin": true, "room": "r" }, "inference": { "perform": true }, "somethingNew": { "x": [1, 2] },
    });
    for claims in [node, python, go] {
        let read = verify(&signed(json!({ "alg": "HS256" }), claims)).unwrap();
        assert_eq!((read.identity(), read.name.as_str()), (Some("ann"), "Ann"));
        assert!(read.video.room_join && read.permission().can_publish && !read.permission().can_update_metadata);
    }
}

#[test]
fn every_algorithm_but_the_keys_own_is_refused_by_name() {
    for name in ["none", "HS384", "HS512", "RS256", "ES256", "PS512", "EdDSA"] {
        let token = signed(json!({ "alg": name }), good_claims());
        assert_eq!(verify(&token), Err(TokenError::Algorithm(name)), "{name}");
    }
    let unsigned = signed(json!({ "alg": "none" }), good_claims());
    let unsigned = &unsigned[..=unsigned.rfind('.').unwrap()];
    assert_eq!(verify(unsigned), Err(TokenError::Algorithm("none")));
    assert_eq!(verify(&signed(json!({ "alg": "NoNe" }), good_claims())), Err(TokenError::Algorithm("none")));
    assert_eq!(verify(&signed(json!({ "alg": "hs256" }), good_claims())), Err(TokenError::Algorithm("of that name")));

    let forged = signed(json!({ "alg": "HS256\nforged log line" }), good_claims());
    assert!(!verify(&forged).unwrap_err().to_string().contains("forged"));
}

#[test]
fn headers_that_ask_for_more_are_refused_and_key_hints_are_ignored() {
    let refused = [
        json!({ "alg": "HS256", "typ": "application/x-evil" }),
        json!({ "alg": "HS256", "typ": "JWE" }),
        json!({ "alg": "HS256", "crit": ["b64"], "b64": false }),
    ];
    for header in refused {
        assert_eq!(verify(&signed(header.clone(), good_claims())), Err(TokenError::Header), "{header}");
    }
    let hints = [
        json!({ "alg": "HS256", "kid": "../../../dev/null" }),
        json!({ "alg": "HS256", "kid": "' OR 1=1 --" }),
        json!({ "alg": "HS256", "kid": { "a": [1] } }),
        json!({ "alg": "HS256", "jku": "http://169.254.169.254/", "x5u": "file:///etc/passwd", "jwk": { "kty": "oct", "k": "AA" } }),
    ];
    for header in hints {
        assert!(verify(&signed(header.clone(), good_claims())).is_ok(), "{header}");
        let forged = signed_text(&header.to_string(), &good_claims().to_string(), "");
        assert_eq!(verify(&forged), Err(TokenError::Signature), "{header}");
    }
}

#[test]
fn what_is_not_a_token_is_malformed() {
    let good = signed(json!({ "alg": "HS256" }), good_claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let mut wrong: Vec<String> =
        ["", ".", "..", "...", "a.b.c", "a.b", "🦀.🦀.🦀", "\0.\0.\0"].map(String::from).into();
    wrong.push(message.into());
    wrong.push(format!("{good}."));
    wrong.push(format!(".{good}"));
    wrong.push(format!("{message}.{signature}="));
    wrong.push(format!("{message}.!{signature}"));
    wrong.push(format!(" {good}"));
    wrong.push(signed_text("[]", &good_claims().to_string(), SECRET));
    wrong.push(signed_text("{}", &good_claims().to_string(), SECRET));
    wrong.push(signed_text(r#"{"alg":5}"#, &good_claims().to_string(), SECRET));
    wrong.push(signed_text(r#"{"alg":"HS256","alg":"none"}"#, &good_claims().to_string(), SECRET));
    wrong.push(signed_text(r#"{"alg":"HS256"}"#, "nonsense", SECRET));
    wrong.push(signed_text(r#"{"alg":"HS256"}"#, r#"{"iss":"api","iss":"other"}"#, SECRET));
    wrong.push(signed_text(r#"{"alg":"HS256"}"#, &format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000)), SECRET));
    for token in wrong {
        assert_eq!(verify(&token), Err(TokenError::Malformed), "{token:?}");
    }
}

#[test]
fn the_signature_must_be_of_the_issuers_own_secret() {
    let header = json!({ "alg": "HS256" });
    let foreign = signed_text(&header.to_string(), &good_claims().to_string(), FOREIGN);
    assert_eq!(verify(&foreign), Err(TokenError::Signature));
    assert_eq!(verify(&signed(header.clone(), with("iss", json!("other")))), Err(TokenError::Signature));
    for issuer in [json!("nobody"), json!(""), Value::Null, json!("api ")] {
        assert_eq!(
            verify(&signed(header.clone(), with("iss", issuer.clone()))),
            Err(TokenError::UnknownKey),
            "{issuer}"
        );
    }
    assert_eq!(verify(&signed(header.clone(), with("iss", json!(["api"])))), Err(TokenError::Malformed));

    let good = signed(header, good_claims());
    let (_, signature) = good.rsplit_once('.').unwrap();
    let other_claims = BASE64.encode(with("sub", json!("bob")).to_string());
    let (header_part, _) = good.split_once('.').unwrap();
    assert_eq!(verify(&format!("{header_part}.{other_claims}.{signature}")), Err(TokenError::Signature));
    assert_eq!(verify(&format!("{}.", good.rsplit_once('.').unwrap().0)), Err(TokenError::Signature));
    assert_eq!(Verifier::new(&Keys::new(), DEFAULT_LEEWAY).verify(&good, NOW), Err(TokenError::UnknownKey));
}

#[test]
fn time_is_checked_with_the_leeway_on_both_sides() {
    let header = json!({ "alg": "HS256" });
    let at = |name: &str, time: u64| verify(&signed(header.clone(), with(name, json!(time)))).map(|_| ());
    assert_eq!(at("exp", NOW - 60), Ok(()));
    assert_eq!(at("exp", NOW - 61), Err(TokenError::Expired { ago_s: 61, now_unix_s: NOW }));
    assert_eq!(at("exp", 0), Err(TokenError::Expired { ago_s: NOW, now_unix_s: NOW }));
    assert_eq!(at("exp", u64::MAX), Ok(()));
    assert_eq!(at("nbf", NOW + 60), Ok(()));
    assert_eq!(at("nbf", NOW + 61), Err(TokenError::NotYetValid { in_s: 61, now_unix_s: NOW }));
    assert_eq!(at("nbf", u64::MAX), Err(TokenError::NotYetValid { in_s: u64::MAX - NOW, now_unix_s: NOW }));
    assert_eq!(verify(&signed(header.clone(), with("exp", Value::Null))), Err(TokenError::NoExpiry));

    let strict = Verifier::new(&keys(), Duration::ZERO);
    let just_expired = signed(header, with("exp", json!(NOW - 1)));
    assert_eq!(strict.verify(&just_expired, NOW), Err(TokenError::Expired { ago_s: 1, now_unix_s: NOW }));
    assert!(strict.verify(&just_expired, NOW - 1).is_ok());
}

#[test]
fn claims_of_the_wrong_shape_are_refused() {
    let header = json!({ "alg": "HS256" });
    let wrong = [
        with("exp", json!("tomorrow")),
        with("nbf", json!(-5)),
        with("sub", json!(5)),
        with("metadata", json!({ "a": 1 })),
        with("attributes", json!({ "a": 1 })),
        with("video", json!({ "roomJoin": "yes" })),
        with("video", json!({ "canPublishSources": "camera" })),
    ];
    for claims in wrong {
        assert_eq!(verify(&signed(header.clone(), claims.clone())), Err(TokenError::BadClaims), "{claims}");
    }
}

#[test]
fn duplicate_claims_are_refused_and_duplicate_attributes_harmless() {
    let texts = [
        format!(r#"{{"iss":"api","exp":{0},"sub":"ann","sub":"root"}}"#, NOW + 9),
        format!(r#"{{"iss":"api","exp":1,"exp":{0}}}"#, NOW + 9),
        format!(r#"{{"iss":"api","exp":{0},"video":{{}},"video":{{"roomAdmin":true}}}}"#, NOW + 9),
        format!(r#"{{"iss":"api","exp":{0},"video":{{"room":"a","room":"b"}}}}"#, NOW + 9),
    ];
    for text in texts {
        assert_eq!(verify(&signed_text(r#"{"alg":"HS256"}"#, &text, SECRET)), Err(TokenError::BadClaims), "{text}");
    }
    let text = format!(r#"{{"iss":"api","exp":{0},"attributes":{{"a":"1","a":"2"}}}}"#, NOW + 9);
    let claims = verify(&signed_text(r#"{"alg":"HS256"}"#, &text, SECRET)).unwrap();
    assert_eq!(claims.attributes.len(), 1);
}

#[test]
fn size_is_refused_before_anything_is_decoded() {
    let huge_header = signed(json!({ "alg": "HS256", "kid": "x".repeat(1 << 20) }), good_claims());
    assert_eq!(verify(&huge_header), Err(TokenError::TooLarge));
    assert_eq!(verify(&"\u{1F980}".repeat(1 << 20)), Err(TokenError::TooLarge));
    assert_eq!(verify(&"x".repeat(TOKEN_BYTES_MAX)), Err(TokenError::Malformed));
    assert_eq!(verify(&"x".repeat(TOKEN_BYTES_MAX + 1)), Err(TokenError::TooLarge));
}

#[test]
fn a_secret_is_rotated_without_refusing_anybody() {
    let header = json!({ "alg": "HS256" }).to_string();
    let old = signed_text(&header, &good_claims().to_string(), SECRET);
    let new = signed_text(&header, &good_claims().to_string(), NEWER);
    let mut both = Keys::new();
    both.add("api", NEWER.into()).unwrap();
    both.add("api", SECRET.into()).unwrap();
    let verifier = Verifier::new(&both, DEFAULT_LEEWAY);
    assert!(verifier.verify(&old, NOW).is_ok() && verifier.verify(&new, NOW).is_ok());

    let minted = Minter::new(&both).mint(&verifier.verify(&old, NOW).unwrap()).unwrap();
    let mut after = Keys::new();
    after.add("api", NEWER.into()).unwrap();
    let verifier = Verifier::new(&after, DEFAULT_LEEWAY);
    assert!(verifier.verify(&minted, NOW).is_ok(), "the first secret signs");
    assert_eq!(verifier.verify(&old, NOW), Err(TokenError::Signature));
}

#[test]
fn no_refusal_repeats_the_token_or_shows_a_secret() {
    let token = signed(json!({ "alg": "HS256" }), with("iss", json!("mallory-was-here")));
    let error = verify(&token).unwrap_err();
    for text in [error.to_string(), format!("{error:?}"), format!("{:?}", Verifier::new(&keys(), DEFAULT_LEEWAY))] {
        assert!(!text.contains("mallory") && !text.contains("eyJ") && !text.contains("secret of"), "{text}");
    }
    assert_eq!(error.http_status(), 401);
}
