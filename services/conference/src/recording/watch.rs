//! What of a room goes into a recording: told of the room as a client would be, it says what to write and which tracks to tap.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use plenary_model::{
    Codec, EgressSource, Encryption, Identity, Participant, ParticipantSid, ParticipantState, Track, TrackSid,
};
use plenary_recording::{recording::Input, session_file::Omission};
use plenary_room_core::notice::Notice;

use super::chat::Chat;
use crate::egress::takes;

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    Write(Input),
    /// What there is of the track, from its publisher's router, is to be written from now on.
    Tap {
        track: TrackSid,
        publisher: ParticipantSid,
    },
    Untap {
        track: TrackSid,
    },
    /// It is not recorded: only its receivers have the key.
    Encrypted {
        track: TrackSid,
    },
}

#[derive(Debug)]
pub(super) struct Watch {
    source: EgressSource,
    people: BTreeMap<Identity, Person>,
    /// Who speaks, how loud.
    speakers: BTreeMap<ParticipantSid, f32>,
    chat: Chat,
    /// Something of what is recorded has been seen, by this recorder or one before.
    was_there: bool,
    /// Who is told of next is everybody who is there.
    was_blind: bool,
    orders: VecDeque<Order>,
}

#[derive(Debug)]
struct Person {
    sid: ParticipantSid,
    name: String,
    tracks: BTreeMap<TrackSid, Taken>,
    /// Told of, so that it is told once.
    encrypted: BTreeSet<TrackSid>,
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    codec: Codec,
    is_muted: bool,
}

impl Watch {
    /// `was_there`: something was recorded before.
    pub fn new(source: EgressSource, was_there: bool) -> Self {
        Self {
            source,
            was_there,
            was_blind: false,
            people: BTreeMap::new(),
            speakers: BTreeMap::new(),
            chat: Chat::default(),
            orders: VecDeque::new(),
        }
    }

    pub fn hear(&mut self, notice: Notice) {
        match notice {
            Notice::Participants { changed } => {
                if std::mem::take(&mut self.was_blind) {
                    self.keep_only(&changed);
                }
                changed.iter().for_each(|person| self.person(person));
            }
            Notice::Speakers { speakers } if self.is_of_everybody() => {
                let before = self.loudest_first();
                for (sid, level) in speakers {
                    if level.active {
                        self.speakers.insert(sid, level.level);
                    } else {
                        self.speakers.remove(&sid);
                    }
                }
                let now = self.loudest_first();
                if now != before {
                    self.write(Input::Speakers(now));
                }
            }
            Notice::Data { payload, .. } if self.is_of_everybody() => {
                if let Some(said) = self.chat.hear(&payload) {
                    let identity = Identity::try_from(&*said.identity).ok();
                    let person = identity.and_then(|identity| self.people.get(&identity));
                    let participant = person.map_or_else(|| "".into(), |person| person.sid.clone());
                    self.write(Input::Chat { id: said.id, participant, text: said.text });
                }
            }
            _ => {}
        }
    }

    /// Nobody tells of the room until somebody else does, who begins with everybody.
    pub fn lose_sight(&mut self) {
        self.was_blind = true;
        if !std::mem::take(&mut self.speakers).is_empty() {
            self.write(Input::Speakers(Vec::new()));
        }
    }

    /// Whether what is recorded was there and is not any more.
    pub fn is_deserted(&self) -> bool {
        let is_there = match &self.source {
            EgressSource::Room { .. } => true,
            EgressSource::Participant { identity, .. } => self.people.contains_key(identity),
            EgressSource::Tracks { .. } | EgressSource::Track { .. } => {
                self.people.values().any(|person| !person.tracks.is_empty())
            }
        };
        self.was_there && !is_there
    }

