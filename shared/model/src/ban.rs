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

/// A change to the bans, the same for everybody who hears of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BanChange {
    /// In place of the ban, or of the revocation, of the same person and room.
    Set(Ban),
    /// Both are over.
    Lifted { identity: Identity, room: Option<RoomName> },
}
