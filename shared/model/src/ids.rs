//! Ids. Names come from people and are checked once, here; sids are ours and carry the prefix that clients enforce.

use std::{fmt, sync::Arc};

/// Longest room name, identity or participant name in bytes (limit `names`).
pub const NAME_BYTES_MAX: usize = 256;

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidName {
    Empty,
    TooLong,
    /// Control characters forge log lines and file listings.
    ControlCharacter,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty",
            Self::TooLong => "is longer than 256 bytes",
            Self::ControlCharacter => "contains a control character",
        })
    }
}

impl std::error::Error for InvalidName {}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident) => {
        text_id!($(#[$doc])* $name);

        impl TryFrom<&str> for $name {
            type Error = InvalidName;

            fn try_from(text: &str) -> Result<Self, InvalidName> {
                match text {
                    "" => Err(InvalidName::Empty),
                    _ if text.len() > NAME_BYTES_MAX => Err(InvalidName::TooLong),
                    _ if text.chars().any(char::is_control) => Err(InvalidName::ControlCharacter),
                    _ => Ok(Self(text.into())),
                }
            }
        }
    };
}

macro_rules! sid {
    ($(#[$doc:meta])* $name:ident) => {
        text_id!($(#[$doc])* $name);

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }
    };
}

checked_name! {
    /// What the host application calls a room.
    RoomName
}
checked_name! {
    /// Who a participant is to the host application; one live session per identity and room.
    Identity
}
sid! {
    /// One life of a room, `RM_…`.
    RoomSid
}
sid! {
    /// One session of a participant, `PA_…`.
    ParticipantSid
}
sid! {
    /// One publication, `TR_…`.
    TrackSid
}
sid! {
    /// One published stream of data frames, `DTR_…`.
    DataTrackSid
}
sid! {
    /// One recording, `EG_…`.
    EgressId
}
sid! {
    /// One process of Plenary, `ND_…`.
    NodeId
}

impl TrackSid {
    /// The name under which the media engine knows a track in its backup codec, beside the track itself. No client sees it.
    pub fn backup(&self) -> Self {
        format!("{self}{BACKUP}").into()
    }

    /// Undoes [`backup`](Self::backup): the track's own name, and whether this is its backup's.
    pub fn split_backup(&self) -> (Self, bool) {
        match self.0.strip_suffix(BACKUP) {
            Some(own) => (own.into(), true),
            None => (self.clone(), false),
        }
    }
}

/// In no sid of ours, so that the two names of a track are never those of two tracks.
const BACKUP: &str = "/backup";

/// One transport (a client's PeerConnection) on this node. Never reused while the node lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer-{}", self.0)
    }
}
