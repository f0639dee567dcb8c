//! What a token says, and what it means.

use std::collections::BTreeMap;

use livekit_protocol::RoomConfiguration;
use plenary_model::{ParticipantKind, Permission, Source};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

/// The claims of a token. A member that is missing and one that is null say the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Claims {
    /// The API key whose secret signed it.
    #[serde(rename = "iss", deserialize_with = "null_is_default")]
    pub issuer: String,
    #[serde(rename = "sub", skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(rename = "jti", skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// Unix time in seconds. A token without it is refused.
    #[serde(rename = "exp", deserialize_with = "numeric_date", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    #[serde(rename = "nbf", deserialize_with = "numeric_date", skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    #[serde(rename = "iat", deserialize_with = "numeric_date", skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<u64>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    #[serde(deserialize_with = "kind_from_text", serialize_with = "kind_to_text", skip_serializing_if = "is_standard")]
    pub kind: ParticipantKind,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub kind_details: Vec<String>,
    /// Base64 of the SHA-256 of a webhook's body.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub room_preset: String,
    /// In a refresh token for an issuer whose private key is not ours: that issuer.
    #[serde(rename = "plenaryVouchedFor", skip_serializing_if = "Option::is_none")]
    pub vouched_for: Option<String>,
    /// Settings of a room this token creates, as it came: see [`Claims::room_configuration`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_config: Option<Value>,
    #[serde(deserialize_with = "null_is_default")]
    pub video: VideoGrant,
}

/// What the bearer may do. `None` in a three-state grant means "not said", which is not the same as `false`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VideoGrant {
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub room_create: bool,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub room_list: bool,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub room_record: bool,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub room_admin: bool,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub room_join: bool,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub room: String,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub destination_room: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub ingress_admin: bool,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub hidden: bool,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub recorder: bool,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub agent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe_metrics: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_manage_agent_session: Option<bool>,
}

impl Claims {
    /// Who the bearer is: `sub`, else `jti` as old minters wrote it.
    pub fn identity(&self) -> Option<&str> {
        let said = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        if said(&self.subject) { self.subject.as_deref() } else { self.token_id.as_deref().filter(|id| !id.is_empty()) }
    }

    /// When it was issued, as far as it says, in Unix seconds: what a revocation is compared with.
    pub fn issued(&self) -> Option<u64> {
        self.not_before.max(self.issued_at)
    }

    /// The grants with every "not said" resolved.
    pub fn permission(&self) -> Permission {
        let grant = &self.video;
        let can_publish = grant.can_publish.unwrap_or(true);
        Permission {
            can_subscribe: grant.can_subscribe.unwrap_or(true),
            can_publish,
            can_publish_data: grant.can_publish_data.unwrap_or(can_publish),
            can_publish_sources: grant.can_publish_sources.iter().map(|name| source_named(name)).collect(),
            can_update_metadata: grant.can_update_own_metadata.unwrap_or(false),
            can_subscribe_metrics: grant.can_subscribe_metrics.unwrap_or(false),
            hidden: grant.hidden,
            recorder: grant.recorder,
            agent: grant.agent,
        }
    }

    /// Writes a permission into the grants, so that a refreshed token says what holds now.
    pub fn set_permission(&mut self, permission: &Permission) {
        let grant = &mut self.video;
        grant.can_subscribe = Some(permission.can_subscribe);
        grant.can_publish = Some(permission.can_publish);
        grant.can_publish_data = Some(permission.can_publish_data);
        grant.can_publish_sources = permission.can_publish_sources.iter().map(|one| source_name(*one).into()).collect();
        grant.can_update_own_metadata = Some(permission.can_update_metadata);
        grant.can_subscribe_metrics = Some(permission.can_subscribe_metrics);
        grant.hidden = permission.hidden;
        grant.recorder = permission.recorder;
        grant.agent = permission.agent;
    }

    /// The settings for a room that this token creates; an error when the member is not such a message.
    pub fn room_configuration(&self) -> Result<Option<RoomConfiguration>, serde_json::Error> {
        self.room_config.as_ref().map(RoomConfiguration::deserialize).transpose()
    }
}

/// A name nobody knows becomes a source nobody publishes: dropping it could leave an empty list, which means "all".
fn source_named(name: &str) -> Source {
    SOURCES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map_or(Source::Unknown, |(source, _)| *source)
}

fn source_name(source: Source) -> &'static str {
    SOURCES.iter().find(|(known, _)| *known == source).map_or("unknown", |(_, name)| name)
}

const SOURCES: [(Source, &str); 4] = [
    (Source::Camera, "camera"),
    (Source::Microphone, "microphone"),
    (Source::ScreenShare, "screen_share"),
    (Source::ScreenShareAudio, "screen_share_audio"),
];

const KINDS: [(ParticipantKind, &str); 7] = [
    (ParticipantKind::Standard, "standard"),
    (ParticipantKind::Ingress, "ingress"),
    (ParticipantKind::Egress, "egress"),
    (ParticipantKind::Sip, "sip"),
    (ParticipantKind::Agent, "agent"),
    (ParticipantKind::Connector, "connector"),
    (ParticipantKind::Bridge, "bridge"),
];

