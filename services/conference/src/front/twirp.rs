//! Twirp: how LiveKit's server SDKs call. Protobuf or JSON in, the same out, errors as JSON in both.

use std::{borrow::Cow, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{authorize::Refusal, room_api::ApiError, twirp_json::ProtoJson};

/// How the caller writes, and is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Protobuf,
    Json,
}

impl Format {
    pub fn of(request: &HttpRequest) -> Result<Self, TwirpError> {
        let given =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (kind, _parameters) = given.split_once(';').unwrap_or((given, ""));
        match kind.trim().to_ascii_lowercase().as_str() {
            "application/protobuf" => Ok(Self::Protobuf),
            "application/json" => Ok(Self::Json),
            _ => Err(TwirpError::new(Code::BadRoute, "send application/protobuf or application/json")),
        }
    }

    /// JSON members may be null, in either spelling of their names; unknown ones are ignored.
    pub fn read<M: Message + Default + DeserializeOwned>(self, body: &[u8]) -> Result<M, TwirpError> {
        let unreadable = || TwirpError::new(Code::Malformed, "the request body could not be decoded");
        match self {
            Self::Protobuf => M::decode(body).map_err(|_| unreadable()),
            Self::Json => {
                let mut value: Value = serde_json::from_slice(body).map_err(|_| unreadable())?;
                drop_nulls(&mut value);
                serde_json::from_value(value).map_err(|_| unreadable())
            }
        }
    }

    pub fn write<M: Message + ProtoJson>(self, message: &M) -> HttpResponse {
        let mut answer = HttpResponse::Ok();
        match self {
            Self::Protobuf => answer.content_type("application/protobuf").body(message.encode_to_vec()),
            Self::Json => answer.json(message.proto_json()),
        }
    }
}

/// How long the caller waits: what it says, within reason.
pub fn deadline(request: &HttpRequest) -> Duration {
    let said = request.headers().get("x-twirp-timeout-ms").and_then(|value| value.to_str().ok()?.parse().ok());
    said.map_or(DEADLINE_MAX, Duration::from_millis).min(DEADLINE_MAX)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwirpError {
    pub code: Code,
    pub message: Cow<'static, str>,
}

/// Of Twirp's codes those that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    InvalidArgument,
    Malformed,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    BadRoute,
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    Internal,
    Unimplemented,
    Unavailable,
}

impl TwirpError {
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn response(&self) -> HttpResponse {
        let (name, status) = self.code.on_the_wire();
        let body = serde_json::json!({ "code": name, "msg": self.message, "meta": {} });
        HttpResponse::build(status).json(body)
    }
}

impl Code {
    const fn on_the_wire(self) -> (&'static str, StatusCode) {
        match self {
            Self::InvalidArgument => ("invalid_argument", StatusCode::BAD_REQUEST),
            Self::Malformed => ("malformed", StatusCode::BAD_REQUEST),
            Self::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED),
            Self::PermissionDenied => ("permission_denied", StatusCode::FORBIDDEN),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND),
            Self::BadRoute => ("bad_route", StatusCode::NOT_FOUND),
            Self::DeadlineExceeded => ("deadline_exceeded", StatusCode::REQUEST_TIMEOUT),
            Self::FailedPrecondition => ("failed_precondition", StatusCode::PRECONDITION_FAILED),
            Self::ResourceExhausted => ("resource_exhausted", StatusCode::TOO_MANY_REQUESTS),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
            Self::Unimplemented => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

impl From<ApiError> for TwirpError {
    fn from(error: ApiError) -> Self {
        let code = match error {
            ApiError::NoSuchRoom
            | ApiError::NoSuchParticipant
            | ApiError::NoSuchTrack
            | ApiError::NoSuchBan
            | ApiError::NoSuchEgress => Code::NotFound,
            ApiError::RemoteUnmuteDisabled
            | ApiError::Alone
            | ApiError::EgressNotStopped(_)
            | ApiError::EgressNotUpdated(_)
            | ApiError::NothingRecorded => Code::FailedPrecondition,
            ApiError::TooLarge | ApiError::BadTime | ApiError::NoLayout | ApiError::BadPath(_) => Code::InvalidArgument,
            ApiError::TooManyRooms | ApiError::TooManyBans | ApiError::TooManyEgresses => Code::ResourceExhausted,
            ApiError::Timeout => Code::DeadlineExceeded,
            ApiError::Unavailable => Code::Unavailable,
            ApiError::Fault => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<Refusal> for TwirpError {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.status_code() {
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
            _ => Code::Internal,
        };
        Self::new(code, refusal.to_string())
    }
}

/// To protobuf, null and absent are the same.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

const DEADLINE_MAX: Duration = Duration::from_secs(10);
