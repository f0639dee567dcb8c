//! `plenary token create`: what a host application does with a server SDK, for trying things out and for scripts.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use plenary_model::{Identity, InvalidName, ParticipantKind, RoomName};
use plenary_protocol::token::{Claims, KeyError, Keys, MintError, Minter, VideoGrant};
use secrecy::SecretString;

use super::pair;

/// Who the token is for and what it grants. With an identity it grants joining the room.
#[derive(Debug, Args)]
pub struct TokenCreate {
    /// The room that the token joins or administers.
    #[arg(long)]
    room: Option<String>,
    /// Who joins.
    #[arg(long, requires = "room")]
    identity: Option<String>,
    /// The name that others see.
    #[arg(long, requires = "identity")]
    name: Option<String>,
    #[arg(long, requires = "identity")]
    metadata: Option<String>,
    /// May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, requires = "identity")]
    attribute: Vec<(String, String)>,

    /// Grant administering the room.
    #[arg(long, requires = "room")]
    admin: bool,
    /// Grant listing rooms.
    #[arg(long)]
    list: bool,
    /// Grant creating and deleting rooms.
    #[arg(long)]
    create: bool,
    /// Grant starting and stopping recordings.
    #[arg(long)]
    record: bool,
    /// Nobody sees this participant.
    #[arg(long, requires = "identity")]
    hidden: bool,
    /// This participant records the room.
    #[arg(long, requires = "identity")]
    recorder: bool,
    /// This participant is an agent.
    #[arg(long, requires = "identity")]
    agent: bool,
    /// Withhold publishing.
    #[arg(long, requires = "identity")]
    no_publish: bool,
    /// Withhold subscribing.
    #[arg(long, requires = "identity")]
    no_subscribe: bool,
    /// Withhold sending data.
    #[arg(long, requires = "identity")]
    no_data: bool,
    /// Grant changing one's own name, metadata and attributes.
    #[arg(long, requires = "identity")]
    update_own_metadata: bool,

    /// How long it is good for.
    #[arg(long, value_name = "DURATION", default_value = "6h", value_parser = humantime::parse_duration)]
    valid_for: Duration,
    /// The API key to sign with; of several configured ones it has to be named.
    #[arg(long, value_name = "ID")]
    api_key: Option<String>,
    /// Its secret, where the configuration does not have it.
    #[arg(long, requires = "api_key", env = "PLENARY_API_SECRET", hide_env_values = true)]
    api_secret: Option<SecretString>,
}

impl TokenCreate {
    /// Whether the configuration has to be asked for keys.
    pub fn needs_configured_keys(&self) -> bool {
        self.api_secret.is_none()
    }

    /// The token, signed with the key given by flags or else with one of `configured`.
    pub fn create(&self, configured: &Keys, now_unix_s: u64) -> Result<String, TokenError> {
        let given = self.given_keys()?;
        let keys = given.as_ref().unwrap_or(configured);
        let issuer = match &self.api_key {
            Some(id) => id.clone(),
            None => only(keys).ok_or(TokenError::WhichKey)?,
        };
        let claims = Claims { issuer, ..self.claims(now_unix_s)? };
        Ok(Minter::new(keys).mint(&claims)?)
    }

    fn given_keys(&self) -> Result<Option<Keys>, TokenError> {
        let (Some(id), Some(secret)) = (&self.api_key, &self.api_secret) else { return Ok(None) };
        let mut keys = Keys::new();
        keys.add(id, secret.clone())?;
        Ok(Some(keys))
    }

