//! Who may not be in a room.

use crate::{Identity, RoomName};

/// Somebody who is kept out, with every token or with those issued before a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    pub identity: Identity,
    /// `None` means every room.
    pub room: Option<RoomName>,
    /// Only tokens issued before this moment are refused (a revocation), in Unix seconds; `None` refuses every token.
    pub tokens_before_unix_s: Option<u64>,
    /// When it is over by itself, in Unix seconds.
    pub until_unix_s: u64,
}

/// All that stands about one person in one room, or in every room: what nodes keep, tell each other and put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanEntry {
    pub identity: Identity,
    /// `None` means every room.
    pub room: Option<RoomName>,
    /// Every token is refused until then, in Unix seconds. 0: none is.
    pub banned_until_unix_s: u64,
    /// Tokens issued before this moment are refused, in Unix seconds. 0: none is, because there was no revocation or all
    /// was lifted.
    pub tokens_before_unix_s: u64,
    /// How long that is so. What was lifted is remembered until it would have been over, so that nobody puts it back.
    pub revoked_until_unix_s: u64,
    /// The later word about the same person and room has the higher one, whatever was lost between.
    pub version: u64,
}
