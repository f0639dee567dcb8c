//! Fetches published keys: from the configured place alone, over TLS, a little at most and not for long.
//!
//! Redirects are not followed and names that lead to private addresses are not connected to, so that whoever controls
//! the issuer's answers cannot make this server ask its own neighbours.

use std::{io, time::Duration};

use plenary_protocol::token::{Algorithm, PublicKey, PublicKeyError};
use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};

use crate::config::{PublishedKeys, is_public};

/// Fetches from one place.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client,
    url: Url,
    algorithm: Option<Algorithm>,
}

impl Fetcher {
    pub fn new(published: &PublishedKeys) -> Result<Self, FetchError> {
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(FETCH_WITHIN)
            .pool_max_idle_per_host(0)
            .dns_resolver(Lookup { private_address: published.private_address })
            .build();
        let client = client.map_err(|_| FetchError::NoClient)?;
        Ok(Self { client, url: published.url.clone(), algorithm: published.algorithm })
    }

    /// The keys that are published now.
    pub async fn fetch(&self) -> Result<Vec<PublicKey>, FetchError> {
        let mut response = self.client.get(self.url.clone()).send().await.map_err(FetchError::of)?;
        let status = response.status();
        if status.is_redirection() {
            return Err(FetchError::Redirected);
        }
        if !status.is_success() {
            return Err(FetchError::Status(status.as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(FetchError::of)? {
            if body.len().saturating_add(chunk.len()) > BYTES_MAX {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(PublicKey::from_jwks(&body, self.algorithm)?)
    }
}

/// Why keys were not fetched. Nothing of an answer is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("no answer within {} s", FETCH_WITHIN.as_secs())]
    Timeout,
    #[error("its name leads to private addresses only (jwks_private_address = true allows that)")]
    PrivateAddress,
    #[error("it cannot be reached, or its certificate is not trusted")]
    Unreachable,
    #[error("it redirects; configure where the keys really are")]
    Redirected,
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("the answer is larger than {BYTES_MAX} bytes")]
    TooLarge,
    #[error("the answer breaks off or is no HTTP")]
    Broken,
    #[error("what it published cannot be used: {0}")]
    Keys(#[from] PublicKeyError),
    #[error("TLS cannot be set up: are the system's certificate authorities installed?")]
    NoClient,
}

impl FetchError {
    fn of(error: reqwest::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(one) = cause {
            let refused = one.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if one.is::<OnlyPrivate>() || refused.is_some_and(|inner| inner.is::<OnlyPrivate>()) {
                return Self::PrivateAddress;
            }
            cause = one.source();
        }
        match () {
            () if error.is_timeout() => Self::Timeout,
            () if error.is_connect() => Self::Unreachable,
            () => Self::Broken,
        }
    }
}

/// Looks names up and leaves out what must not be connected to: the addresses that are checked are those that are used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lookup {
    pub(super) private_address: bool,
}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let everything = self.private_address;
        Box::pin(async move {
            let here = name.as_str() == "localhost";
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<_> = found
                .filter(|address| match here {
                    true => address.ip().to_canonical().is_loopback(),
                    false => everything || is_public(address.ip()),
                })
                .collect();
            if allowed.is_empty() {
                return Err(OnlyPrivate.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no address that may be connected to")]
struct OnlyPrivate;

/// From the question to the end of the answer.
pub const FETCH_WITHIN: Duration = Duration::from_secs(5);

/// A set of keys is a few kilobytes.
pub const BYTES_MAX: usize = 64 * 1024;
