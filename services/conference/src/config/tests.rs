use std::time::Duration;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn load(file: Option<&str>, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plenary.toml");
    if let Some(text) = file {
        std::fs::write(&path, text).expect("written");
    }
    let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    Settings::load(&Sources {
        file: file.map(|_| path),
        environment: owned(environment).into_iter().collect(),
        overrides: owned(flags),
    })
}

#[test]
fn with_nothing_everything_stays_on_loopback() {
    let settings = load(None, &[], &[]).unwrap();
    assert!(is_loopback(settings.http.bind) && settings.media.bind.is_loopback());
    assert_eq!(settings.media.advertise, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    assert!(settings.keys.is_development());
    assert_eq!((settings.media.udp_port, settings.media.tcp_port, settings.http.bind.port()), (7882, 7881, 7880));
    assert!(settings.media.threads >= 1);
    assert_eq!(settings.source, "defaults");
}

#[test]
fn file_gives_way_to_environment_and_environment_to_flags() {
    let file = "[room]\nmax_participants = 1\nempty_timeout = '1m'\ndeparture_timeout = '2m'\n";
    let environment = [("PLENARY__ROOM__MAX_PARTICIPANTS", "2"), ("PLENARY__ROOM__EMPTY_TIMEOUT", "2m")];
    let settings = load(Some(file), &environment, &[("room.max_participants", "3")]).unwrap();
    assert_eq!(settings.room.max_participants, 3);
    assert_eq!(settings.room.empty_timeout, Duration::from_secs(120));
    assert_eq!(settings.room.departure_timeout, Duration::from_secs(120));
    assert!(settings.source.ends_with("plenary.toml + environment + flags"), "{}", settings.source);
}

#[test]
fn lists_switches_and_addresses_come_from_the_environment_too() {
    let environment = [
        ("PLENARY__HTTP__TRUSTED_PROXIES", "10.0.0.1,10.0.0.2"),
        ("PLENARY__MEDIA__ADVERTISE", "192.0.2.7"),
        ("PLENARY__ROOM__AUTO_CREATE", "false"),
        ("PLENARY__METRICS__BIND", "off"),
        ("PLENARY__LOG__FORMAT", "json"),
        ("PLENARY__MEDIA__THREADS", "3"),
    ];
    let settings = load(None, &environment, &[]).unwrap();
    assert_eq!(settings.http.trusted_proxies.len(), 2);
    assert_eq!(settings.media.advertise, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    assert_eq!(
        (settings.room.auto_create, settings.metrics.bind, settings.log.format),
        (false, Listen::Off, LogFormat::Json)
    );
    assert_eq!(settings.media.udp_ports().collect::<Vec<_>>(), [7882, 7883, 7884]);

    let flags =
        [("media.advertise", "192.0.2.8, 192.0.2.9"), ("media.threads", "2"), ("room_api.remote_unmute", "true")];
    let settings = load(None, &environment, &flags).unwrap();
    assert_eq!((settings.media.advertise.len(), settings.media.threads, settings.room_api.remote_unmute), (2, 2, true));
}

#[test]
fn media_on_every_address_is_advertised_on_every_address() {
    let settings = load(None, &[("PLENARY__MEDIA__BIND", "0.0.0.0")], &[]).unwrap();
    assert_eq!(settings.media.advertise[0], IpAddr::V4(Ipv4Addr::LOCALHOST), "the page is on loopback");
    assert_eq!(settings.media.advertise.iter().filter(|ip| ip.is_loopback()).count(), 1);
}

#[test]
fn keys_come_from_all_three_places_with_their_case() {
    let folder = tempfile::tempdir().unwrap();
    let keys_file = folder.path().join("keys");
    std::fs::write(&keys_file, format!("# ours\nFromFile: {SECRET}\n")).unwrap();
    let file = format!(
        "keys_file = '{}'\n[keys]\nAPIxyZ = '{SECRET}'\nTwo = ['{SECRET}', '{SECRET}9']\n",
        keys_file.display()
    );
    let variable = format!("EnvA: {SECRET}, EnvB: {SECRET}\nEnvC: {SECRET}");
    let settings = load(Some(&file), &[("PLENARY_KEYS", &variable)], &[("http.bind", "0.0.0.0:0")]).unwrap();
    assert_eq!(settings.keys.ids().collect::<Vec<_>>(), ["APIxyZ", "EnvA", "EnvB", "EnvC", "FromFile", "Two"]);
    assert!(!settings.keys.is_development());
}

#[test]
fn the_development_key_never_leaves_loopback() {
    let error = load(None, &[], &[("http.bind", "0.0.0.0:7880")]).unwrap_err();
    assert_eq!(error.key, "keys");
    assert!(error.to_string().contains("PLENARY_KEYS"), "{error}");
    let public = [("http.bind", "[::]:7880")];
    assert!(load(None, &[("PLENARY_KEYS", "devkey: secret")], &public).is_err());
    assert!(load(Some("[keys]\ndevkey = 'secret'\n"), &[], &public).is_err());
    assert!(
        load(Some("[keys]\ndevkey = 'secret'\n"), &[], &[("http.bind", "[::1]:7880")]).unwrap().keys.is_development()
    );
}

#[test]
fn weak_keys_are_refused_without_being_repeated() {
    let places = [
        load(Some("[keys]\napi = 'tooshort'\n"), &[], &[]),
        load(None, &[("PLENARY_KEYS", "api: tooshort")], &[]),
        load(Some("[keys]\napi = 5\nother = 'tooshort'\n"), &[], &[]),
        load(None, &[("PLENARY_KEYS", "tooshort")], &[]),
        load(None, &[("PLENARY__KEYS__API", "tooshort")], &[]),
        load(Some("[keys]\napi = { tooshort = 'tooshort' }\n"), &[], &[]),
    ];
    for outcome in places {
        let error = outcome.unwrap_err().to_string();
        assert!(!error.contains("tooshort"), "{error}");
    }
}

#[test]
fn errors_name_the_place_and_the_key() {
    let cases: [(&str, &[&str]); 8] = [
        ("[http]\nbind = 'nonsense'\n", &["plenary.toml", "http.bind"]),
        ("[http]\nbund = '127.0.0.1:1'\n", &["plenary.toml", "bund"]),
        ("[htp]\n", &["plenary.toml", "htp"]),
        ("[signal]\nping_interval = 5\n", &["plenary.toml", "signal.ping_interval", "5s"]),
        ("[signal]\nping_interval = 'soon'\n", &["plenary.toml", "signal.ping_interval", "soon"]),
        ("[signal]\nping_interval = '20s'\n", &["plenary.toml", "signal", "ping_timeout"]),
        ("[http]\ntls_cert = '/cert.pem'\n", &["plenary.toml", "http.tls_cert"]),
        ("[http\n", &["plenary.toml"]),
    ];
    for (file, expected) in cases {
        let error = load(Some(file), &[], &[]).unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part), "{file}: {error}");
        }
    }
    let error = load(None, &[("PLENARY__MEDIA__THREADS", "many")], &[]).unwrap_err().to_string();
    assert!(error.contains("environment") && error.contains("media.threads"), "{error}");
    let sources = Sources { file: Some("/does/not/exist.toml".into()), ..Sources::default() };
    assert!(Settings::load(&sources).unwrap_err().to_string().contains("/does/not/exist.toml"));
}

