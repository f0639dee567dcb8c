//! What the room API asks of the node that hosts a participant.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Channel, Destination, Identity, Permission, TrackSid};

/// An instruction about one room, carried out by the node that hosts the people it names.
#[derive(Debug, Clone, PartialEq)]
pub enum Admin {
    Remove {
        identity: Identity,
    },
    Mute {
        identity: Identity,
        track: TrackSid,
        muted: bool,
    },
    Update {
        identity: Identity,
        update: ParticipantUpdate,
    },
    Subscribe {
        identity: Identity,
        tracks: Vec<TrackSid>,
        subscribe: bool,
    },
    /// A message from the server itself, without a sender.
    Send {
        channel: Channel,
        to: Destination,
        payload: Bytes,
    },
}

/// Fields that are `None` stay as they are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ParticipantUpdate {
    pub name: Option<String>,
    pub metadata: Option<String>,
    /// Merged; an empty value deletes its key.
    pub attributes: BTreeMap<String, String>,
    pub permission: Option<Permission>,
}

/// Why an instruction was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminRefusal {
    NoSuchRoom,
    NoSuchParticipant,
    NoSuchTrack,
    RemoteUnmuteDisabled,
    TooLarge,
}
