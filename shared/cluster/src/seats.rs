//! What somebody counts as in a room.

use plenary_model::{Participant, ParticipantKind};

/// Keeps no room alive and takes no seat.
pub(crate) fn is_dependent(person: &Participant) -> bool {
    let permission = &person.permission;
    permission.agent || is_recorder(person) || person.kind == ParticipantKind::Agent
}

pub(crate) fn is_recorder(person: &Participant) -> bool {
    person.permission.recorder || person.kind == ParticipantKind::Egress
}

pub(crate) fn is_counted(person: &Participant) -> bool {
    !person.permission.hidden && !is_dependent(person)
}