    pub fn poll(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    fn keep_only(&mut self, there: &[Arc<Participant>]) {
        let is_there = |identity: &Identity| there.iter().any(|person| person.identity == *identity);
        let gone: Vec<_> = self.people.keys().filter(|identity| !is_there(identity)).cloned().collect();
        gone.iter().for_each(|identity| self.gone(identity));
    }

    fn person(&mut self, person: &Participant) {
        let is_same = self.people.get(&person.identity).is_some_and(|known| known.sid == person.sid);
        if person.state == ParticipantState::Disconnected {
            if is_same {
                self.gone(&person.identity);
            }
            return;
        }
        if !is_same {
            // Who comes again was seen last under another sid.
            self.gone(&person.identity);
        }
        let wanted = person.tracks.iter().filter(|track| takes(&self.source, person, track));
        let wanted: Vec<_> = wanted.filter_map(|track| Some((track, Codec::named(&track.mime)?))).collect();
        let is_told = self.is_of_everybody() || !wanted.is_empty() || self.people.contains_key(&person.identity);
        if !is_told {
            return;
        }
        let Self { people, orders, .. } = self;
        self.was_there = true;
        let known = people.entry(person.identity.clone()).or_insert_with(|| Person {
            sid: person.sid.clone(),
            name: String::new(),
            tracks: BTreeMap::new(),
            encrypted: BTreeSet::new(),
        });
        if !is_same || known.name != person.name {
            known.name.clone_from(&person.name);
            orders.push_back(Order::Write(Input::Participant {
                participant: person.sid.clone(),
                identity: person.identity.to_string(),
                name: person.name.clone(),
            }));
        }
        let ended: Vec<_> =
            known.tracks.keys().filter(|sid| wanted.iter().all(|(track, _)| track.sid != **sid)).cloned().collect();
        for sid in ended {
            known.tracks.remove(&sid);
            end(orders, sid);
        }
        for (track, codec) in wanted {
            if track.encryption != Encryption::None {
                if known.encrypted.insert(track.sid.clone()) {
                    orders.push_back(Order::Encrypted { track: track.sid.clone() });
                    orders.push_back(Order::Write(Input::NotRecorded {
                        track: track.sid.clone(),
                        participant: person.sid.clone(),
                        source: track.source,
                        reason: Omission::Encrypted,
                    }));
                }
                continue;
            }
            known.take(track, codec, orders);
        }
        known.encrypted.retain(|sid| person.tracks.iter().any(|track| track.sid == *sid));
    }

    fn gone(&mut self, identity: &Identity) {
        let Some(person) = self.people.remove(identity) else { return };
        for sid in person.tracks.into_keys() {
            end(&mut self.orders, sid);
        }
        self.speakers.remove(&person.sid);
        self.write(Input::ParticipantLeft(person.sid));
    }

    fn loudest_first(&self) -> Vec<ParticipantSid> {
        let mut speakers: Vec<_> = self.speakers.iter().collect();
        speakers.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        speakers.into_iter().map(|(sid, _)| sid.clone()).collect()
    }

    /// Of the meeting, as opposed to some of its tracks.
    fn is_of_everybody(&self) -> bool {
        matches!(self.source, EgressSource::Room { .. })
    }

    fn write(&mut self, input: Input) {
        self.orders.push_back(Order::Write(input));
    }
}

impl Person {
    fn take(&mut self, track: &Track, codec: Codec, orders: &mut VecDeque<Order>) {
        let before = self.tracks.insert(track.sid.clone(), Taken { codec, is_muted: track.muted });
        if before.is_none_or(|before| before.codec != codec) {
            let (participant, source) = (self.sid.clone(), track.source);
            let began = Input::TrackBegan { track: track.sid.clone(), participant, source, codec };
            orders.push_back(Order::Write(began));
        }
        if before.is_none() {
            orders.push_back(Order::Tap { track: track.sid.clone(), publisher: self.sid.clone() });
        }
        if before.is_some_and(|before| before.is_muted) != track.muted {
            orders.push_back(Order::Write(Input::Mute { track: track.sid.clone(), muted: track.muted }));
        }
    }
}

fn end(orders: &mut VecDeque<Order>, track: TrackSid) {
    orders.push_back(Order::Untap { track: track.clone() });
    orders.push_back(Order::Write(Input::TrackEnded(track)));
}

#[cfg(test)]
mod tests {
    use plenary_model::{EgressMedia, MediaKind, Source, SpeakerLevel};

    use super::*;
    use crate::egress::testing;

    fn room() -> EgressSource {
        EgressSource::Room { layout: String::new(), media: EgressMedia::Both }
    }

