//! A room as one node hosts it: the room's decisions ([`room`]), and what the node owes the store and asks of it.
//!
//! Writes go to the store one after the other, in the order in which they were decided. What the store did not answer is asked
//! again for as long as it matters. The room ends when nobody needs it here and the store has heard everything.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use plenary_model::{LeaveReason, ParticipantSid, Record, RoomSnapshot};

use crate::room::{self, RecordChange, Room};

/// See the module.
#[derive(Debug)]
pub struct Host {
    room: Room,
    /// Whether the room knows the store's state yet.
    is_warm: bool,
    /// Joins that the store is deciding.
    joining: BTreeSet<ParticipantSid>,
    /// Until when a join may take effect that was not answered.
    unsure_until: Option<Instant>,
    /// On their way to the store.
    writes: VecDeque<RecordChange>,
    /// Of these, what the store is deciding.
    writing: Option<RecordChange>,
    write_again: Option<Instant>,
    reading: Reading,
    read_again: Option<Instant>,
    /// The last looks, oldest first, at most [`READS_PER_SECOND_MAX`].
    reads: VecDeque<Instant>,
    touch_at: Instant,
    phase: Phase,
    outputs: VecDeque<Output>,
}

#[derive(Debug, Clone)]
pub enum Input {
    /// What concerns the room alone: anything but [`room::Input::Snapshot`], `Reading`, `Joined`, `Missed` and `WriteFailed`.
    Room(room::Input),
    /// Host a room that nobody has joined yet.
    Open,
    /// The bus skipped something.
    Missed,
    /// The store is asked for a seat.
    Joining { who: ParticipantSid },
    /// Its answer: the record, and the room right after the join.
    Joined { who: ParticipantSid, outcome: Result<(Arc<Record>, RoomSnapshot), StoreFailure> },
    /// The answer to [`Call::Write`]: whose session is over.
    Written(Result<Vec<ParticipantSid>, StoreFailure>),
    /// The answer to [`Call::Read`].
    Read(Result<RoomSnapshot, StoreFailure>),
    /// The answer to [`Call::Touch`].
    Touched(Result<(), StoreFailure>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// What concerns the room alone: anything but what is said below in other words.
    Room(room::Output),
    Call(Call),
    /// The store gave them a seat, and the room has ended meanwhile: they are to try again.
    Unseated {
        who: ParticipantSid,
    },
    /// Whoever joins from now on is for the next room of this name.
    Closing {
        why: Closing,
    },
    /// Always the last output. Sessions that are still here start over.
    Stop,
}

/// To the store. At most one of each kind is on its way.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Answered by [`Input::Written`].
    Write(RecordChange),
    /// Answered by [`Input::Read`].
    Read,
    /// Answered by [`Input::Touched`].
    Touch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// Nobody is here any more, or the room was deleted.
    Closed { reason: LeaveReason },
    /// Its people are all on other nodes.
    Left,
}

/// What the store says instead of what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFailure {
    NoSuchRoom,
    /// It will not do this, however often it is asked.
    Refused,
    /// It did not answer. What was asked may be done nevertheless, also later.
    Unavailable,
}

/// Why a host wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deadline {
    Room(room::Deadline),
    /// The store forgets rooms that nobody touches.
    Touch,
    ReadAgain,
    WriteAgain,
    /// Joins that were not answered have taken effect by now, or never will.
    Unsure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    No,
    /// A look is on its way.
    Once,
    /// What it will say is older than what it is needed for by now.
    Twice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// It ends when the store has heard everything.
    Closing,
    Stopped,
}

