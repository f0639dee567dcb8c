//! Where a Redis server is: at an address, or wherever Sentinels say that the primary of a service is.

use redis::{
    Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, RedisResult, TlsCertificates,
    TlsMode,
    io::tcp::TcpSettings,
    parse_redis_url,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};

pub(super) enum Server {
    Fixed(Box<Client>),
    /// Asked anew for every connection: the primary may be another one by then.
    Watched(Box<SentinelClient>),
}

impl Server {
    /// `authority`: the certificates, as PEM, that TLS trusts instead of the machine's. Errors do not repeat the URL, which
    /// may hold a password.
    pub(super) fn new(url: &str, authority: Option<&[u8]>) -> RedisResult<Self> {
        let trusted = authority.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) });
        let watched = [("redis+sentinel://", "redis://"), ("rediss+sentinel://", "rediss://")];
        for (scheme, server) in watched {
            if let Some(rest) = url.strip_prefix(scheme) {
                return watched_by(&format!("{server}{rest}"), server, trusted);
            }
        }
        let info = url.into_connection_info()?.set_tcp_settings(tcp_settings());
        let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        Ok(Self::Fixed(Box::new(match trusted.filter(|_| is_tls) {
            Some(trusted) => Client::build_with_tls(info, trusted)?,
            None => Client::open(info)?,
        })))
    }

    /// The server to connect to now.
    pub(super) async fn find(&mut self) -> RedisResult<Client> {
        match self {
            Self::Fixed(client) => Ok(Client::clone(client)),
            Self::Watched(sentinels) => sentinels.async_get_client().await,
        }
    }
}

/// `//user:password@sentinel:26379/service?db=0&sentinel=other:26379&sentinel_user=…&sentinel_password=…`: user and
/// password are the servers', the Sentinels have their own.
fn watched_by(url: &str, scheme: &str, trusted: Option<TlsCertificates>) -> RedisResult<Server> {
    let mut first = parse_redis_url(url).ok_or_else(|| bad("it is no URL"))?;
    let service = first.path().trim_start_matches('/').to_owned();
    if service.is_empty() || service.contains(['/', '%']) {
        return Err(bad("its path is not the name of a service"));
    }
    let (mut db, mut user, mut password, mut others) = (0, None, None, Vec::new());
    for (key, value) in first.query_pairs() {
        match &*key {
            "db" => db = value.parse().map_err(|_| bad("db is not a number"))?,
            "sentinel" => others.push(value.into_owned()),
            "sentinel_user" => user = Some(value.into_owned()),
            "sentinel_password" => password = Some(value.into_owned()),
            _ => return Err(bad("it has a parameter that is not known")),
        }
    }
    first.set_path("");
    first.set_query(None);
    let first = sentinel(first.as_str())?;
    let mut sentinels = vec![first.addr().clone()];
    for other in others {
        sentinels.push(sentinel(&format!("{scheme}{other}"))?.addr().clone());
    }
    let server = first.redis_settings();
    let mut builder = SentinelClientBuilder::new(sentinels, service, SentinelServerType::Master)?
        .set_client_to_redis_db(db)
        .set_client_to_redis_tcp_settings(tcp_settings());
    if let Some(user) = server.username() {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = server.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(user) = user {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = password {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if matches!(first.addr(), ConnectionAddr::TcpTls { .. }) {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        if let Some(trusted) = trusted {
            builder =
                builder.set_client_to_sentinel_certificates(trusted.clone()).set_client_to_redis_certificates(trusted);
        }
    }
    Ok(Server::Watched(Box::new(builder.build()?)))
}

fn sentinel(url: &str) -> RedisResult<ConnectionInfo> {
    let mut url = parse_redis_url(url).ok_or_else(|| bad("a Sentinel's address cannot be read"))?;
    if url.port().is_none() {
        url.set_port(Some(SENTINEL_PORT)).map_err(|()| bad("a Sentinel's address has no host"))?;
    }
    url.into_connection_info()
}

fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn bad(what: &'static str) -> RedisError {
    (ErrorKind::InvalidClientConfig, what).into()
}

const SENTINEL_PORT: u16 = 26_379;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_server_is_refused_without_its_secrets() {
        for url in [
            "redis://user:geheim@",
            "redis://user:geheim@host:99999999",
            "http://user:geheim@host",
            "redis+sentinel://user:geheim@host",
            "redis+sentinel://user:geheim@host/a/b",
            "redis+sentinel://user:geheim@host/main?db=geheim",
            "redis+sentinel://user:geheim@host/main?geheim=1",
            "redis+sentinel://user:geheim@host/main?sentinel=user:geheim@:1",
        ] {
            let Err(error) = Server::new(url, None) else { panic!("{url} is good") };
            let told = format!("{error} {error:?}");
            assert!(!told.contains("geheim"), "{told}");
        }
    }

    #[test]
    fn addresses_and_sentinels_are_told_apart() {
        for (url, is_watched) in [
            ("redis://host", false),
            ("rediss://user:geheim@host:7000/3", false),
            ("redis+unix:///run/redis.sock", false),
            ("redis+sentinel://host/main", true),
            ("redis+sentinel://user:geheim@[::1]:7/main?db=3&sentinel=two&sentinel=three:9", true),
            ("rediss+sentinel://host/main?sentinel_user=a&sentinel_password=geheim", true),
        ] {
            let server = Server::new(url, None).unwrap();
            assert_eq!(matches!(server, Server::Watched(_)), is_watched, "{url}");
        }
    }
}
