//! What the nodes of a room say to each other besides changes of its records: data, and wishes that only the publisher's
//! node can carry out.

use plenary_model::{BlobAnswer, ParticipantSid, RoomWord};

use super::{Output, Room};
use crate::notice::Notice;

impl Room {
    /// To the others, if there are any.
    pub(super) fn say(&mut self, word: RoomWord) {
        if self.replica.records().any(|record| record.node != self.node) {
            self.outputs.push_back(Output::Say(word));
        }
    }

    pub(super) fn on_word(&mut self, word: RoomWord) {
        match word {
            RoomWord::Data { message } => self.deliver(None, message.channel, &message.to, &message.payload),
            RoomWord::DataFrame { track, packet } => self.deliver_frame(&track, &packet),
            RoomWord::Bound { track } => {
                if let Some(publisher) = self.sessions.first_audience(&track) {
                    self.tell(&publisher, Notice::TrackSubscribed { track });
                }
            }
            RoomWord::BackupWanted { track } => {
                if let Some(publisher) = self.sessions.publisher_of(&track) {
                    self.tell(&publisher, Notice::BackupWanted { track });
                }
            }
            RoomWord::Quality { who, quality } => {
                // Nobody hears how somebody is before hearing of them.
                if self.replica.person(&who).is_some_and(|person| !person.permission.hidden) {
                    self.tell_people();
                    self.tell_everybody(|_| Some(Notice::Quality { changed: vec![(who.clone(), quality)] }));
                }
            }
            RoomWord::GetBlob { asker, request_id, owner, key } => {
                if let Some(session) = self.sessions.of(&owner) {
                    let answer = session.blobs.get(&key);
                    self.say(RoomWord::Blob { asker, request_id, answer });
                }
            }
            RoomWord::Blob { asker, request_id, answer } => {
                if self.sessions.get(&asker).is_some() {
                    self.answer_blob(&asker, request_id, answer);
                }
            }
        }
    }

    pub(super) fn answer_blob(&mut self, to: &ParticipantSid, request_id: u32, answer: BlobAnswer) {
        self.tell(to, Notice::Blob { request_id, answer });
    }
}
