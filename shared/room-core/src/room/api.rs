//! Everything that can happen to a room and everything that can follow.

use std::{sync::Arc, time::Duration};

use plenary_model::{
    Admin, AdminRefusal, Identity, LeaveReason, Participant, ParticipantSid, Record, RoomDelta, RoomInfo, RoomSnapshot,
    RoomWord, SpeakerLevel, TrackSid,
};

use crate::notice::{Notice, Request, Welcome};

#[derive(Debug, Clone)]
pub enum Input {
    /// The store's state: the first one starts the room, later ones follow a [`Output::Reread`] or come unasked.
    Snapshot(RoomSnapshot),
    /// The store is asked for a snapshot now.
    Reading,
    /// The next change of the room's history.
    Delta(Arc<RoomDelta>),
    /// Changes were missed, and the store may be another one since. A snapshot that is read from now on must follow.
    Missed,
    /// A session of this node whose record the store has accepted. Answered by [`Output::Welcome`].
    Joined { record: Arc<Record> },
    /// A local session asks. Unknown and ended ones are ignored.
    Ask { who: ParticipantSid, what: Request },
    /// The room API asks; answered by [`Output::AdminDone`] with the same number.
    Admin(AdminAsk),
    /// A local session's actor ended, with or without a [`Request::Leave`] before.
    SessionLost { who: ParticipantSid, reason: LeaveReason },
    /// Loudness over the last window, from the room's media router; who is not in it is silent.
    Levels { levels: Vec<(ParticipantSid, TrackSid, SpeakerLevel)> },
    /// The store refused or lost a record of this session.
    WriteFailed { who: ParticipantSid },
    /// Another node of the room says something.
    Heard(RoomWord),
    /// The store may have lost the room, or others may have taken this node's people for gone.
    Lapsed,
    /// Whether somebody watches the room from this node without being in it, as a recording does: answered by everything that is
    /// there, and what follows, as [`Output::Watched`].
    Watch(bool),
}

#[derive(Debug, Clone, PartialEq)]
pub struct AdminAsk {
    pub number: u64,
    pub what: Admin,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// To a local session; never before its `Welcome`.
    Tell {
        who: ParticipantSid,
        what: Notice,
    },
    /// To whoever watches: people, who of them speaks, what everybody is told of the room, and what is said to everybody.
    Watched(Notice),
    /// Registered: everything after this point reaches the session as notices.
    Welcome {
        who: ParticipantSid,
        welcome: Welcome,
    },
    /// To the store, in order.
    Write(RecordChange),
    /// To the other nodes of the room, in order.
    Say(RoomWord),
    /// Read the snapshot again: the history has a hole or is another one. One at a time.
    Reread,
    AdminDone {
        number: u64,
        outcome: Result<Option<Arc<Participant>>, AdminRefusal>,
    },
    /// The people of this room are all on other nodes: this one need not host it. Said again after a while.
    Unattended,
    /// Nobody is here any more and the timeouts have run out, or the room was deleted. Always the last output.
    Closed {
        reason: LeaveReason,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum RecordChange {
    Put(Arc<Record>),
    Remove {
        identity: Identity,
        sid: ParticipantSid,
        generation: u64,
        reason: LeaveReason,
    },
    /// Put back what the store lost: the room as it was known, and this node's people. Whoever is told to be over is to
    /// come back as [`Input::WriteFailed`]; a snapshot is to be read afterwards.
    Restore {
        view: u64,
        seq: u64,
        info: RoomInfo,
        records: Vec<Arc<Record>>,
    },
    /// Delete the room if it is empty in the store too; its `Closed` comes home as a delta.
    CloseIfEmpty,
}

impl RecordChange {
    pub(crate) fn removal(record: &Record, reason: LeaveReason) -> Self {
        let (identity, sid) = (record.participant.identity.clone(), record.participant.sid.clone());
        Self::Remove { identity, sid, generation: record.generation, reason }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub remote_unmute: bool,
    /// How often counts go out when they changed.
    pub counts_interval: Duration,
    pub metadata_bytes_max: usize,
    pub attributes_bytes_max: usize,
}

/// Why a room wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deadline {
    EmptyTimeout,
    Counts,
    /// Whoever an earlier room of this node left behind has not come back.
    Orphans,
    SimulatedSpeaker,
    /// Whoever the store lost was not put back.
    Unconfirmed,
    /// Nobody of this node is in the room.
    Unattended,
}