fn kind_from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ParticipantKind, D::Error> {
    let name: Option<String> = Option::deserialize(deserializer)?;
    let known = name.and_then(|name| KINDS.iter().find(|(_, known)| known.eq_ignore_ascii_case(&name)));
    // A kind from a newer SDK than this server is an ordinary person rather than a refused one.
    Ok(known.map_or(ParticipantKind::Standard, |(kind, _)| *kind))
}

fn kind_to_text<S: Serializer>(kind: &ParticipantKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(KINDS.iter().find(|(known, _)| known == kind).map_or("standard", |(_, name)| name))
}

/// RFC 7519 2: a NumericDate may have a fraction. It may not be text, negative or out of reach.
fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Option::<serde_json::Number>::deserialize(deserializer)? {
        None => Ok(None),
        Some(number) => match (number.as_u64(), number.as_f64()) {
            (Some(seconds), _) => Ok(Some(seconds)),
            // The bound is 2^53: up to there a double holds whole seconds exactly.
            (None, Some(seconds)) if (0.0..=9_007_199_254_740_992.0).contains(&seconds) => Ok(Some(seconds as u64)),
            _ => Err(D::Error::custom("not a time")),
        },
    }
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_standard(kind: &ParticipantKind) -> bool {
    *kind == ParticipantKind::Standard
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Claims {
        serde_json::from_value(value).expect("claims")
    }

    #[test]
    fn a_grant_not_said_is_not_a_grant_denied() {
        let silent = read(json!({ "video": {} })).permission();
        assert_eq!(silent, Permission::default());

        let names = ["roomJoin", "room", "canPublish", "canSubscribe", "canPublishData", "canPublishSources", "hidden"];
        let video: serde_json::Map<String, Value> =
            names.map(|name| (name.to_owned(), Value::Null)).into_iter().collect();
        assert_eq!(read(json!({ "video": video })), Claims::default());
        let names = ["video", "name", "metadata", "attributes", "kind", "kindDetails", "sub", "exp", "roomConfig"];
        let claims: serde_json::Map<String, Value> =
            names.map(|name| (name.to_owned(), Value::Null)).into_iter().collect();
        assert_eq!(read(Value::Object(claims)), Claims::default());

        let denied = read(json!({ "video": { "canPublish": false, "canSubscribe": false } })).permission();
        assert!(!denied.can_publish && !denied.can_subscribe);
        assert!(!denied.can_publish_data, "data follows publishing where it is not said");

        let data_alone = read(json!({ "video": { "canPublish": false, "canPublishData": true } })).permission();
        assert!(!data_alone.can_publish && data_alone.can_publish_data);
    }

    #[test]
    fn an_unknown_source_never_opens_every_source() {
        let one = read(json!({ "video": { "canPublishSources": ["CAMERA", "hologram"] } })).permission();
        assert_eq!(one.can_publish_sources, [Source::Camera, Source::Unknown]);
        let none = read(json!({ "video": { "canPublishSources": ["hologram"] } })).permission();
        assert_eq!(none.can_publish_sources, [Source::Unknown]);
    }

    #[test]
    fn identity_is_the_subject_else_the_token_id() {
        let table = [
            (json!({ "sub": "ann", "jti": "id" }), Some("ann")),
            (json!({ "jti": "ann" }), Some("ann")),
            (json!({ "sub": "", "jti": "ann" }), Some("ann")),
            (json!({ "sub": "", "jti": "" }), None),
            (json!({}), None),
        ];
        for (claims, identity) in table {
            assert_eq!(read(claims.clone()).identity(), identity, "{claims}");
        }
    }

    #[test]
    fn a_permission_survives_the_way_through_a_token() {
        let permission = Permission {
            can_subscribe: false,
            can_publish_sources: vec![Source::ScreenShare, Source::Microphone],
            can_update_metadata: true,
            hidden: true,
            agent: true,
            ..Permission::default()
        };
        let mut claims = Claims { kind: ParticipantKind::Agent, ..Claims::default() };
        claims.set_permission(&permission);
        let back: Claims = serde_json::from_str(&serde_json::to_string(&claims).unwrap()).unwrap();
        assert_eq!(back, claims);
        assert_eq!(back.permission(), permission);
    }

    #[test]
    fn times_may_have_fractions_but_must_be_times() {
        let exp =
            |value: Value| serde_json::from_value::<Claims>(json!({ "exp": value })).map(|claims| claims.expires_at);
        assert_eq!(exp(json!(1_700_000_000)).unwrap(), Some(1_700_000_000));
        assert_eq!(exp(json!(1_700_000_000.75)).unwrap(), Some(1_700_000_000));
        assert_eq!(exp(json!(u64::MAX)).unwrap(), Some(u64::MAX));
        for wrong in [json!("1700000000"), json!(-1), json!(1e300), json!([1]), json!(true)] {
            assert!(exp(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn room_settings_are_read_as_the_message_they_are() {
        let claims = read(json!({ "roomConfig": { "maxParticipants": 5, "empty_timeout": 60, "novel": true } }));
        let settings = claims.room_configuration().unwrap().expect("present");
        assert_eq!((settings.max_participants, settings.empty_timeout), (5, 60));
        assert!(read(json!({ "roomConfig": 5 })).room_configuration().is_err());
        assert_eq!(read(json!({ "roomConfig": null })).room_configuration().unwrap(), None);
    }
}