#[test]
fn codecs_are_a_list_in_order_of_preference_with_a_video_codec_and_opus() {
    let settings = load(None, &[], &[]).unwrap();
    assert_eq!(settings.room.codecs.as_ref(), Codec::ALL);
    assert!(settings.explain_codecs().contains("vp8, h264, vp9, av1, opus, red; none is refused"));
    let expected = [Codec::H264, Codec::Vp8, Codec::Opus];
    for settings in [
        load(Some("[room]\ncodecs = ['h264', 'vp8', 'opus']\n"), &[], &[]),
        load(None, &[("PLENARY__ROOM__CODECS", "h264,vp8,opus")], &[]),
        load(None, &[], &[("room.codecs", "h264, vp8, opus")]),
    ] {
        let settings = settings.unwrap();
        assert_eq!(settings.room.codecs.as_ref(), expected);
        assert!(settings.explain_codecs().contains("h264, vp8, opus; refused: vp9, av1, red"));
        assert!(settings.print().contains("room.codecs = [\"h264\",\"vp8\",\"opus\"]"), "{}", settings.print());
    }
    for (codecs, problem) in [
        ("['vp8']", "opus and at least one video codec"),
        ("['opus', 'red']", "opus and at least one video codec"),
        ("[]", "opus and at least one video codec"),
        ("['vp8', 'opus', 'vp8']", "`vp8` stands there twice"),
        ("['VP8', 'opus']", "`VP8` is none of vp8, h264"),
        ("['h265', 'opus']", "`h265` is none of vp8, h264"),
    ] {
        let error = load(Some(&format!("[room]\ncodecs = {codecs}\n")), &[], &[]).unwrap_err().to_string();
        assert!(error.contains("plenary.toml") && error.contains(problem), "{codecs}: {error}");
        assert!(error.contains("room.codecs"), "{error}");
    }
}

