//! Keys that are fetched from an issuer on loopback, who rotates them, breaks down, talks nonsense and says nothing.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64},
};
use plenary_protocol::token::{PublicKeyError, TokenError};
use serde_json::{Value, json};

use super::*;
use crate::config::{Settings, Sources};

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://login.example";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What the issuer does when it is asked.
#[derive(Debug, Clone)]
enum Answer {
    Keys(String),
    Status(u16),
    RedirectTo(String),
    /// More than is read, at once or without end.
    Huge,
    Endless,
    HangUp,
    NotHttp,
    /// Takes the question and keeps the connection.
    Silence,
}

/// An issuer's server. Its thread ends with the process.
struct Idp {
    url: String,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
}

impl Idp {
    fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let idp = Self { url, answer: Arc::new(Mutex::new(answer)), asked: Arc::default() };
        let (answer, asked) = (idp.answer.clone(), idp.asked.clone());
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming().flatten() {
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = answer.lock().unwrap().clone();
                kept.extend(serve(stream, &answer));
            }
        });
        idp
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Gives back the connection if it shall stay open.
fn serve(mut stream: TcpStream, answer: &Answer) -> Option<TcpStream> {
    if !matches!(answer, Answer::HangUp) {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        while lines.next()?.ok().is_some_and(|line| !line.is_empty()) {}
    }
    // Whoever has heard enough hangs up, which is the point of some of these.
    let mut say = |text: &str| stream.write_all(text.as_bytes()).is_ok();
    let whole = |status: &str, more: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\n{more}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    match answer {
        Answer::Keys(body) => say(&whole("200 OK", "", body)),
        Answer::Status(status) => say(&whole(&format!("{status} Odd"), "", "{\"keys\":[]}")),
        Answer::RedirectTo(to) => say(&whole("302 Found", &format!("Location: {to}\r\n"), "")),
        Answer::Huge => say(&whole("200 OK", "", &" ".repeat(BYTES_MAX_AND_MORE))),
        Answer::Endless => {
            say("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            while say(&" ".repeat(4096)) {}
            true
        }
        Answer::HangUp => true,
        Answer::NotHttp => say("SSH-2.0-OpenSSH_9.2\r\n"),
        Answer::Silence => return Some(stream),
    };
    None
}

const BYTES_MAX_AND_MORE: usize = fetch::BYTES_MAX + 1;

/// A key of the issuer, with its name.
struct Key {
    kid: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new(kid: &'static str) -> Self {
        Self { kid, pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "kid": self.kid, "x": BASE64.encode(x), "y": BASE64.encode(y) })
    }

    fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = self.pair.public_key().as_der().unwrap();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()))
    }

    fn token(&self) -> String {
        self.token_under(self.kid)
    }

    fn token_under(&self, kid: &str) -> String {
        let header = json!({ "alg": "ES256", "kid": kid }).to_string();
        let claims =
            json!({ "iss": ISSUER, "sub": "ann", "exp": NOW + 60, "video": { "roomJoin": true, "room": "r" } });
        let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims.to_string()));
        let signature = self.pair.sign(&aws_lc_rs::rand::SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64.encode(signature.as_ref()))
    }
}

fn published(keys: &[&Key]) -> Answer {
    Answer::Keys(json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string())
}

fn settings(toml: &str) -> Settings {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plenary.toml");
    std::fs::write(&file, toml).unwrap();
    Settings::load(&Sources { file: Some(file), ..Sources::default() }).unwrap()
}

fn with_url(url: &str) -> Settings {
    settings(&format!("[keys]\napi = '{SECRET}'\n[[issuers]]\nissuer = '{ISSUER}'\njwks_url = '{url}'\n"))
}

fn key_settings(settings: &Settings) -> KeySettings {
    let (keys, published) = (settings.keys.clone(), settings.published_keys.clone());
    KeySettings { keys, published, files: settings.key_files.clone() }
}

/// A ring that follows this issuer.
fn following(settings: &Settings, timing: Timing) -> Arc<KeyRing> {
    crate::tls::install_provider();
    let ring = KeyRing::with_timing(settings, timing);
    ring.replace(key_settings(settings)).unwrap();
    ring
}

/// Tokens may ask for keys as often as they like, and nothing else does.
fn eager() -> Timing {
    Timing { asked_every: Duration::ZERO, back_off: Duration::from_secs(3600), ..Timing::default() }
}

async fn verdict(ring: &Arc<KeyRing>, token: &str) -> Result<(), TokenError> {
    ring.verify(token, NOW).await.map(|claims| assert_eq!(claims.identity(), Some("ann")))
}

