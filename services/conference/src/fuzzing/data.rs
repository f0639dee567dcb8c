//! Two people in one room: frames of data and blobs, from one client's wire through both cores to the other's.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use plenary_model::{
    Channel, Encryption, Identity, NodeId, Participant, ParticipantSid, Record, RoomChange, RoomDelta, RoomSnapshot,
    Target,
};
use plenary_room_core::{
    room::{self, RecordChange, Room},
    session::{Dropped, Input, MediaCommand, MediaEvent, Output, Session, Start, UnfitCodecs},
    signal::{ClientSignal, DataWish, PublishDataTrack, ServerSignal},
};

use super::{SETTINGS, person, room as room_info, server, written};
use crate::{
    front::convert::{self, Encoding},
    node::session_settings,
};

/// What one step led to, with whose it was.
#[derive(Debug, Default)]
struct Heard {
    signals: Vec<(usize, ServerSignal)>,
    frames: Vec<(usize, Bytes)>,
    dropped: Vec<(usize, Dropped)>,
}

struct Call {
    now: Instant,
    room: Room,
    sessions: Vec<Session>,
    seq: u64,
}

const ANN: usize = 0;
const BOB: usize = 1;
const NAMES: [&str; 2] = ["ann", "bob"];

impl Call {
    fn new() -> Self {
        let now = Instant::now();
        let node = NodeId::from("ND_1");
        let settings = room::Settings {
            remote_unmute: false,
            counts_interval: Duration::from_secs(1),
            metadata_bytes_max: 64,
            attributes_bytes_max: 64,
        };
        let mut call = Self { now, room: Room::new(now, node.clone(), settings), sessions: Vec::new(), seq: 1 };
        let record = |name: &str| {
            let (sid, identity) = (sid(name), Identity::try_from(name).unwrap());
            Arc::new(Record {
                participant: Participant { sid, identity, ..person() },
                generation: 1,
                node: node.clone(),
            })
        };
        let records: Vec<_> = NAMES.into_iter().map(record).collect();
        let snapshot = RoomSnapshot {
            view: 1,
            seq: 1,
            room: room_info(),
            records: records.clone(),
            departed: Vec::new(),
            ended: Vec::new(),
        };
        call.room.handle(now, room::Input::Snapshot(snapshot));
        for record in records {
            call.room.handle(now, room::Input::Joined { record });
            call.settle();
        }
        assert_eq!(call.sessions.len(), NAMES.len());
        for who in [ANN, BOB] {
            call.give(who, Input::Media(MediaEvent::Connected { target: Target::Subscriber }));
            let (target, channel) = (Target::Subscriber, Channel::DataTrack);
            call.give(who, Input::Media(MediaEvent::ChannelOpen { target, channel }));
        }
        call
    }

    fn give(&mut self, who: usize, input: Input) -> Heard {
        self.sessions[who].handle(self.now, input);
        self.settle()
    }

    /// Carries everything to where it belongs until nobody has anything to say. The store takes what it is given.
    fn settle(&mut self) -> Heard {
        let mut heard = Heard::default();
        loop {
            let said = (0..self.sessions.len()).find_map(|who| Some((who, self.sessions[who].poll_output()?)));
            if let Some((who, output)) = said {
                match output {
                    Output::Ask(what) => {
                        self.room.handle(self.now, room::Input::Ask { who: sid(NAMES[who]), what });
                    }
                    Output::Send(signal) => heard.signals.push((who, signal)),
                    Output::Media(MediaCommand::Send { channel: Channel::DataTrack, payload, .. }) => {
                        heard.frames.push((who, payload));
                    }
                    Output::Dropped(why) => heard.dropped.push((who, why)),
                    Output::End(reason) => panic!("{} left: {reason:?}", NAMES[who]),
                    _ => {}
                }
                continue;
            }
            let Some(output) = self.room.poll_output() else { return heard };
            match output {
                room::Output::Tell { who, what } => {
                    let at = NAMES.into_iter().position(|name| sid(name) == who).expect("one of the two");
                    self.sessions[at].handle(self.now, Input::Notice(what));
                }
                room::Output::Welcome { welcome, .. } => {
                    let start = Start {
                        welcome,
                        protocol: 17,
                        auto_subscribe: true,
                        adaptive_stream: false,
                        allow_pause: false,
                        unfit: UnfitCodecs::default(),
                        seed: self.sessions.len() as u64,
                        unix_micros: 1_000_000,
                        ice_servers: Vec::new(),
                    };
                    self.sessions.push(Session::new(self.now, session_settings(&SETTINGS), start));
                }
                room::Output::Write(RecordChange::Put(record)) => {
                    self.seq += 1;
                    let delta = RoomDelta { view: 1, seq: self.seq, change: RoomChange::Put(record), trace: None };
                    self.room.handle(self.now, room::Input::Delta(Arc::new(delta)));
                }
                _ => {}
            }
        }
    }
}

fn sid(name: &str) -> ParticipantSid {
    format!("PA_{name}").into()
}