    fn claims(&self, now_unix_s: u64) -> Result<Claims, TokenError> {
        if let Some(room) = &self.room {
            RoomName::try_from(room.as_str()).map_err(TokenError::Room)?;
        }
        if let Some(identity) = &self.identity {
            Identity::try_from(identity.as_str()).map_err(TokenError::Identity)?;
        }
        let video = VideoGrant {
            room_join: self.identity.is_some(),
            room: self.room.clone().unwrap_or_default(),
            room_admin: self.admin,
            room_list: self.list,
            room_create: self.create,
            room_record: self.record,
            hidden: self.hidden,
            recorder: self.recorder,
            agent: self.agent,
            can_publish: self.no_publish.then_some(false),
            can_subscribe: self.no_subscribe.then_some(false),
            can_publish_data: self.no_data.then_some(false),
            can_update_own_metadata: self.update_own_metadata.then_some(true),
            ..VideoGrant::default()
        };
        let grants_something =
            video.room_join || video.room_admin || video.room_list || video.room_create || video.room_record;
        if !grants_something {
            return Err(TokenError::Nothing);
        }
        Ok(Claims {
            subject: self.identity.clone(),
            issued_at: Some(now_unix_s),
            not_before: Some(now_unix_s),
            expires_at: Some(now_unix_s.saturating_add(self.valid_for.as_secs())),
            name: self.name.clone().unwrap_or_default(),
            metadata: self.metadata.clone().unwrap_or_default(),
            attributes: self.attribute.iter().cloned().collect::<BTreeMap<_, _>>(),
            kind: if self.agent { ParticipantKind::Agent } else { ParticipantKind::Standard },
            video,
            ..Claims::default()
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the token would grant nothing: give --room and --identity, or one of --admin, --list, --create, --record")]
    Nothing,
    #[error("--room {0}")]
    Room(InvalidName),
    #[error("--identity {0}")]
    Identity(InvalidName),
    #[error("several API keys are configured: name one with --api-key")]
    WhichKey,
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Mint(#[from] MintError),
}

fn only(keys: &Keys) -> Option<String> {
    let mut ids = keys.ids();
    let id = ids.next()?;
    ids.next().is_none().then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use plenary_protocol::token::{DEFAULT_LEEWAY, Verifier};

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        create: TokenCreate,
    }

    fn parse(line: &str) -> Result<TokenCreate, clap::Error> {
        Line::try_parse_from(std::iter::once("create").chain(line.split_whitespace())).map(|line| line.create)
    }

    fn claims(line: &str, keys: &Keys) -> Claims {
        let token = parse(line).unwrap().create(keys, NOW).unwrap();
        Verifier::new(keys, DEFAULT_LEEWAY).verify(&token, NOW).unwrap()
    }

    #[test]
    fn a_token_says_what_the_flags_say() {
        let line =
            "--room standup --identity ann --name Ann --no-publish --attribute a=b=c --attribute d= --valid-for 90s";
        let claims = claims(line, &Keys::development());
        assert_eq!((claims.identity(), claims.name.as_str(), claims.expires_at), (Some("ann"), "Ann", Some(NOW + 90)));
        assert_eq!((claims.attributes["a"].as_str(), claims.attributes["d"].as_str()), ("b=c", ""));
        assert!(claims.video.room_join && claims.video.room == "standup");
        assert!(!claims.permission().can_publish && claims.permission().can_subscribe);
    }

    #[test]
    fn a_token_for_the_api_joins_nothing() {
        let claims = claims("--list --create", &Keys::development());
        assert!(claims.video.room_list && claims.video.room_create && !claims.video.room_join);
        assert_eq!(claims.identity(), None);
    }

    #[test]
    fn tokens_that_could_not_be_used_are_not_made() {
        for line in ["--identity ann", "--admin", "--hidden --room r", "--valid-for 5", "--api-secret x --list"] {
            assert!(parse(line).is_err(), "{line}");
        }
        for line in ["", "--room standup"] {
            assert!(
                matches!(parse(line).unwrap().create(&Keys::development(), NOW), Err(TokenError::Nothing)),
                "{line}"
            );
        }
    }

    #[test]
    fn the_key_comes_from_flags_or_is_the_only_one() {
        let mut keys = Keys::new();
        keys.add("first", SECRET.into()).unwrap();
        let given = format!("--list --api-key mine --api-secret {SECRET}");
        assert!(!parse(&given).unwrap().needs_configured_keys());
        assert!(parse(&given).unwrap().create(&Keys::new(), NOW).is_ok());
        assert!(parse("--list").unwrap().create(&keys, NOW).is_ok());
        keys.add("second", SECRET.into()).unwrap();
        assert!(matches!(parse("--list").unwrap().create(&keys, NOW), Err(TokenError::WhichKey)));
        assert_eq!(claims("--list --api-key second", &keys).issuer, "second");
        assert!(matches!(parse("--list --api-key third").unwrap().create(&keys, NOW), Err(TokenError::Mint(_))));
        assert!(!format!("{:?}", parse(&given).unwrap()).contains(SECRET));
    }
}