impl Host {
    /// A room of which nothing is known here yet.
    pub fn new(now: Instant, room: Room) -> Self {
        Self {
            room,
            is_warm: false,
            joining: BTreeSet::new(),
            unsure_until: None,
            writes: VecDeque::new(),
            writing: None,
            write_again: None,
            reading: Reading::No,
            read_again: None,
            reads: VecDeque::new(),
            touch_at: now + TOUCH_INTERVAL,
            phase: Phase::Open,
            outputs: VecDeque::new(),
        }
    }

    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.phase == Phase::Stopped {
            return;
        }
        match input {
            Input::Room(room::Input::Lapsed) if !self.is_warm || self.phase == Phase::Closing => {}
            Input::Room(input) => self.room.handle(now, input),
            Input::Open if self.is_warm => {}
            Input::Open => self.read(now),
            Input::Missed => {
                self.room.handle(now, room::Input::Missed);
                self.read(now);
            }
            Input::Joining { who } => drop(self.joining.insert(who)),
            Input::Joined { who, outcome } => self.on_joined(now, who, outcome),
            Input::Written(outcome) => self.on_written(now, outcome),
            Input::Read(outcome) => self.on_read(now, outcome),
            Input::Touched(Err(StoreFailure::NoSuchRoom)) if self.is_warm && self.phase == Phase::Open => {
                self.room.handle(now, room::Input::Lapsed);
            }
            Input::Touched(_) => {}
        }
        self.follow(now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, deadline)) = self.next_deadline()
            && at <= now
        {
            match deadline {
                Deadline::Room(_) => self.room.handle_timeout(now),
                Deadline::Touch => {
                    self.touch_at = now + TOUCH_INTERVAL;
                    self.outputs.push_back(Output::Call(Call::Touch));
                }
                Deadline::ReadAgain => {
                    self.read_again = None;
                    self.read(now);
                }
                Deadline::WriteAgain => self.write_again = None,
                Deadline::Unsure => self.unsure_until = None,
            }
            self.follow(now);
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn next_deadline(&self) -> Option<(Instant, Deadline)> {
        if self.phase == Phase::Stopped {
            return None;
        }
        [
            self.room.next_deadline().map(|(at, why)| (at, Deadline::Room(why))),
            Some((self.touch_at, Deadline::Touch)),
            self.read_again.map(|at| (at, Deadline::ReadAgain)),
            self.write_again.map(|at| (at, Deadline::WriteAgain)),
            self.unsure_until.map(|at| (at, Deadline::Unsure)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Whether it knows the room: before, nothing can be asked of the people here.
    pub fn is_warm(&self) -> bool {
        self.is_warm
    }

    /// Whether it takes nobody any more.
    pub fn is_closing(&self) -> bool {
        self.phase != Phase::Open
    }

    /// Changes that the store has not heard of.
    pub fn owes(&self) -> usize {
        self.writes.len() + usize::from(self.writing.is_some())
    }

    fn on_joined(
        &mut self,
        now: Instant,
        who: ParticipantSid,
        outcome: Result<(Arc<Record>, RoomSnapshot), StoreFailure>,
    ) {
        self.joining.remove(&who);
        match outcome {
            Ok((record, _)) if self.phase == Phase::Closing => {
                // The room ended while the store decided: the seat must not outlive it.
                self.outputs.push_back(Output::Unseated { who });
                self.owe(RecordChange::removal(&record, LeaveReason::JoinFailure));
            }
            Ok((record, snapshot)) => {
                if !self.is_warm {
                    self.start(now, snapshot);
                }
                self.room.handle(now, room::Input::Joined { record });
            }
            // They may be seated nevertheless, and nobody else would know that nobody serves them.
            Err(StoreFailure::Unavailable) => {
                self.unsure_until = Some(now + UNSURE_FOR);
                self.read(now);
            }
            // A room that was opened for a refused join has nobody to wait for.
            Err(_) if !self.is_warm && !self.waits_for_joins() && !self.is_reading() => self.stop(),
            Err(_) => {}
        }
    }

    fn on_written(&mut self, now: Instant, outcome: Result<Vec<ParticipantSid>, StoreFailure>) {
        match (self.writing.take(), outcome) {
            (Some(RecordChange::Restore { .. }), Ok(over)) => {
                for who in over {
                    self.room.handle(now, room::Input::WriteFailed { who });
                }
                self.read(now);
            }
            // What is known of no session any more is asked for here alone.
            (
                Some(change @ (RecordChange::Restore { .. } | RecordChange::Remove { .. })),
                Err(StoreFailure::Unavailable),
            ) => {
                self.writes.push_front(change);
                self.write_again = Some(now + PAUSE);
            }
            // The room's history was ended, and this node did not hear of it.
            (Some(RecordChange::Restore { .. }), Err(_)) => self.stop(),
            (Some(RecordChange::Put(record)), Err(_)) => {
                self.room.handle(now, room::Input::WriteFailed { who: record.participant.sid.clone() });
            }
            (Some(RecordChange::Remove { .. } | RecordChange::CloseIfEmpty | RecordChange::Put(_)) | None, _) => {}
        }
    }

    fn on_read(&mut self, now: Instant, outcome: Result<RoomSnapshot, StoreFailure>) {
        if std::mem::replace(&mut self.reading, Reading::No) == Reading::Twice {
            return self.read(now);
        }
        match outcome {
            Ok(snapshot) => self.start(now, snapshot),
            // Ended or lost: if lost, this puts it back.
            Err(StoreFailure::NoSuchRoom) if self.is_warm && self.room.has_sessions() => {
                self.room.handle(now, room::Input::Lapsed);
            }
            // A join may yet make it.
            Err(StoreFailure::NoSuchRoom) if self.waits_for_joins() => self.read_again = Some(now + PAUSE),
            Err(StoreFailure::NoSuchRoom) => self.stop(),
            Err(_) => self.read_again = Some(now + PAUSE),
        }
    }

    fn waits_for_joins(&self) -> bool {
        !self.joining.is_empty() || self.unsure_until.is_some()
    }

    fn is_reading(&self) -> bool {
        self.reading != Reading::No || self.read_again.is_some()
    }

    fn start(&mut self, now: Instant, snapshot: RoomSnapshot) {
        self.is_warm = true;
        self.room.handle(now, room::Input::Snapshot(snapshot));
    }

    fn read(&mut self, now: Instant) {
        if self.read_again.is_some() {
            return;
        }
        match self.reading {
            Reading::No => {
                if self.reads.len() >= READS_PER_SECOND_MAX
                    && let Some(free) = self.reads.front().map(|oldest| *oldest + Duration::from_secs(1))
                    && free > now
                {
                    self.read_again = Some(free);
                    return;
                }
                self.reads.push_back(now);
                self.reads.drain(..self.reads.len().saturating_sub(READS_PER_SECOND_MAX));
                self.reading = Reading::Once;
                self.room.handle(now, room::Input::Reading);
                self.outputs.push_back(Output::Call(Call::Read));
            }
            Reading::Once | Reading::Twice => self.reading = Reading::Twice,
        }
    }

    /// What follows from what the room decided, and whether the room is over.
    fn follow(&mut self, now: Instant) {
        if self.phase == Phase::Stopped {
            return;
        }
        while let Some(output) = self.room.poll_output() {
            match output {
                room::Output::Write(change) => self.owe(change),
                room::Output::Reread => self.read(now),
                // Who is on the way in keeps it, and whoever a look may yet show. It will be said again.
                room::Output::Unattended if self.waits_for_joins() || self.is_reading() => {}
                room::Output::Unattended => self.close(Closing::Left),
                room::Output::Closed { reason } => self.close(Closing::Closed { reason }),
                other => self.outputs.push_back(Output::Room(other)),
            }
        }
        if self.writing.is_none() && self.write_again.is_none() {
            self.writing = self.writes.pop_front();
            if let Some(change) = self.writing.clone() {
                self.outputs.push_back(Output::Call(Call::Write(change)));
            } else if self.phase == Phase::Closing && !self.waits_for_joins() {
                self.stop();
            }
        }
    }

    /// Of the same thing only the latest is kept, so that no more waits than there are people, however long Redis is away.
    fn owe(&mut self, change: RecordChange) {
        let replaces = |waiting: &RecordChange| match (waiting, &change) {
            (RecordChange::Put(old), RecordChange::Put(new)) => old.participant.sid == new.participant.sid,
            (RecordChange::Restore { .. }, RecordChange::Restore { .. })
            | (RecordChange::CloseIfEmpty, RecordChange::CloseIfEmpty) => true,
            (RecordChange::Remove { sid: old, .. }, RecordChange::Remove { sid: new, .. }) => old == new,
            _ => false,
        };
        match self.writes.iter_mut().find(|waiting| replaces(waiting)) {
            Some(waiting) => *waiting = change,
            None => self.writes.push_back(change),
        }
    }

    fn close(&mut self, why: Closing) {
        if self.phase == Phase::Open {
            self.phase = Phase::Closing;
            self.outputs.push_back(Output::Closing { why });
        }
    }

    fn stop(&mut self) {
        if self.phase != Phase::Stopped {
            self.phase = Phase::Stopped;
            self.outputs.push_back(Output::Stop);
        }
    }
}

/// Before the store is asked again for what it did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks at the store that one room of a node may take: what breaks all the time, or is forged, does not become a load.
const READS_PER_SECOND_MAX: usize = 3;

/// For how long what was asked of the store may be stuck on its way there.
const UNSURE_FOR: Duration = Duration::from_secs(5);

/// How often the store hears that the room is hosted.
pub const TOUCH_INTERVAL: Duration = Duration::from_secs(20);