#[test]
fn ports_must_fit() {
    assert!(load(None, &[], &[("media.udp_port", "65535"), ("media.threads", "1")]).is_ok());
    assert!(load(None, &[], &[("media.udp_port", "65535"), ("media.threads", "2")]).is_err());
    assert!(load(None, &[], &[("media.threads", "100000")]).is_err());
}

#[test]
fn what_is_printed_can_be_read_back_and_shows_no_secret() {
    let variable = format!("api: {SECRET}");
    let settings = load(None, &[("PLENARY_KEYS", &variable)], &[("http.bind", "0.0.0.0:7880")]).unwrap();
    let printed = settings.print();
    assert!(!printed.contains(SECRET) && printed.contains("keys.\"api\""), "{printed}");
    assert!(
        printed.contains("room.empty_timeout = \"5m\"") && printed.contains("limits.metadata_bytes = 524288"),
        "{printed}"
    );

    let again: String =
        printed.lines().filter(|line| !line.starts_with("keys")).fold(String::new(), |text, line| text + line + "\n");
    let read_back = load(Some(&again), &[("PLENARY_KEYS", &variable)], &[]).unwrap();
    assert_eq!(read_back.print(), printed);
}

#[test]
fn nothing_is_recorded_without_a_directory_and_none_is_relative() {
    assert_eq!(load(None, &[], &[]).unwrap().recording, Recording::default());
    let file = "[recording]\ndirectory = '/var/lib/plenary'\nretention = '30days'\nduration_max = '12h'\n";
    let recording = load(Some(file), &[("PLENARY__RECORDING__BYTES_MAX", "1000")], &[]).unwrap().recording;
    assert_eq!(recording.directory, Some("/var/lib/plenary".into()));
    assert_eq!(recording.retention, Duration::from_secs(30 * 24 * 60 * 60));
    assert_eq!((recording.bytes_max, recording.duration_max), (1_000, Duration::from_secs(12 * 60 * 60)));
    for (key, value, problem) in [
        ("recording.directory", "recordings", "absolute"),
        ("recording.sync_interval", "10ms", "sync_interval"),
        ("recording.retention", "5s", "retention"),
        ("recording.retention", "5", "no unit"),
        ("recording.max", "5", "unknown field"),
    ] {
        let error = load(None, &[], &[(key, value)]).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn turn_servers_need_urls_and_one_secret() {
    let load = |toml: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        Settings::load(&Sources { file: Some(file.path().into()), ..Sources::default() })
    };
    let settings = load("[[turn]]\nurls = [\"turns:t.example:443\"]\nsecret = \"north\"\nttl = \"10m\"\n").unwrap();
    assert_eq!(settings.turn[0].ttl, std::time::Duration::from_secs(600));
    assert!(!format!("{settings:?}{}", settings.print()).contains("north"));
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "south\n").unwrap();
    let path = secret.path().display();
    let settings = load(&format!("[[turn]]\nurls = [\"turn:t.example\"]\nsecret_file = \"{path}\"\n")).unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(&settings.turn[0].secret), "south");
    for (toml, problem) in [
        ("[[turn]]\nurls = []\nsecret = \"x\"\n", "turn: or turns:"),
        ("[[turn]]\nurls = [\"https://x\"]\nsecret = \"x\"\n", "turn: or turns:"),
        ("[[turn]]\nurls = [\"turn:x\"]\n", "no secret, or two"),
        ("[[turn]]\nurls = [\"turn:x\"]\nsecret = \"x\"\nsecret_file = \"y\"\n", "no secret, or two"),
        ("[[turn]]\nurls = [\"turn:x\"]\nsecret_file = \"/nowhere\"\n", "/nowhere"),
        ("[[turn]]\nurls = [\"turn:x\"]\nsecret = \"\"\n", "empty"),
        ("[[turn]]\nurls = [\"turn:x\"]\nsecret = \"x\"\nttl = \"1s\"\n", "shorter"),
    ] {
        let error = load(toml).unwrap_err();
        assert_eq!(error.key, "turn");
        assert!(error.problem.contains(problem), "{error}");
    }
}

