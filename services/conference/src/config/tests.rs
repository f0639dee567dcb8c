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