#[tokio::test]
async fn published_keys_are_fetched_and_rotated() {
    let (old, new) = (Key::new("2025"), Key::new("2026"));
    let idp = Idp::start(published(&[&old]));
    let ring = following(&with_url(&idp.url), eager());
    assert_eq!(verdict(&ring, &old.token()).await, Ok(()), "the first request waits for the first fetch");
    assert_eq!(verdict(&ring, &new.token()).await, Err(TokenError::UnknownKid));

    idp.answers(published(&[&old, &new]));
    assert_eq!(verdict(&ring, &new.token()).await, Ok(()), "an unknown key is asked for");
    assert_eq!(verdict(&ring, &old.token()).await, Ok(()), "while both are published both are good");
    idp.answers(published(&[&new]));
    assert_eq!(verdict(&ring, &old.token_under("2024")).await, Err(TokenError::UnknownKid));
    assert_eq!(verdict(&ring, &old.token()).await, Err(TokenError::UnknownKid), "what is withdrawn is not believed");
    assert_eq!(verdict(&ring, &old.token_under("2026")).await, Err(TokenError::Signature));
}

#[tokio::test]
async fn old_keys_stay_while_the_issuer_is_out_of_its_mind() {
    let key = Key::new("k");
    let idp = Idp::start(published(&[&key]));
    let ring = following(&with_url(&idp.url), eager());
    assert_eq!(verdict(&ring, &key.token()).await, Ok(()));
    for answer in [
        Answer::Status(500),
        Answer::Status(404),
        Answer::RedirectTo("http://169.254.169.254/".into()),
        Answer::Huge,
        Answer::Endless,
        Answer::HangUp,
        Answer::NotHttp,
        Answer::Keys("<html>".into()),
        Answer::Keys(r#"{"keys":[]}"#.into()),
        Answer::Keys(json!({ "keys": [{ "kty": "oct", "k": "AAAA", "kid": "k" }] }).to_string()),
    ] {
        idp.answers(answer.clone());
        let before = idp.asked();
        assert_eq!(verdict(&ring, &key.token_under("other")).await, Err(TokenError::UnknownKid), "{answer:?}");
        assert_eq!(idp.asked(), before + 1, "{answer:?}");
        assert_eq!(verdict(&ring, &key.token()).await, Ok(()), "{answer:?}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_down_at_the_start_is_tried_again() {
    let key = Key::new("k");
    let idp = Idp::start(Answer::Status(503));
    let ring = following(&with_url(&idp.url), eager());
    let error = verdict(&ring, &key.token()).await.unwrap_err();
    assert_eq!((error, error.http_status()), (TokenError::KeysUnavailable, 503));
    idp.answers(published(&[&key]));
    assert_eq!(verdict(&ring, &key.token()).await, Ok(()));
}

/// A timer drives the next fetch here, not a request.
#[tokio::test]
async fn keys_are_fetched_again_without_being_asked_for() {
    let (old, new) = (Key::new("same"), Key::new("same"));
    let idp = Idp::start(published(&[&old]));
    let ring = following(&with_url(&idp.url), Timing { fresh: Duration::from_millis(1), ..Timing::default() });
    assert_eq!(verdict(&ring, &old.token()).await, Ok(()));
    let fetches = ring.published()[ISSUER].issuer.fetches.subscribe();
    idp.answers(published(&[&new]));
    let mut fetches = fetches;
    // One may have been under way when the answer changed.
    fetches.changed().await.unwrap();
    fetches.changed().await.unwrap();
    assert_eq!(verdict(&ring, &new.token()).await, Ok(()));
    assert_eq!(verdict(&ring, &old.token()).await, Err(TokenError::Signature));
}

#[tokio::test]
async fn keys_that_are_too_old_are_not_believed() {
    let key = Key::new("k");
    let idp = Idp::start(published(&[&key]));
    let timing = Timing { believed: Duration::ZERO, ..eager() };
    let ring = following(&with_url(&idp.url), timing);
    let mut fetches = ring.published()[ISSUER].issuer.fetches.subscribe();
    fetches.changed().await.unwrap();
    idp.answers(Answer::Status(500));
    let forgotten = async {
        while ring.current().keys.issuers().any(|(_, issuer)| issuer.keys.is_some()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), forgotten).await.expect("they are forgotten without being asked for");
    assert_eq!(verdict(&ring, &key.token()).await.err().map(|error| error.http_status()), Some(503));
}

#[tokio::test]
async fn strangers_cannot_make_us_fetch() {
    let key = Key::new("k");
    let idp = Idp::start(published(&[&key]));
    let ring = following(&with_url(&idp.url), Timing::default());
    assert_eq!(verdict(&ring, &key.token()).await, Ok(()));
    for number in 0..1000 {
        let forged = key.token_under(&format!("forged-{number}"));
        assert_eq!(verdict(&ring, &forged).await, Err(TokenError::UnknownKid));
    }
    assert_eq!(idp.asked(), 1);
}

#[tokio::test]
async fn a_crowd_waits_for_one_fetch() {
    let key = Key::new("k");
    let idp = Idp::start(published(&[&key]));
    let ring = following(&with_url(&idp.url), Timing::default());
    let token = key.token();
    let crowd = (0..100).map(|_| verdict(&ring, &token));
    for one in futures_util::future::join_all(crowd).await {
        assert_eq!(one, Ok(()));
    }
    assert_eq!(idp.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_named_for_a_silent_issuer() {
    let key = Key::new("k");
    let idp = Idp::start(Answer::Silence);
    let ring = following(&with_url(&idp.url), Timing::default());
    let asked = tokio::time::Instant::now();
    assert_eq!(verdict(&ring, &key.token()).await, Err(TokenError::KeysUnavailable));
    assert!(asked.elapsed() <= WAIT_MAX + Duration::from_millis(10), "{:?}", asked.elapsed());
    let published = key_settings(&with_url(&idp.url)).published.remove(0);
    assert_eq!(Fetcher::new(&published).unwrap().fetch().await.unwrap_err(), FetchError::Timeout);
}

#[tokio::test]
async fn what_went_wrong_has_a_name() {
    crate::tls::install_provider();
    let idp = Idp::start(Answer::HangUp);
    let published = key_settings(&with_url(&idp.url)).published.remove(0);
    let fetcher = Fetcher::new(&published).unwrap();
    for (answer, expected) in [
        (Answer::Status(500), FetchError::Status(500)),
        (Answer::RedirectTo("http://127.0.0.1:1/".into()), FetchError::Redirected),
        (Answer::Huge, FetchError::TooLarge),
        (Answer::Endless, FetchError::TooLarge),
        (Answer::HangUp, FetchError::Broken),
        (Answer::NotHttp, FetchError::Broken),
        (Answer::Keys("{}".into()), FetchError::Keys(PublicKeyError::NotJwks)),
        (Answer::Keys(r#"{"keys":[]}"#.into()), FetchError::Keys(PublicKeyError::NoneUsable)),
    ] {
        idp.answers(answer.clone());
        assert_eq!(fetcher.fetch().await.unwrap_err(), expected, "{answer:?}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let published = key_settings(&with_url(&format!("http://{nobody}/"))).published.remove(0);
    assert_eq!(Fetcher::new(&published).unwrap().fetch().await.unwrap_err(), FetchError::Unreachable);
}

#[tokio::test]
async fn new_settings_keep_what_was_fetched_and_drop_who_is_gone() {
    let key = Key::new("k");
    let idp = Idp::start(published(&[&key]));
    let with_idp = with_url(&idp.url);
    let ring = following(&with_idp, Timing::default());
    assert_eq!(verdict(&ring, &key.token()).await, Ok(()));
    idp.answers(Answer::Status(500));
    ring.replace(key_settings(&with_idp)).unwrap();
    assert_eq!(verdict(&ring, &key.token()).await, Ok(()), "the same issuer keeps its keys");
    assert_eq!(idp.asked(), 1);

    ring.replace(key_settings(&settings(&format!("[keys]\napi = '{SECRET}'\n")))).unwrap();
    assert_eq!(verdict(&ring, &key.token()).await, Err(TokenError::UnknownKey));
    assert!(ring.published().is_empty());
}

/// Writes over a file and has the keys read again.
async fn rewritten(path: &Path, text: &str, source: &crate::config::KeySource, ring: &Arc<KeyRing>) -> bool {
    std::fs::write(path, text).unwrap();
    match source.load() {
        Ok(loaded) => ring.replace(loaded).is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn an_unusable_file_keeps_the_keys_from_before() {
    crate::tls::install_provider();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (old, new) = (Key::new("old"), Key::new("new"));
    std::fs::write(at("idp.pem"), old.pem()).unwrap();
    let toml = format!(
        "[keys]\napi = '{SECRET}'\n[[issuers]]\nissuer = '{ISSUER}'\nalgorithm = 'ES256'\npublic_key_file = '{}'\n",
        at("idp.pem").display()
    );
    std::fs::write(at("plenary.toml"), toml).unwrap();
    let loaded = Settings::load(&Sources { file: Some(at("plenary.toml")), ..Sources::default() }).unwrap();
    assert_eq!(loaded.key_files, [at("idp.pem"), at("plenary.toml")]);
    let ring = KeyRing::new(&loaded);
    assert_eq!(verdict(&ring, &old.token()).await, Ok(()));

    for unusable in ["", "nonsense", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &old.pem()[..90]] {
        assert!(!rewritten(&at("idp.pem"), unusable, &loaded.key_source, &ring).await);
        assert_eq!(verdict(&ring, &old.token()).await, Ok(()), "{unusable}");
    }
    let both = format!("{}{}", old.pem(), new.pem());
    assert!(rewritten(&at("idp.pem"), &both, &loaded.key_source, &ring).await);
    assert_eq!((verdict(&ring, &old.token()).await, verdict(&ring, &new.token()).await), (Ok(()), Ok(())));
    assert!(rewritten(&at("idp.pem"), &new.pem(), &loaded.key_source, &ring).await);
    assert_eq!(verdict(&ring, &old.token()).await, Err(TokenError::Signature));
}

#[tokio::test]
async fn names_that_lead_home_are_not_connected_to() {
    use reqwest::dns::Resolve;
    let found = async |name: &str, private_address| {
        let lookup = fetch::Lookup { private_address };
        lookup.resolve(name.parse().unwrap()).await.is_ok_and(|mut all| all.next().is_some())
    };
    for private in ["127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"] {
        assert!(!found(private, false).await, "{private}");
        assert!(found(private, true).await, "{private}");
    }
    assert!(found("93.184.215.14", false).await);
    assert!(found("localhost", false).await, "which was configured by name");
}
