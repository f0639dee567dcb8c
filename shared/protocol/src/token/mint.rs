//! Writing tokens.

use std::{collections::BTreeMap, fmt, time::Duration};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secrecy::ExposeSecret;

use super::{Claims, Keys, TOKEN_BYTES_MAX};

/// Signs tokens with the newest secret of their issuer's key.
#[derive(Clone)]
pub struct Minter {
    keys: BTreeMap<String, EncodingKey>,
}

impl Minter {
    pub fn new(keys: &Keys) -> Self {
        let newest = keys.iter().filter_map(|(key, secrets)| Some((key, secrets.first()?)));
        let encoding = |secret: &secrecy::SecretString| EncodingKey::from_secret(secret.expose_secret().as_bytes());
        Self { keys: newest.map(|(key, secret)| (key.to_owned(), encoding(secret))).collect() }
    }

    /// A token that says exactly these claims, signed for their issuer.
    pub fn mint(&self, claims: &Claims) -> Result<String, MintError> {
        let key = self.keys.get(&claims.issuer).ok_or(MintError::UnknownIssuer)?;
        let token = encode(&Header::new(Algorithm::HS256), claims, key).map_err(|_| MintError::Signing)?;
        if token.len() > TOKEN_BYTES_MAX { Err(MintError::TooLarge) } else { Ok(token) }
    }

    /// The token that keeps a running session alive: the same claims, never wider, good for at least [`REFRESH_LIFE`].
    pub fn refresh(&self, claims: &Claims, now_unix_s: u64) -> Result<String, MintError> {
        let soonest = now_unix_s.saturating_add(REFRESH_LIFE.as_secs());
        let refreshed = Claims {
            not_before: Some(now_unix_s),
            issued_at: Some(now_unix_s),
            expires_at: Some(claims.expires_at.map_or(soonest, |at| at.max(soonest))),
            subject: claims.identity().map(Into::into),
            token_id: None,
            ..claims.clone()
        };
        self.mint(&refreshed)
    }
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minter").field("keys", &self.keys.keys()).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    #[error("no secret is known for the issuer of this token")]
    UnknownIssuer,
    /// Metadata may be larger than what a token can carry. The bearer keeps the token it has.
    #[error("the token would exceed {TOKEN_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the token could not be signed")]
    Signing,
}

/// A client that was asleep for less than this finds its way back.
pub const REFRESH_LIFE: Duration = Duration::from_secs(10 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{DEFAULT_LEEWAY, Verifier, VideoGrant};

    fn claims() -> Claims {
        Claims {
            issuer: "devkey".into(),
            token_id: Some("ann".into()),
            expires_at: Some(1_000),
            metadata: "m".into(),
            video: VideoGrant { room_join: true, room: "r".into(), can_publish: Some(false), ..VideoGrant::default() },
            ..Claims::default()
        }
    }

    #[test]
    fn a_refreshed_token_says_the_same_for_longer() {
        let keys = Keys::development();
        let refreshed = Minter::new(&keys).refresh(&claims(), 900).unwrap();
        let read = Verifier::new(&keys, DEFAULT_LEEWAY).verify(&refreshed, 900).unwrap();
        assert_eq!(read.identity(), Some("ann"));
        assert_eq!(read.expires_at, Some(900 + REFRESH_LIFE.as_secs()));
        assert_eq!((read.video, read.metadata), (claims().video, claims().metadata));

        let long = Claims { expires_at: Some(90_000), ..claims() };
        let refreshed = Minter::new(&keys).refresh(&long, 900).unwrap();
        assert_eq!(Verifier::new(&keys, DEFAULT_LEEWAY).verify(&refreshed, 900).unwrap().expires_at, Some(90_000));
    }

    #[test]
    fn what_cannot_be_read_back_is_not_written() {
        let minter = Minter::new(&Keys::development());
        assert_eq!(minter.mint(&Claims { issuer: "other".into(), ..claims() }), Err(MintError::UnknownIssuer));
        assert_eq!(
            minter.mint(&Claims { metadata: "x".repeat(TOKEN_BYTES_MAX), ..claims() }),
            Err(MintError::TooLarge)
        );
        assert!(!format!("{minter:?}").contains("secret"));
    }
}