/// A public key for ES256, made for this test.
const ES256_PEM: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAbIxLXQs95hBjAAKhHVVQzgknhDb
ZtGCg1J4IwxTM/8GUDTjs2dQQUJZ+r6nGAtNKtbiE2PQjXIfAFqbQc0ugA==
-----END PUBLIC KEY-----
";
const ES256_JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k1","use":"sig",
    "x":"AbIxLXQs95hBjAAKhHVVQzgknhDbZtGCg1J4IwxTM_8","y":"BlA047NnUEFCWfq-pxgLTSrW4hNj0I1yHwBam0HNLoA"}]}"#;

#[test]
fn issuers_come_by_file_and_by_url_and_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("idp.pem"), ES256_PEM).unwrap();
    std::fs::write(at("idp.json"), ES256_JWKS).unwrap();
    let file = format!(
        "refresh_key = 'api'\n[keys]\napi = ['{SECRET}', '{SECRET}2']\n\
         [[issuers]]\nissuer = 'https://a.example'\nalgorithm = 'ES256'\npublic_key_file = '{}'\n\
         [[issuers]]\nissuer = 'https://b.example'\njwks_file = '{}'\naudience = 'calls'\n\
         [[issuers]]\nissuer = 'https://c.example'\njwks_url = 'https://c.example/jwks'\naudience = ['x', 'y']\n",
        at("idp.pem"),
        at("idp.json"),
    );
    let settings = load(Some(&file), &[], &[("http.bind", "0.0.0.0:0")]).unwrap();
    let issuers: Vec<_> = settings.keys.issuers().map(|(name, issuer)| (name, issuer.keys.is_some())).collect();
    assert_eq!(issuers, [("https://a.example", true), ("https://b.example", true), ("https://c.example", false)]);
    assert_eq!(settings.key_files.len(), 3, "the two and the configuration itself");
    assert_eq!(settings.published_keys[0].url.as_str(), "https://c.example/jwks");
    let explained = settings.explain_keys();
    for line in [
        "key api: HS256, 2 live secrets, of which the first signs",
        "issuer https://a.example: ES256; tokens must not name an audience; refresh tokens signed by api",
        "issuer https://b.example: ES256 (kid \"k1\"); audience calls; refresh tokens signed by api",
        "issuer https://c.example: each key's own algorithm, keys fetched from https://c.example/jwks; audience x or y; \
         refresh tokens signed by api",
    ] {
        assert!(explained.lines().any(|one| one == line), "{line} is missing in\n{explained}");
    }
    assert!(!explained.contains(SECRET) && !format!("{settings:?}").contains(SECRET));
    let issuer_alone = "[[issuers]]\nissuer = 'https://c.example'\njwks_url = 'https://c.example/jwks'\n";
    let settings = load(Some(issuer_alone), &[], &[("http.bind", "0.0.0.0:0")]).unwrap();
    assert!(!settings.keys.is_development(), "the key everybody knows is not among these");
    assert!(settings.explain_keys().contains("no refresh tokens (set refresh_key"));
}

