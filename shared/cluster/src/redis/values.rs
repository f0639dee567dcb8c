//! Values on their way into the scripts and out of their answers.

use bytes::Bytes;
use plenary_model::{BanEntry, Departed, Identity, LeaveReason, Participant, Record, RoomName, RoomSnapshot};
use prost::Message;
use redis::Value;

use super::wire;
use crate::{NewRoom, StoreError, outbox, seats};

/// The values of a script's answer, one after the other.
pub(super) struct Answer(pub(super) std::vec::IntoIter<Value>);

impl Answer {
    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            _ => Err(StoreError::Unavailable),
        }
    }

    pub(super) fn optional(&mut self) -> Option<Vec<u8>> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn array(&mut self) -> Result<Self, StoreError> {
        match self.0.next() {
            Some(Value::Array(values)) => Ok(Self(values.into_iter())),
            _ => Err(StoreError::Unavailable),
        }
    }

    /// Numbers travel as text: Lua's own have 53 bits.
    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        let text = self.bytes()?;
        std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).ok_or(StoreError::Unavailable)
    }

    pub(super) fn is_one(&mut self) -> bool {
        matches!(self.0.next(), Some(Value::Int(1)))
    }

    pub(super) fn snapshot(&mut self) -> Result<RoomSnapshot, StoreError> {
        let mut parts = self.array()?;
        let view = parts.bytes()?.try_into().map(u64::from_le_bytes).map_err(|_| StoreError::Unavailable)?;
        let seq = parts.number()?;
        let room = wire::room_info(&parts.bytes()?)?;
        let mut people = parts.array()?;
        let mut records = Vec::new();
        while let Some(bytes) = people.optional() {
            records.push(wire::record(&bytes)?);
        }
        records.sort_unstable_by(|a, b| a.participant.identity.cmp(&b.participant.identity));
        let mut lines = parts.array()?;
        let mut departed = Vec::new();
        while let (Some(who), Some(line)) = (lines.optional(), lines.optional()) {
            departed.extend(stored_departure(&who, &line));
        }
        departed.sort_unstable_by(|a, b| a.identity.cmp(&b.identity));
        let mut views = parts.array()?;
        let mut ended = Vec::new();
        while let Some(view) = views.optional() {
            ended.extend(view.try_into().map(u64::from_le_bytes));
        }
        Ok(RoomSnapshot { view, seq, room, records, departed, ended })
    }

    pub(super) fn texts(&mut self) -> Result<Vec<String>, StoreError> {
        let mut all = self.array()?;
        let mut texts = Vec::new();
        while let Some(bytes) = all.optional() {
            texts.push(String::from_utf8(bytes).map_err(|_| StoreError::Unavailable)?);
        }
        Ok(texts)
    }
}

/// A new room's settings as the scripts take them.
pub(super) struct Settings {
    pub(super) sid: String,
    pub(super) view: [u8; 8],
    pub(super) created: String,
    /// Which of the four that follow the caller named.
    pub(super) given: String,
    pub(super) metadata: String,
    pub(super) empty: String,
    pub(super) departure: String,
    pub(super) cap: String,
    pub(super) auto: Bytes,
}

impl From<NewRoom> for Settings {
    fn from(new: NewRoom) -> Self {
        let given = [
            new.metadata.is_some(),
            new.empty_timeout_s.is_some(),
            new.departure_timeout_s.is_some(),
            new.max_participants.is_some(),
        ];
        let defaults = new.defaults;
        Self {
            sid: new.sid.to_string(),
            view: new.view.to_le_bytes(),
            created: new.now_unix_ms.to_string(),
            given: given.map(|one| if one { '1' } else { '0' }).iter().collect(),
            metadata: new.metadata.unwrap_or_default(),
            empty: new.empty_timeout_s.unwrap_or(defaults.empty_timeout_s).to_string(),
            departure: new.departure_timeout_s.unwrap_or(defaults.departure_timeout_s).to_string(),
            cap: new.max_participants.unwrap_or(defaults.max_participants).to_string(),
            auto: new.auto_egress,
        }
    }
}

/// A record as the scripts take it.
pub(super) struct WrittenRecord<'r> {
    record: &'r Record,
    generation: String,
    version: String,
    flags: String,
    bytes: Vec<u8>,
}

impl<'r> WrittenRecord<'r> {
    /// `telling`: whether host apps are told.
    pub(super) fn new(record: &'r Record, telling: bool) -> Self {
        let person = &record.participant;
        Self {
            record,
            generation: record.generation.to_string(),
            version: person.version.to_string(),
            flags: flags(person, telling),
            bytes: wire::Record::from(record).encode_to_vec(),
        }
    }

    pub(super) fn args(&self) -> [&[u8]; 7] {
        let person = &self.record.participant;
        [
            person.identity.as_str().as_bytes(),
            person.sid.as_str().as_bytes(),
            self.generation.as_bytes(),
            self.version.as_bytes(),
            self.flags.as_bytes(),
            self.record.node.as_str().as_bytes(),
            &self.bytes,
        ]
    }
}

/// What the scripts count somebody as: counted, publisher, recorder, dependent. With it the mark by which they notice what host
/// apps are told of.
pub(super) fn flags(person: &Participant, telling: bool) -> String {
    let counted = seats::is_counted(person);
    let all = [counted, counted && person.is_publisher, seats::is_recorder(person), seats::is_dependent(person)];
    let mark = if telling { outbox::mark(person) } else { String::new() };
    all.map(|one| if one { '1' } else { '0' }).into_iter().chain(mark.chars()).collect()
}

pub(super) fn ban_place(room: Option<&RoomName>) -> String {
    room.map_or_else(|| ":".to_owned(), |room| format!("{}:{room}", room.as_str().len()))
}

/// None for the line that stands for everybody forgotten.
fn stored_departure(who: &[u8], line: &[u8]) -> Option<Departed> {
    let identity = Identity::try_from(std::str::from_utf8(who).ok()?).ok()?;
    let mut numbers = std::str::from_utf8(line).ok()?.split(' ').skip(1);
    let generation = numbers.next()?.parse().ok()?;
    let reason = wire::leave_reason(numbers.next()?.parse().ok()?);
    Some(Departed { identity, generation, reason })
}

/// A ban and a revocation as they are kept together; none if it cannot be read.
pub(super) fn stored_ban(field: &str, line: &str) -> Option<BanEntry> {
    let (length, rest) = field.split_once(':')?;
    let (room, who) = match length {
        "" => (None, rest),
        length => {
            let (room, who) = rest.split_at_checked(length.parse().ok()?)?;
            (Some(RoomName::try_from(room).ok()?), who)
        }
    };
    let identity = Identity::try_from(who).ok()?;
    let mut numbers = line.split(' ').map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    let (banned_until_unix_s, tokens_before_unix_s, revoked_until_unix_s) = (next()?, next()?, next()?);
    let version = next()?;
    Some(BanEntry { identity, room, banned_until_unix_s, tokens_before_unix_s, revoked_until_unix_s, version })
}

pub(super) fn reason_number(reason: LeaveReason) -> String {
    i32::from(wire::LeaveReason::from(reason)).to_string()
}