    fn track(sid: &str, mime: &str) -> Track {
        let codec = Codec::named(mime).unwrap_or(Codec::Vp8);
        let source = if codec.kind() == MediaKind::Audio { Source::Microphone } else { Source::Camera };
        Track { kind: codec.kind(), source, mime: mime.into(), ..testing::track(sid) }
    }

    fn person(identity: &str, sid: &str, tracks: &[Track]) -> Participant {
        Participant {
            sid: sid.into(),
            name: identity.to_uppercase(),
            tracks: tracks.to_vec(),
            ..testing::person(identity, &[])
        }
    }

    fn hear(watch: &mut Watch, people: &[Participant]) -> Vec<Order> {
        watch.hear(Notice::Participants { changed: people.iter().cloned().map(Arc::new).collect() });
        std::iter::from_fn(|| watch.poll()).collect()
    }

    fn came(sid: &str, identity: &str) -> Order {
        let (identity, name) = (identity.to_owned(), identity.to_uppercase());
        Order::Write(Input::Participant { participant: sid.into(), identity, name })
    }

    fn left(sid: &str) -> Order {
        Order::Write(Input::ParticipantLeft(sid.into()))
    }

    fn begins(sid: &str, track: &str, source: Source, codec: Codec) -> [Order; 2] {
        let began = Input::TrackBegan { track: track.into(), participant: sid.into(), source, codec };
        [Order::Write(began), Order::Tap { track: track.into(), publisher: sid.into() }]
    }

    fn ends(track: &str) -> [Order; 2] {
        [Order::Untap { track: track.into() }, Order::Write(Input::TrackEnded(track.into()))]
    }

    fn gone(person: Participant) -> Participant {
        Participant { state: ParticipantState::Disconnected, ..person }
    }

    #[test]
    fn everybody_is_written_and_all_that_they_publish_tapped_once() {
        let mut watch = Watch::new(room(), false);
        let (cam, mic) = (track("TR_cam", "video/VP8"), track("TR_mic", "audio/red"));
        let ann = person("ann", "PA_1", std::slice::from_ref(&cam));
        let [began, tap] = begins("PA_1", "TR_cam", Source::Camera, Codec::Vp8);
        assert_eq!(hear(&mut watch, std::slice::from_ref(&ann)), [came("PA_1", "ann"), began, tap]);
        assert_eq!(hear(&mut watch, &[ann]), [], "what is known already");
        let muted = Track { muted: true, ..cam };
        let [began, tap] = begins("PA_1", "TR_mic", Source::Microphone, Codec::Red);
        let mute = Order::Write(Input::Mute { track: "TR_cam".into(), muted: true });
        let both = person("ann", "PA_1", &[muted, mic.clone()]);
        assert_eq!(hear(&mut watch, &[both]), [mute, began, tap]);
        let [untap, ended] = ends("TR_cam");
        assert_eq!(hear(&mut watch, &[person("ann", "PA_1", &[mic])]), [untap, ended]);
    }

    #[test]
    fn who_comes_again_leaves_first_and_the_old_departure_is_of_nobody() {
        let mut watch = Watch::new(room(), false);
        let mic = track("TR_1", "audio/opus");
        let before = person("ann", "PA_1", &[mic]);
        hear(&mut watch, std::slice::from_ref(&before));
        let [untap, ended] = ends("TR_1");
        let orders = hear(&mut watch, &[person("ann", "PA_2", &[])]);
        assert_eq!(orders, [untap, ended, left("PA_1"), came("PA_2", "ann")]);
        assert_eq!(hear(&mut watch, &[gone(before)]), []);
        assert_eq!(hear(&mut watch, &[gone(person("ann", "PA_2", &[]))]), [left("PA_2")]);
    }