#[test]
fn what_is_wrong_with_an_issuer_names_the_member() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("idp.pem"), ES256_PEM).unwrap();
    std::fs::write(at("idp.json"), ES256_JWKS).unwrap();
    std::fs::write(at("private.pem"), ES256_PEM.replace("PUBLIC", "PRIVATE")).unwrap();
    let pem = at("idp.pem");
    let cases = [
        ("".to_owned(), "issuers[0].issuer"),
        (format!("public_key_file = '{pem}'"), "issuers[0].algorithm"),
        (format!("public_key_file = '{pem}'\nalgorithm = 'ES384'"), "issuers[0].public_key_file"),
        (format!("public_key_file = '{pem}'\nalgorithm = 'HS256'"), "issuers[0].algorithm"),
        (format!("public_key_file = '{pem}'\nalgorithm = 'none'"), "issuers[0].algorithm"),
        (format!("public_key_file = '{pem}'\njwks_url = 'https://c.example/'"), "issuers[0].issuer"),
        (format!("public_key_file = '{}'\nalgorithm = 'ES256'", at("private.pem")), "issuers[0].public_key_file"),
        (format!("public_key_file = '{}'\nalgorithm = 'ES256'", at("missing")), "issuers[0].public_key_file"),
        (format!("jwks_file = '{pem}'"), "issuers[0].jwks_file"),
        (format!("jwks_file = '{}'\nalgorithm = 'RS256'", at("idp.json")), "issuers[0].jwks_file"),
        ("jwks_url = 'nonsense'".into(), "issuers[0].jwks_url"),
        ("jwks_url = 'ftp://c.example/'".into(), "issuers[0].jwks_url"),
        ("jwks_url = 'http://c.example/'".into(), "issuers[0].jwks_url"),
        ("jwks_url = 'http://127.0.0.1.c.example/'".into(), "issuers[0].jwks_url"),
        ("jwks_url = 'https://me:secret@c.example/'".into(), "issuers[0].jwks_url"),
        ("jwks_url = 'https://10.1.2.3/'".into(), "issuers[0].jwks_url"),
        ("jwks_url = 'https://169.254.169.254/latest'".into(), "issuers[0].jwks_url"),
        ("jwks_url = 'https://[fd00::1]/'".into(), "issuers[0].jwks_url"),
        ("jwks_url = 'https://[::ffff:10.0.0.1]/'".into(), "issuers[0].jwks_url"),
        ("jwks_uri = 'https://c.example/'".into(), "jwks_uri"),
    ];
    for (members, key) in cases {
        let error =
            load(Some(&format!("[[issuers]]\nissuer = 'https://c.example'\n{members}\n")), &[], &[]).unwrap_err();
        assert!(error.to_string().contains(key), "{members}: {error}");
        assert!(!error.to_string().contains("me:secret"), "{error}");
    }
    let allowed = [
        "jwks_url = 'http://127.0.0.1:8080/'",
        "jwks_url = 'http://localhost/'",
        "jwks_url = 'http://[::1]:1/'",
        "jwks_url = 'https://10.1.2.3/'\njwks_private_address = true",
        "jwks_url = 'https://93.184.215.14/'",
    ];
    for members in allowed {
        let file = format!("[[issuers]]\nissuer = 'https://c.example'\n{members}\n");
        assert!(load(Some(&file), &[], &[]).is_ok(), "{members}");
    }
    for (file, key) in [
        (format!("refresh_key = 'other'\n[keys]\napi = '{SECRET}'\n"), "refresh_key"),
        (format!("[keys]\napi = '''{ES256_PEM}'''\n"), "keys: key \"api\": this is a public key"),
        (
            format!("[keys]\napi = '{SECRET}'\n[[issuers]]\nissuer = 'api'\njwks_url = 'https://c.example/'\n"),
            "issuers[0].issuer",
        ),
    ] {
        let error = load(Some(&file), &[], &[]).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn keys_are_read_again_from_where_they_came() {
    let folder = tempfile::tempdir().unwrap();
    let keys_file = folder.path().join("keys");
    std::fs::write(&keys_file, format!("a: {SECRET}\n")).unwrap();
    let environment = BTreeMap::from([
        ("PLENARY__KEYS_FILE".to_owned(), keys_file.display().to_string()),
        ("PLENARY_KEYS".to_owned(), format!("env: {SECRET}")),
        ("PATH".to_owned(), "/bin".to_owned()),
    ]);
    let overrides = vec![("http.bind".to_owned(), "0.0.0.0:0".to_owned())];
    let settings = Settings::load(&Sources { file: None, environment, overrides }).unwrap();
    let ids = |settings: &KeySettings| settings.keys.ids().map(String::from).collect::<Vec<_>>();
    assert_eq!(ids(&settings.key_source.load().unwrap()), ["a", "env"]);
    std::fs::write(&keys_file, format!("b: {SECRET}\n")).unwrap();
    assert_eq!(ids(&settings.key_source.load().unwrap()), ["b", "env"]);
    for unusable in ["b", "b: short", "-----BEGIN"] {
        std::fs::write(&keys_file, unusable).unwrap();
        let error = settings.key_source.load().unwrap_err().to_string();
        assert!(error.contains("key") && !error.contains("short"), "{error}");
    }
    std::fs::remove_file(&keys_file).unwrap();
    assert!(settings.key_source.load().unwrap_err().to_string().contains("keys_file"));
    assert!(!format!("{:?}", settings.key_source).contains(SECRET));
}

#[test]
fn what_redis_is_trusted_by_is_read_and_checked_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let authority = authority.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
    std::fs::write(path("good.pem"), &authority).unwrap();
    std::fs::write(path("empty.pem"), "").unwrap();
    std::fs::write(path("odd.pem"), "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n").unwrap();
    let settings = |url: &str, file: &str| {
        let file = path(file);
        let cluster = format!("[cluster]\nredis = ['{url}']\nkey = '{SECRET}'\nredis_ca_file = '{file}'\n");
        load(Some(&cluster), &[], &[])
    };
    let good = settings("rediss://user:geheim@host", "good.pem").unwrap();
    assert_eq!(good.cluster.as_ref().unwrap().authority.as_deref(), Some(authority.as_bytes()));
    assert!(!format!("{good:?} {}", good.print()).contains("geheim"));
    for (url, file, told) in [
        ("rediss://user:geheim@host", "missing.pem", "missing.pem"),
        ("rediss+sentinel://user:geheim@host/main", "empty.pem", "no certificate"),
        ("rediss://user:geheim@host", "odd.pem", "odd.pem"),
        ("redis://user:geheim@host", "good.pem", "no URL that begins with rediss"),
    ] {
        let error = settings(url, file).unwrap_err().to_string();
        assert!(error.contains(told) && !error.contains("geheim"), "{error}");
    }
}

