//! Access tokens: who somebody is and what they may do, signed by the host application.
//!
//! These are LiveKit's tokens, so that its SDKs mint them and its clients carry them: HS256, the issuer is the API key
//! and selects the secret, grants stand under `video`. Beyond that an issuer may sign with a private key of its own (RS,
//! PS, ES or EdDSA), of which this server knows the public half. Every door asks the same [`Verifier`]; whatever hands
//! out tokens uses a [`Minter`] over the same [`Keys`]. Nothing here reads a clock, and no error ever repeats the token,
//! or a part of it.
//!
//! An `aud` claim is compared for issuers with public keys. In tokens of API keys it is not looked at: LiveKit's minters
//! write none, so there is nothing to compare it with.
//!
//! ```
//! use plenary_protocol::token::{Claims, DEFAULT_LEEWAY, Keys, Minter, Verifier, VideoGrant};
//!
//! let keys = Keys::development();
//! let ask = Claims {
//!     issuer: "devkey".into(),
//!     subject: Some("ann".into()),
//!     expires_at: Some(2_000),
//!     video: VideoGrant { room_join: true, room: "standup".into(), ..VideoGrant::default() },
//!     ..Claims::default()
//! };
//! let token = Minter::new(&keys).mint(&ask)?;
//! let claims = Verifier::new(&keys, DEFAULT_LEEWAY).verify(&token, 1_000)?;
//! assert_eq!(claims.identity(), Some("ann"));
//! assert!(claims.permission().can_publish);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod claims;
mod keys;
mod mint;
mod public_key;
mod verify;

pub use claims::{Claims, VideoGrant};
pub use jsonwebtoken::Algorithm;
pub use keys::{DEVELOPMENT_KEY, DEVELOPMENT_SECRET, Issuer, KeyError, Keys, SECRET_BYTES_MIN};
pub use mint::{MintError, Minter, REFRESH_LIFE};
pub use public_key::{JWKS_KEYS_MAX, PublicKey, PublicKeyError};
pub use verify::{DEFAULT_LEEWAY, TokenError, Verifier};

/// Longest token, written or read. It travels in a request line or a header, which hold about this much.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;
