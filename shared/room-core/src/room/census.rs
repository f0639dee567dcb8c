//! Who counts: `livekit-protocol.md` 2. The store applies the same rules to caps and emptiness.

use plenary_model::{Participant, ParticipantKind, RoomInfo};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Census {
    /// Somebody is here who keeps the room open.
    pub(super) alive: bool,
    participants: u32,
    publishers: u32,
    recording: bool,
}

impl Census {
    pub(super) fn of<'a>(people: impl Iterator<Item = &'a Participant>) -> Self {
        let mut census = Self::default();
        for person in people {
            census.alive |= !is_dependent(person);
            census.recording |= is_recorder(person);
            if is_counted(person) {
                census.participants = census.participants.saturating_add(1);
                census.publishers = census.publishers.saturating_add(u32::from(person.is_publisher));
            }
        }
        census
    }

    pub(super) fn fill(self, info: RoomInfo) -> RoomInfo {
        let Self { participants, publishers, .. } = self;
        let active_recording = self.recording || info.has_active_egress;
        RoomInfo { participants, publishers, active_recording, ..info }
    }
}

pub(super) fn is_counted(person: &Participant) -> bool {
    !person.permission.hidden && !is_dependent(person)
}

fn is_dependent(person: &Participant) -> bool {
    person.permission.agent || person.kind == ParticipantKind::Agent || is_recorder(person)
}

fn is_recorder(person: &Participant) -> bool {
    person.permission.recorder || person.kind == ParticipantKind::Egress
}