#[test]
fn host_apps_are_told_over_http_and_by_an_api_key_that_there_is() {
    let load = |section: &str| load(Some(&format!("[keys]\napi = '{SECRET}'\n[webhook]\n{section}\n")), &[], &[]);
    assert!(load("").unwrap().webhook.is_none());
    let settings =
        load("urls = ['https://a.example/geheim?token=geheim', 'http://10.0.0.1:8080']\napi_key = 'api'").unwrap();
    let webhook = settings.webhook.as_ref().unwrap();
    assert_eq!((webhook.urls.len(), webhook.api_key.as_str()), (2, "api"));
    let shown = format!("{settings:?} {}", settings.print());
    assert!(shown.contains("a.example, 10.0.0.1") && !shown.contains("geheim"), "{shown}");
    let nine = (0..9).map(|number| format!("'https://a.example/{number}'")).collect::<Vec<_>>().join(",");
    for (section, problem) in [
        ("api_key = 'api'", "no URL"),
        ("urls = ['https://a.example']", "no api_key"),
        ("urls = ['https://a.example']\napi_key = 'other'", "none of the API keys"),
        ("urls = ['ftp://a.example/geheim']\napi_key = 'api'", "URL 1 begins with neither"),
        ("urls = ['https://a.example', '/geheim']\napi_key = 'api'", "URL 2 cannot be used"),
        ("urls = ['https://me:geheim@a.example']\napi_key = 'api'", "a user or a password"),
        ("urls = ['https://a.example', 'https://a.example/']\napi_key = 'api'", "twice"),
        (&format!("urls = [{nine}]\napi_key = 'api'"), "more than 8"),
    ] {
        let error = load(section).unwrap_err();
        assert_eq!(error.key, "webhook");
        assert!(error.problem.contains(problem) && !error.to_string().contains("geheim"), "{section}: {error}");
    }
    let variables =
        [("PLENARY__WEBHOOK__URLS", "https://a.example,https://b.example"), ("PLENARY__WEBHOOK__API_KEY", "devkey")];
    assert_eq!(self::load(None, &variables, &[]).unwrap().webhook.unwrap().urls.len(), 2);
}
