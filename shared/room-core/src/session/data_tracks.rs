//! Streams of data frames: what the client publishes and takes, and by which numbers packets name them.
//!
//! A packet names its stream by a handle that is the publisher's own. Each receiver knows the stream by a handle of
//! its, which is all that is rewritten; the rest of the packet, its payload most of all, is nobody's business here.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use plenary_model::{Channel, DataTrack, DataTrackSid, Identity, ParticipantSid};

use super::{Dropped, Output, Session, publish::IdSource};
use crate::{
    notice::{BlobAnswer, Request},
    signal::{About, DataHandle, DataWish, PublishDataTrack, RequestOutcome, ServerSignal},
};

#[derive(Debug)]
pub(super) struct DataTracks {
    published: Vec<DataTrack>,
    ids: IdSource,
    /// What the client wants, of streams that may not exist yet; frames per second at most, 0 for all.
    wishes: BTreeMap<DataTrackSid, u32>,
    taken: BTreeMap<DataTrackSid, Taken>,
    last_handle: u16,
}

/// A stream that flows to the client.
#[derive(Debug)]
struct Taken {
    handle: u16,
    identity: Identity,
    publisher: ParticipantSid,
    fps: u32,
    /// The frame that is let through, by its number, and when the next one may be.
    frame: Option<u16>,
    next_at: Option<Instant>,
}

impl DataTracks {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            published: Vec::new(),
            ids: IdSource::new(!seed),
            wishes: BTreeMap::new(),
            taken: BTreeMap::new(),
            last_handle: 0,
        }
    }

    fn check(&self, ask: &PublishDataTrack) -> Result<u16, (RequestOutcome, &'static str)> {
        let handle = u16::try_from(ask.handle).ok().filter(|handle| *handle > 0);
        let handle = handle.ok_or((RequestOutcome::InvalidHandle, "handle is not 1 to 65535"))?;
        if ask.name.is_empty() || ask.name.chars().count() > NAME_CHARACTERS_MAX {
            Err((RequestOutcome::InvalidName, "name is empty or too long"))
        } else if ask.format.len() > FORMAT_BYTES_MAX {
            Err((RequestOutcome::InvalidRequest, "description of the frames is too large"))
        } else if self.published.iter().any(|track| track.handle == handle) {
            Err((RequestOutcome::DuplicateHandle, "handle is in use"))
        } else if self.published.iter().any(|track| track.name == ask.name) {
            Err((RequestOutcome::DuplicateName, "name is in use"))
        } else if self.published.len() >= PUBLISHED_MAX {
            Err((RequestOutcome::LimitExceeded, "too many data tracks"))
        } else {
            Ok(handle)
        }
    }

    /// A number that no stream has; there are more numbers than streams.
    fn free_handle(&mut self) -> u16 {
        loop {
            self.last_handle = self.last_handle.checked_add(1).unwrap_or(1);
            if self.taken.values().all(|taken| taken.handle != self.last_handle) {
                return self.last_handle;
            }
        }
    }
}

impl Taken {
    /// Whether a packet goes out: all packets of a frame share its fate.
    fn admits(&mut self, now: Instant, header: Header) -> bool {
        if self.fps == 0 {
            return true;
        }
        if header.starts_frame && self.next_at.is_none_or(|at| at <= now) {
            let interval = Duration::from_secs(1) / self.fps;
            // A rate and not a distance: a frame that comes late does not delay those after it.
            let due = self.next_at.filter(|at| now.saturating_duration_since(*at) < interval).unwrap_or(now);
            self.next_at = due.checked_add(interval);
            self.frame = Some(header.frame);
        }
        self.frame == Some(header.frame)
    }
}

impl Session {
    pub(super) fn on_publish_data_track(&mut self, ask: PublishDataTrack) {
        let about = About::PublishDataTrack { handle: ask.handle };
        if !self.own.permission.can_publish_data {
            return self.respond(0, RequestOutcome::NotAllowed, "does not have permission to publish data", about);
        }
        match self.data_tracks.check(&ask) {
            Err((outcome, message)) => self.respond(0, outcome, message, about),
            Ok(handle) => {
                let PublishDataTrack { name, encryption, format, .. } = ask;
                let sid = self.data_tracks.ids.data_track();
                let track = DataTrack { sid, handle, name, encryption, format };
                self.data_tracks.published.push(track.clone());
                self.send(ServerSignal::DataTrackPublished { track });
                self.tell_room_of_data_tracks();
            }
        }
    }