/// Frames a second that Bob takes of each of Ann's two streams, 0 for all; then packets of Ann's data channel, each behind
/// a length of two bytes. Bob gets each packet of a stream as it was but for the handle, or none of it.
pub(super) fn data_track(input: &[u8]) {
    let mut call = Call::new();
    let handles = [0x0001, 0x8182];
    let tracks = handles.map(|handle: u16| {
        let ask = PublishDataTrack {
            handle: handle.into(),
            name: handle.to_string(),
            encryption: Encryption::None,
            format: Bytes::new(),
        };
        let heard = call.give(ANN, Input::Signal(ClientSignal::PublishDataTrack(ask)));
        let published = heard.signals.into_iter().find_map(|(_, signal)| match signal {
            ServerSignal::DataTrackPublished { track } => Some(track.sid),
            _ => None,
        });
        published.expect("it is published")
    });
    let (rates, mut rest) = input.split_at(input.len().min(2));
    let rate = |at: usize| rates.get(at).copied().unwrap_or_default();
    let wish = |at: usize| DataWish { track: tracks[at].clone(), subscribe: true, fps: rate(at).into() };
    let wishes = ClientSignal::DataSubscription { updates: vec![wish(0), wish(1)] };
    let heard = call.give(BOB, Input::Signal(wishes));
    let told = heard.signals.iter().rev().find_map(|(_, signal)| match signal {
        ServerSignal::DataHandles { handles } => Some(handles.clone()),
        _ => None,
    });
    let told: BTreeMap<_, _> = told.expect("Bob is told").into_iter().map(|one| (one.track, one.handle)).collect();
    while let Some((&length, after)) = rest.split_first_chunk::<2>() {
        let (packet, after) = after.split_at(usize::from(u16::from_be_bytes(length)).min(after.len()));
        rest = after;
        call.now += Duration::from_millis(20);
        let heard = call.give(ANN, Input::DataFrame { packet: Bytes::copy_from_slice(packet) });
        // livekit-protocol 4.5: version 0 in the upper three bits, the handle in the third and fourth byte of twelve.
        let named = packet.get(2..4).filter(|_| packet.len() >= 12 && packet[0] >> 5 == 0);
        let Some(at) = handles.iter().position(|handle| named == Some(&handle.to_be_bytes())) else {
            assert_eq!(heard.dropped, [(ANN, Dropped::DataFrameUnknown)]);
            assert!(heard.frames.is_empty());
            continue;
        };
        assert!(heard.dropped.is_empty() && (heard.frames.len() == 1 || rate(at) > 0 && heard.frames.is_empty()));
        for (who, frame) in heard.frames {
            assert_eq!((who, frame.len()), (BOB, packet.len()));
            assert_eq!(frame[2..4], told[&tracks[at]].to_be_bytes());
            assert_eq!((&frame[..2], &frame[4..]), (&packet[..2], &packet[4..]));
        }
    }
}

/// Frames of either client's socket: a byte whose lowest bit says whose, a length of two bytes whose highest means JSON.
/// Of what they say only requests for blobs count here. Each is answered once, and as a map with a limit would. With the
/// next bit of the first byte a blob is sixteen times as large, so that a short input reaches the limit.
pub(super) fn blobs(input: &[u8]) {
    let mut call = Call::new();
    let mut kept: [BTreeMap<Bytes, Bytes>; 2] = Default::default();
    let mut rest = input;
    while let Some((&[choice, high, low], after)) = rest.split_first_chunk::<3>() {
        let length = u16::from_be_bytes([high, low]);
        let encoding = if length & 0x8000 == 0 { Encoding::Binary } else { Encoding::Json };
        let (frame, after) = after.split_at(usize::from(length & 0x7fff).min(after.len()));
        rest = after;
        let who = usize::from(choice & 1);
        let Ok(mut signal) = convert::decode(frame, encoding) else { continue };
        if let ClientSignal::StoreBlob { contents, .. } = &mut signal
            && choice & 2 != 0
        {
            *contents = contents.repeat(16).into();
        }
        let expected = match &signal {
            ClientSignal::StoreBlob { key, contents, .. } => {
                let bytes = |(key, contents): (&Bytes, &Bytes)| key.len() + contents.len();
                let all: usize = kept[who].iter().map(bytes).sum();
                let fits = key.len() <= 256 && all + bytes((key, contents)) <= 64_000;
                if kept[who].contains_key(key) || !fits {
                    None
                } else {
                    kept[who].insert(key.clone(), contents.clone());
                    Some((key.clone(), None))
                }
            }
            ClientSignal::GetBlob { owner, key, .. } => {
                let owner = NAMES.into_iter().position(|name| name == owner);
                let found = owner.and_then(|owner| kept[owner].get(key));
                found.map(|contents| (key.clone(), Some(contents.clone())))
            }
            _ => continue,
        };
        let (ClientSignal::StoreBlob { request_id, .. } | ClientSignal::GetBlob { request_id, .. }) = signal else {
            unreachable!("others were passed over")
        };
        // Slower than anybody may speak, so that it is the blobs that are limited.
        call.now += Duration::from_millis(100);
        let heard = call.give(who, Input::Signal(signal));
        let [(to, answer)] = &heard.signals[..] else { panic!("one answer: {:?}", heard.signals) };
        assert_eq!(*to, who);
        let answered = match answer {
            ServerSignal::BlobStored { request_id, key } => (*request_id, Some((key.clone(), None))),
            ServerSignal::Blob { request_id, key, contents } => {
                (*request_id, Some((key.clone(), Some(contents.clone()))))
            }
            ServerSignal::RequestResponse { request_id, .. } => (*request_id, None),
            other => panic!("{other:?} is no answer"),
        };
        assert_eq!(answered, (request_id, expected));
        written(&convert::encode(answer, &server(), 1, encoding), answer, encoding);
    }
}
