//! Writing tokens.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secrecy::ExposeSecret;

use super::{Claims, Keys, TOKEN_BYTES_MAX};

/// Signs tokens with the newest secret of their issuer's key.
#[derive(Clone)]
pub struct Minter {
    keys: BTreeMap<String, EncodingKey>,
    /// Those whose private key is not ours.
    issuers: BTreeSet<String>,
    refresh_key: Option<String>,
}

impl Minter {
    pub fn new(keys: &Keys) -> Self {
        let newest = keys.iter().filter_map(|(key, secrets)| Some((key, secrets.first()?)));
        let encoding = |secret: &secrecy::SecretString| EncodingKey::from_secret(secret.expose_secret().as_bytes());
        Self {
            keys: newest.map(|(key, secret)| (key.to_owned(), encoding(secret))).collect(),
            issuers: keys.issuers().map(|(name, _)| name.to_owned()).collect(),
            refresh_key: keys.refresh_key().map(Into::into),
        }
    }

    /// A token that says exactly these claims, signed for their issuer.
    pub fn mint(&self, claims: &Claims) -> Result<String, MintError> {
        let key = self.keys.get(&claims.issuer).ok_or(MintError::UnknownIssuer)?;
        let token = encode(&Header::new(Algorithm::HS256), claims, key).map_err(|_| MintError::Signing)?;
        if token.len() > TOKEN_BYTES_MAX { Err(MintError::TooLarge) } else { Ok(token) }
    }

    /// The token that keeps a running session alive: the same claims, never wider, good for at least [`REFRESH_LIFE`].
    ///
    /// It counts as issued when the first one was, so that revoking that one revokes this one. For an issuer whose private
    /// key is not ours the refresh key signs, where there is one, and names whom it vouches for.
    pub fn refresh(&self, claims: &Claims, now_unix_s: u64) -> Result<String, MintError> {
        let soonest = now_unix_s.saturating_add(REFRESH_LIFE.as_secs());
        let (issuer, vouched_for) = match &self.refresh_key {
            _ if self.keys.contains_key(&claims.issuer) => (claims.issuer.clone(), claims.vouched_for.clone()),
            Some(key) if self.issuers.contains(&claims.issuer) => (key.clone(), Some(claims.issuer.clone())),
            _ => return Err(MintError::UnknownIssuer),
        };
        let refreshed = Claims {
            issuer,
            vouched_for,
            not_before: claims.issued().filter(|at| *at > 0),
            issued_at: None,
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
    use crate::token::{DEFAULT_LEEWAY, Issuer, TokenError, Verifier, VideoGrant};

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
    fn a_refreshed_token_is_as_old_as_the_first_one() {
        let keys = Keys::development();
        let issued = |not_before, issued_at| {
            let first = Claims { not_before, issued_at, ..claims() };
            let token = Minter::new(&keys).refresh(&first, 900).unwrap();
            Verifier::new(&keys, DEFAULT_LEEWAY).verify(&token, 900).unwrap().issued()
        };
        assert_eq!(issued(Some(100), Some(200)), Some(200));
        assert_eq!(issued(Some(300), Some(200)), Some(300));
        assert_eq!(issued(Some(0), None), None, "an unknown age stays unknown");
    }

    #[test]
    fn another_issuers_session_is_refreshed_by_the_refresh_key_alone() {
        let mut keys = Keys::new();
        keys.add("node", "0123456789abcdef0123456789abcdef".into()).unwrap();
        keys.add_issuer("idp", Issuer::default()).unwrap();
        let first = Claims { issuer: "idp".into(), ..claims() };
        assert_eq!(Minter::new(&keys).refresh(&first, 900), Err(MintError::UnknownIssuer));
        keys.set_refresh_key("node").unwrap();
        let token = Minter::new(&keys).refresh(&first, 900).unwrap();
        let read = Verifier::new(&keys, DEFAULT_LEEWAY).verify(&token, 900).unwrap();
        assert_eq!((read.issuer.as_str(), read.vouched_for.as_deref()), ("node", Some("idp")));
        let again = Minter::new(&keys).refresh(&read, 900).unwrap();
        let again = Verifier::new(&keys, DEFAULT_LEEWAY).verify(&again, 900).unwrap();
        assert_eq!(again.vouched_for.as_deref(), Some("idp"), "the first issuer is never forgotten");

        let mut without_idp = Keys::new();
        without_idp.add("node", "0123456789abcdef0123456789abcdef".into()).unwrap();
        without_idp.set_refresh_key("node").unwrap();
        let verifier = Verifier::new(&without_idp, DEFAULT_LEEWAY);
        assert_eq!(verifier.verify(&token, 900), Err(TokenError::UnknownKey), "its trust ends with the issuer's");
        let stranger = Claims { issuer: "nobody".into(), ..claims() };
        assert_eq!(Minter::new(&keys).refresh(&stranger, 900), Err(MintError::UnknownIssuer));
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