    pub(super) fn on_unpublish_data_track(&mut self, handle: u32) {
        let at = self.data_tracks.published.iter().position(|track| u32::from(track.handle) == handle);
        let Some(at) = at else {
            let about = About::UnpublishDataTrack { handle };
            return self.respond(0, RequestOutcome::NotFound, "data track not found", about);
        };
        let track = self.data_tracks.published.remove(at);
        self.send(ServerSignal::DataTrackUnpublished { track });
        self.tell_room_of_data_tracks();
    }

    /// The permission has changed.
    pub(super) fn withdraw_data_tracks(&mut self) {
        if self.own.permission.can_publish_data || self.data_tracks.published.is_empty() {
            return;
        }
        for track in std::mem::take(&mut self.data_tracks.published) {
            self.send(ServerSignal::DataTrackUnpublished { track });
        }
        self.tell_room_of_data_tracks();
    }

    pub(super) fn on_data_subscription(&mut self, updates: Vec<DataWish>) {
        let data = &mut self.data_tracks;
        for DataWish { track, subscribe, fps } in updates {
            if !subscribe {
                data.wishes.remove(&track);
            } else if data.wishes.len() < WISHES_MAX || data.wishes.contains_key(&track) {
                if let Some(taken) = data.taken.get_mut(&track) {
                    taken.fps = fps;
                }
                data.wishes.insert(track, fps);
            } else {
                self.outputs.push_back(Output::Dropped(Dropped::TooManyWishes));
            }
        }
        self.take_data_tracks();
    }

    /// Takes what is wished for and there, and tells the client and the room if that changed.
    pub(super) fn take_data_tracks(&mut self) {
        let mut there = BTreeMap::new();
        if self.own.permission.can_subscribe && !self.data_tracks.wishes.is_empty() {
            for who in self.subscriptions.people() {
                let wished = |track: &&DataTrack| self.data_tracks.wishes.contains_key(&track.sid);
                let tracks = who.data_tracks.iter().filter(wished);
                there.extend(tracks.map(|track| (track.sid.clone(), who.clone())));
            }
        }
        let data = &mut self.data_tracks;
        let gone: Vec<_> = data.taken.keys().filter(|track| !there.contains_key(*track)).cloned().collect();
        let mut changed = !gone.is_empty();
        for track in gone {
            data.taken.remove(&track);
            // A sid does not come back; without the permission the wish waits.
            if self.own.permission.can_subscribe {
                data.wishes.remove(&track);
            }
        }
        for (track, who) in there {
            if data.taken.contains_key(&track) {
                continue;
            }
            let (handle, fps) = (data.free_handle(), data.wishes.get(&track).copied().unwrap_or_default());
            if let Entry::Vacant(place) = data.taken.entry(track) {
                let (identity, publisher) = (who.identity.clone(), who.sid.clone());
                place.insert(Taken { handle, identity, publisher, fps, frame: None, next_at: None });
                changed = true;
            }
        }
        if changed {
            let tracks: BTreeSet<_> = self.data_tracks.taken.keys().cloned().collect();
            self.send_data_handles();
            self.outputs.push_back(Output::Ask(Request::TakeDataTracks { tracks }));
        }
    }

    /// To a client that is back and may have missed something.
    pub(super) fn tell_data_handles(&mut self) {
        if self.data_tracks.last_handle > 0 {
            self.send_data_handles();
        }
    }

    /// A packet of the client's own.
    pub(super) fn on_own_data_frame(&mut self, packet: Bytes) {
        let header = Header::parse(&packet);
        let published = &self.data_tracks.published;
        let track = header.and_then(|header| published.iter().find(|track| track.handle == header.handle));
        self.outputs.push_back(match track {
            Some(track) => Output::Ask(Request::DataFrame { track: track.sid.clone(), packet }),
            None => Output::Dropped(Dropped::DataFrameUnknown),
        });
    }

    /// A packet for the client.
    pub(super) fn on_data_frame(&mut self, now: Instant, track: &DataTrackSid, packet: &Bytes) {
        let Some((taken, header)) = self.data_tracks.taken.get_mut(track).zip(Header::parse(packet)) else { return };
        if !taken.admits(now, header) {
            return;
        }
        let mut packet = BytesMut::from(packet.as_ref());
        if let Some(place) = packet.get_mut(HANDLE) {
            place.copy_from_slice(&taken.handle.to_be_bytes());
        }
        self.deliver(Channel::DataTrack, packet.freeze());
    }

    pub(super) fn on_store_blob(&mut self, request_id: u32, key: Bytes, contents: Bytes) {
        if !self.own.permission.can_publish_data {
            let message = "does not have permission to publish data";
            return self.respond(request_id, RequestOutcome::NotAllowed, message, About::Other);
        }
        self.outputs.push_back(Output::Ask(Request::StoreBlob { request_id, key, contents }));
    }

