//! `[webhook]`: the host apps that are told what happens in rooms. Without them nobody is.

use std::{collections::BTreeSet, fmt};

use plenary_protocol::token::Keys;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// Where messages go, and who signs them.
#[derive(Clone)]
pub struct Webhook {
    /// They may carry secrets, so they are never shown whole.
    pub urls: Vec<Url>,
    /// The API key whose secret signs.
    pub api_key: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WebhookFile {
    urls: Vec<SecretString>,
    api_key: Option<String>,
}

impl Webhook {
    /// What may be shown of them.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.urls.iter().filter_map(Url::host_str)
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = self.hosts().collect();
        f.debug_struct("Webhook").field("hosts", &hosts).field("api_key", &self.api_key).finish_non_exhaustive()
    }
}

impl fmt::Debug for WebhookFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookFile").field("urls", &self.urls.len()).finish_non_exhaustive()
    }
}

impl WebhookFile {
    /// None if nobody is told.
    pub(super) fn resolve(self, keys: &Keys) -> Result<Option<Webhook>, String> {
        let Self { urls, api_key } = self;
        if urls.is_empty() {
            return match api_key {
                None => Ok(None),
                Some(_) => Err("there is an api_key and no URL".into()),
            };
        }
        if urls.len() > URLS_MAX {
            return Err(format!("there are more than {URLS_MAX} URLs"));
        }
        let api_key = api_key.ok_or("there is no api_key to sign with")?;
        if keys.live_secrets(&api_key) == 0 {
            return Err(format!("the api_key {api_key:?} is none of the API keys"));
        }
        let urls: Vec<_> = (1..).zip(&urls).map(|(number, url)| url_of(number, url)).collect::<Result<_, _>>()?;
        if urls.iter().collect::<BTreeSet<_>>().len() < urls.len() {
            return Err("a URL stands there twice".into());
        }
        Ok(Some(Webhook { urls, api_key }))
    }
}

/// The URL itself is not repeated: it may hold a secret.
fn url_of(number: usize, given: &SecretString) -> Result<Url, String> {
    let url = Url::parse(given.expose_secret()).map_err(|error| format!("URL {number} cannot be used: {error}"))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(format!("URL {number} begins with neither https: nor http:"));
    }
    // They would take the place of the signature.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("URL {number} names a user or a password"));
    }
    Ok(url)
}

/// Each has outboxes of its own.
const URLS_MAX: usize = 8;