    #[test]
    fn who_leaves_while_nobody_tells_of_the_room_is_gone_when_somebody_does_again() {
        let mut watch = Watch::new(room(), false);
        let (mic, cam) = (track("TR_1", "audio/opus"), track("TR_2", "video/VP8"));
        let (ann, bob) = (person("ann", "PA_1", &[mic]), person("bob", "PA_2", &[cam]));
        hear(&mut watch, &[ann.clone(), bob.clone()]);
        watch.lose_sight();
        let [untap, ended] = ends("TR_1");
        assert_eq!(hear(&mut watch, std::slice::from_ref(&bob)), [untap, ended, left("PA_1")]);
        let came_again = hear(&mut watch, &[ann]);
        assert_eq!(came_again[0], came("PA_1", "ann"), "and only then: who is not told of has not changed");
        assert_eq!(came_again.len(), 3);
        assert_eq!(hear(&mut watch, &[bob]), []);
    }

    #[test]
    fn a_track_begins_when_its_codec_is_known_and_goes_on_in_another() {
        let mut watch = Watch::new(room(), false);
        assert_eq!(hear(&mut watch, &[person("ann", "PA_1", &[track("TR_1", "")])]), [came("PA_1", "ann")]);
        let orders = hear(&mut watch, &[person("ann", "PA_1", &[track("TR_1", "video/VP8")])]);
        assert_eq!(orders, begins("PA_1", "TR_1", Source::Camera, Codec::Vp8));
        let orders = hear(&mut watch, &[person("ann", "PA_1", &[track("TR_1", "video/H264")])]);
        assert_eq!(orders, begins("PA_1", "TR_1", Source::Camera, Codec::H264)[..1]);
    }

    #[test]
    fn what_only_receivers_can_read_is_told_once_and_left_out() {
        let mut watch = Watch::new(room(), false);
        let secret = Track { encryption: Encryption::Gcm, ..track("TR_1", "video/VP8") };
        let ann = person("ann", "PA_1", &[secret]);
        let orders = hear(&mut watch, std::slice::from_ref(&ann));
        let (track, participant) = ("TR_1".into(), "PA_1".into());
        let reason = Omission::Encrypted;
        let named = Order::Write(Input::NotRecorded { track, participant, source: Source::Camera, reason });
        assert_eq!(orders, [came("PA_1", "ann"), Order::Encrypted { track: "TR_1".into() }, named]);
        assert_eq!(hear(&mut watch, &[ann]), []);
    }

    #[test]
    fn one_persons_recording_has_neither_others_nor_what_is_said_to_all() {
        let source = EgressSource::Participant { identity: "ann".try_into().unwrap(), screen_share: false };
        let mut watch = Watch::new(source, false);
        let screen = Track { source: Source::ScreenShare, ..track("TR_2", "video/VP8") };
        let ann = person("ann", "PA_1", &[track("TR_1", "video/VP8"), screen]);
        let bob = person("bob", "PA_2", &[track("TR_3", "video/VP8")]);
        assert!(!watch.is_deserted(), "who has not come yet");
        let [began, tap] = begins("PA_1", "TR_1", Source::Camera, Codec::Vp8);
        assert_eq!(hear(&mut watch, &[bob, ann.clone()]), [came("PA_1", "ann"), began, tap]);
        let level = SpeakerLevel { level: 0.5, active: true };
        watch.hear(Notice::Speakers { speakers: vec![("PA_2".into(), level)] });
        assert_eq!(watch.poll(), None);
        assert!(!watch.is_deserted());
        hear(&mut watch, &[gone(ann)]);
        assert!(watch.is_deserted());
    }

    #[test]
    fn speakers_are_told_the_loudest_first_when_that_changes() {
        let mut watch = Watch::new(room(), false);
        let speaks = |watch: &mut Watch, who: &str, level: f32| {
            let level = SpeakerLevel { level, active: level > 0.0 };
            watch.hear(Notice::Speakers { speakers: vec![(who.into(), level)] });
            watch.poll()
        };
        let told = |who: &[&str]| Some(Order::Write(Input::Speakers(who.iter().map(|sid| (*sid).into()).collect())));
        assert_eq!(speaks(&mut watch, "PA_1", 0.3), told(&["PA_1"]));
        assert_eq!(speaks(&mut watch, "PA_2", 0.6), told(&["PA_2", "PA_1"]));
        assert_eq!(speaks(&mut watch, "PA_2", 0.5), None);
        assert_eq!(speaks(&mut watch, "PA_2", 0.0), told(&["PA_1"]));
    }
}