    pub(super) fn on_get_blob(&mut self, request_id: u32, owner: &str, key: Bytes) {
        match Identity::try_from(owner) {
            Ok(owner) => self.outputs.push_back(Output::Ask(Request::GetBlob { request_id, owner, key })),
            Err(_) => self.on_blob(request_id, BlobAnswer::NotFound),
        }
    }

    pub(super) fn on_blob(&mut self, request_id: u32, answer: BlobAnswer) {
        let (outcome, message) = match answer {
            BlobAnswer::Stored { key } => return self.send(ServerSignal::BlobStored { request_id, key }),
            BlobAnswer::Found { key, contents } => {
                return self.send(ServerSignal::Blob { request_id, key, contents });
            }
            BlobAnswer::NotFound => (RequestOutcome::NotFound, "blob not found"),
            BlobAnswer::Duplicate => (RequestOutcome::InvalidRequest, "key is in use"),
            BlobAnswer::TooLarge => (RequestOutcome::LimitExceeded, "blobs are too large"),
        };
        self.respond(request_id, outcome, message, About::Other);
    }

    fn send_data_handles(&mut self) {
        let handle = |(track, taken): (&DataTrackSid, &Taken)| DataHandle {
            handle: taken.handle,
            identity: taken.identity.clone(),
            publisher: taken.publisher.clone(),
            track: track.clone(),
        };
        let handles = self.data_tracks.taken.iter().map(handle).collect();
        self.send(ServerSignal::DataHandles { handles });
    }

    fn tell_room_of_data_tracks(&mut self) {
        let tracks = self.data_tracks.published.clone();
        self.outputs.push_back(Output::Ask(Request::UpdateDataTracks { tracks }));
    }
}

/// What is read of a packet's first bytes (livekit-protocol 4.5).
#[derive(Debug, Clone, Copy)]
struct Header {
    starts_frame: bool,
    handle: u16,
    frame: u16,
}

impl Header {
    /// `None`: another version, or too short.
    fn parse(packet: &[u8]) -> Option<Self> {
        let (&[flags, _, high, low, _, _, frame_high, frame_low, ..], _) =
            packet.split_first_chunk::<HEADER_BYTES>()?;
        (flags >> 5 == VERSION).then_some(Self {
            starts_frame: flags & STARTS_FRAME != 0,
            handle: u16::from_be_bytes([high, low]),
            frame: u16::from_be_bytes([frame_high, frame_low]),
        })
    }
}

const VERSION: u8 = 0;
const STARTS_FRAME: u8 = 0x10;
const HEADER_BYTES: usize = 12;
/// Where the handle stands.
const HANDLE: std::ops::Range<usize> = 2..4;

/// livekit-protocol 4.5.
const NAME_CHARACTERS_MAX: usize = 256;
/// Streams of one client; more are refused.
const PUBLISHED_MAX: usize = 64;
/// Streams that one client may want; more are dropped by name.
const WISHES_MAX: usize = 1_024;
/// Two names of an encoding and a schema.
const FORMAT_BYTES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_lets_through_whole_frames_at_that_rate() {
        let mut taken = Taken {
            handle: 1,
            identity: Identity::try_from("ann").unwrap(),
            publisher: "PA_ann".into(),
            fps: 10,
            frame: None,
            next_at: None,
        };
        #[allow(clippy::disallowed_methods, reason = "one reading of the clock starts virtual time")]
        let start = Instant::now();
        let mut sent = Vec::new();
        // Thirty frames a second of two packets each, for ten seconds.
        for frame in 0..300u16 {
            let now = start + Duration::from_millis(u64::from(frame) * 1_000 / 30);
            let packet = |starts_frame| Header { starts_frame, handle: 4, frame };
            let both = [taken.admits(now, packet(true)), taken.admits(now, packet(false))];
            assert_eq!(both[0], both[1], "frame {frame} is whole");
            if both[0] {
                sent.push(frame);
            }
        }
        assert!((98..=102).contains(&sent.len()), "{} frames in ten seconds", sent.len());
    }

    #[test]
    fn what_is_no_packet_has_no_header() {
        for packet in [&[][..], &[0; 11], &[0x20; 12]] {
            assert!(Header::parse(packet).is_none(), "{packet:?}");
        }
        let header = Header::parse(&[0x10, 0, 1, 2, 0, 0, 3, 4, 0, 0, 0, 0, 9]).unwrap();
        assert_eq!((header.starts_frame, header.handle, header.frame), (true, 0x102, 0x304));
    }
}
