//! One message to one host app: signed, to the configured place alone, and not for long.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use livekit_protocol::WebhookEvent;
use plenary_protocol::token::Claims;
use reqwest::{
    Client, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    redirect,
};

use crate::{keys::KeyRing, tokens::unix_seconds};

/// Does not print: its URL may hold a secret.
pub(super) struct Caller {
    client: Client,
    url: Url,
    keys: Arc<KeyRing>,
    api_key: String,
}

impl Caller {
    /// Redirects are not followed: where messages go is said by the configuration alone.
    pub(super) fn new(url: Url, keys: Arc<KeyRing>, api_key: String) -> Result<Self, CallFailure> {
        let client = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(CALL_WITHIN).build();
        Ok(Self { client: client.map_err(|_| CallFailure::NoClient)?, url, keys, api_key })
    }

    /// All of the URL that may be shown.
    pub(super) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    pub(super) async fn call(&self, message: &WebhookEvent) -> Result<(), CallFailure> {
        let body = serde_json::to_vec(message).map_err(|_| CallFailure::NotWritten)?;
        let request = self.client.post(self.url.clone());
        let request = request.header(CONTENT_TYPE, "application/webhook+json").header(AUTHORIZATION, self.sign(&body)?);
        let status = request.body(body).send().await.map_err(CallFailure::of)?.status();
        match status {
            _ if status.is_success() => Ok(()),
            _ if status.is_redirection() => Err(CallFailure::Redirected),
            _ => Err(CallFailure::Status(status)),
        }
    }

    /// A bare token, as LiveKit's receivers expect it.
    fn sign(&self, body: &[u8]) -> Result<HeaderValue, CallFailure> {
        let claims = Claims {
            issuer: self.api_key.clone(),
            expires_at: Some(unix_seconds().saturating_add(TOKEN_LIFE.as_secs())),
            sha256: BASE64_STANDARD.encode(digest(&SHA256, body)),
            ..Claims::default()
        };
        let token = self.keys.sign(&claims).map_err(|_| CallFailure::NotSigned)?;
        let mut header = HeaderValue::from_str(&token).map_err(|_| CallFailure::NotSigned)?;
        header.set_sensitive(true);
        Ok(header)
    }
}

/// Why a host app was not told. Nothing of its URL or its answer is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    #[error("no answer within {} s", CALL_WITHIN.as_secs())]
    Timeout,
    #[error("it cannot be reached, or its certificate is not trusted")]
    Unreachable,
    #[error("the connection broke, or the answer is no HTTP")]
    Broken,
    #[error("it redirects; configure where it really is")]
    Redirected,
    #[error("it answered with status {}", .0.as_u16())]
    Status(StatusCode),
    #[error("webhook.api_key is no API key any more")]
    NotSigned,
    #[error("the message cannot be written")]
    NotWritten,
    #[error("TLS cannot be set up: are the system's certificate authorities installed?")]
    NoClient,
}

impl CallFailure {
    /// Whether it is worth trying again: what is wrong with the message itself stays wrong.
    pub(super) fn may_pass(self) -> bool {
        match self {
            Self::Timeout | Self::Unreachable | Self::Broken | Self::NotSigned => true,
            Self::Status(StatusCode::NOT_IMPLEMENTED) => false,
            Self::Status(StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) => true,
            Self::Status(status) => status.is_server_error(),
            Self::Redirected | Self::NotWritten | Self::NoClient => false,
        }
    }

    fn of(error: reqwest::Error) -> Self {
        match () {
            () if error.is_timeout() => Self::Timeout,
            () if error.is_connect() => Self::Unreachable,
            () => Self::Broken,
        }
    }
}

/// From the connection to the answer.
pub(super) const CALL_WITHIN: Duration = Duration::from_secs(5);

/// As LiveKit's server has it.
const TOKEN_LIFE: Duration = Duration::from_secs(5 * 60);
