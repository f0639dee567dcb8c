//! One session, its virtual clock, and short words for what the tests say and ask.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use plenary_model::*;
use plenary_room_core::{
    notice::{Announce, Notice, Request, Welcome},
    session::{Input, MediaCommand, MediaEvent, Output, Published, Session, Settings, Start, UnfitCodecs},
    signal::{AddTrack, ClientSignal, ServerSignal},
};

pub struct Driver {
    pub session: Session,
    pub now: Instant,
    pub out: Vec<Output>,
}

impl Driver {
    /// A session whose transports are connected and whose opening words are forgotten.
    pub fn active() -> Self {
        let mut driver = Self::joined();
        driver.connect();
        driver.out.clear();
        driver
    }

    /// Right after the join.
    pub fn joined() -> Self {
        Self::start(Permission::default(), Vec::new())
    }

    pub fn start(permission: Permission, others: Vec<Arc<Participant>>) -> Self {
        Self::start_with(settings(), UnfitCodecs::default(), permission, others)
    }

    pub fn start_with(
        settings: Settings,
        unfit: UnfitCodecs,
        permission: Permission,
        others: Vec<Arc<Participant>>,
    ) -> Self {
        let now = Instant::now();
        let own = Arc::new(Participant { permission, ..person("me", "PA_me", Vec::new()) });
        let start = Start {
            welcome: Welcome { own, room: room(), others },
            protocol: 17,
            auto_subscribe: true,
            adaptive_stream: false,
            allow_pause: true,
            unfit,
            seed: 7,
            unix_micros: 1_000_000,
            ice_servers: Vec::new(),
        };
        let mut driver = Self { session: Session::new(now, settings, start), now, out: Vec::new() };
        driver.collect();
        driver
    }

    /// The client answers the first offer and its primary transport connects.
    pub fn connect(&mut self) {
        self.media(MediaEvent::Offered { sdp: "offer".into() });
        let id = self.last_offer().expect("an offer is out").0;
        self.signal(ClientSignal::Answer { sdp: "answer".into(), id });
        self.media(MediaEvent::Accepted);
        self.media(MediaEvent::Connected { target: Target::Subscriber });
        for channel in [Channel::Reliable, Channel::Lossy] {
            self.media(MediaEvent::ChannelOpen { target: Target::Subscriber, channel });
        }
    }

    pub fn give(&mut self, input: Input) {
        self.session.handle(self.now, input);
        self.collect();
    }

    pub fn signal(&mut self, signal: ClientSignal) {
        self.give(Input::Signal(signal));
    }

    pub fn media(&mut self, event: MediaEvent) {
        self.give(Input::Media(event));
    }

    pub fn notice(&mut self, notice: Notice) {
        self.give(Input::Notice(notice));
    }

    /// Virtual time passes; every deadline on the way fires when it is due.
    pub fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some((at, _)) = self.session.next_deadline().filter(|(at, _)| *at <= end) {
            self.now = at.max(self.now);
            self.session.handle_timeout(self.now);
            let next = self.session.next_deadline();
            assert!(next.is_none_or(|(at, _)| at > self.now), "{next:?} is due after it was handled");
            self.collect();
        }
        self.now = end;
    }

    /// The same, with a client that pings.
    pub fn wait_alive(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.signal(ClientSignal::Ping { timestamp_ms: 0 });
            self.wait((end - self.now).min(Duration::from_secs(5)));
        }
    }

    pub fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    pub fn sent(&self) -> Vec<&ServerSignal> {
        self.out
            .iter()
            .filter_map(|output| if let Output::Send(signal) = output { Some(signal) } else { None })
            .collect()
    }

    /// What was said of who speaks.
    pub fn speakers(&self) -> Vec<Vec<(ParticipantSid, SpeakerLevel)>> {
        let said = |signal: &ServerSignal| match signal {
            ServerSignal::SpeakersChanged { speakers } => Some(speakers.clone()),
            _ => None,
        };
        self.sent().into_iter().filter_map(said).collect()
    }

    pub fn asked(&self) -> Vec<&Request> {
        self.out
            .iter()
            .filter_map(|output| if let Output::Ask(request) = output { Some(request) } else { None })
            .collect()
    }

    pub fn commands(&self) -> Vec<&MediaCommand> {
        self.out
            .iter()
            .filter_map(|output| if let Output::Media(command) = output { Some(command) } else { None })
            .collect()
    }

    pub fn last_offer(&self) -> Option<(u32, String)> {
        self.sent().into_iter().rev().find_map(|signal| match signal {
            ServerSignal::Offer { id, sdp } => Some((*id, sdp.clone())),
            _ => None,
        })
    }

    pub fn ended(&self) -> Option<LeaveReason> {
        self.out.iter().find_map(|output| if let Output::End(reason) = output { Some(*reason) } else { None })
    }

    pub fn wanted(&self) -> Option<Vec<TrackSid>> {
        self.commands().into_iter().rev().find_map(|command| match command {
            MediaCommand::Want { tracks } => Some(tracks.iter().map(|one| one.track.clone()).collect()),
            _ => None,
        })
    }

    /// Announces a track and gives back the sid the server chose.
    pub fn add_track(&mut self, cid: &str, source: Source) -> TrackSid {
        self.signal(ClientSignal::AddTrack(add_track(cid, source)));
        self.sent()
            .into_iter()
            .rev()
            .find_map(|signal| match signal {
                ServerSignal::TrackPublished { cid: echoed, track } if echoed == cid => Some(track.sid.clone()),
                _ => None,
            })
            .expect("the track was accepted")
    }

    /// The whole way from AddTrack to an answered offer.
    pub fn publish(&mut self, cid: &str, source: Source) -> TrackSid {
        let sid = self.add_track(cid, source);
        self.signal(ClientSignal::Offer { sdp: "publish".into(), id: 1 });
        self.media(answered(&[(&sid, cid)], &[]));
        sid
    }

    fn collect(&mut self) {
        while let Some(output) = self.session.poll_output() {
            self.out.push(output);
        }
    }
}

pub fn answered(published: &[(&TrackSid, &str)], gone: &[&TrackSid]) -> MediaEvent {
    let section = |(at, (sid, cid)): (usize, &(&TrackSid, &str))| Published {
        track: (*sid).clone(),
        mid: at.to_string(),
        mime: "video/VP8".into(),
        cid: (*cid).to_owned(),
    };
    MediaEvent::Answered {
        sdp: "answer".into(),
        published: published.iter().enumerate().map(section).collect(),
        gone: gone.iter().map(|sid| (*sid).clone()).collect(),
    }
}

pub fn add_track(cid: &str, source: Source) -> AddTrack {
    let audio = matches!(source, Source::Microphone | Source::ScreenShareAudio);
    let layer = |quality, width| Layer {
        quality,
        width,
        height: width / 2,
        bitrate_bps: width * 100,
        ssrc: 0,
        spatial_layer: 0,
        rid: String::new(),
    };
    let layers = if audio { Vec::new() } else { vec![layer(Quality::High, 1280), layer(Quality::Low, 320)] };
    AddTrack {
        cid: cid.to_owned(),
        existing: None,
        name: String::new(),
        kind: if audio { MediaKind::Audio } else { MediaKind::Video },
        source,
        width: 1280,
        height: 640,
        muted: false,
        disable_red: false,
        stream: String::new(),
        layers,
        codecs: Vec::new(),
        encryption: Encryption::None,
        audio_features: Vec::new(),
        trailer_features: Vec::new(),
        backup_codec_policy: BackupCodecPolicy::default(),
    }
}

pub fn person(identity: &str, sid: &str, tracks: Vec<Track>) -> Participant {
    Participant {
        sid: sid.into(),
        identity: Identity::try_from(identity).unwrap(),
        name: String::new(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        state: ParticipantState::Active,
        kind: ParticipantKind::Standard,
        permission: Permission::default(),
        is_publisher: !tracks.is_empty(),
        tracks,
        audience: Audience::default(),
        data_tracks: Vec::new(),
        joined_at_ms: 0,
        version: 1,
        leave_reason: LeaveReason::Unknown,
        client_protocol: 0,
        capabilities: Vec::new(),
    }
}

pub fn gone(identity: &str, sid: &str) -> Arc<Participant> {
    let state = ParticipantState::Disconnected;
    Arc::new(Participant { state, leave_reason: LeaveReason::ClientInitiated, ..person(identity, sid, Vec::new()) })
}

pub fn camera(sid: &str) -> Track {
    Track {
        sid: sid.into(),
        kind: MediaKind::Video,
        source: Source::Camera,
        name: String::new(),
        muted: false,
        width: 1280,
        height: 720,
        simulcast: false,
        stream: "camera".into(),
        mime: "video/VP8".into(),
        mid: "0".into(),
        codecs: Vec::new(),
        layers: Vec::new(),
        encryption: Encryption::None,
        disable_red: false,
        audio_features: Vec::new(),
        trailer_features: Vec::new(),
        backup_codec_policy: BackupCodecPolicy::default(),
        version: Version::default(),
    }
}

pub fn here(people: Vec<Participant>) -> Notice {
    Notice::Participants { changed: people.into_iter().map(Arc::new).collect() }
}

pub fn own_changed(permission: Permission) -> Notice {
    let own = Arc::new(Participant { permission, ..person("me", "PA_me", Vec::new()) });
    Notice::OwnChanged { own, announce: Announce::Yes }
}

pub fn room() -> RoomInfo {
    RoomInfo {
        sid: "RM_1".into(),
        name: RoomName::try_from("standup").unwrap(),
        created_at_ms: 1,
        metadata: String::new(),
        empty_timeout_s: 300,
        departure_timeout_s: 20,
        max_participants: 0,
        participants: 1,
        publishers: 0,
        active_recording: false,
        has_active_egress: false,
        auto_egress: Default::default(),
    }
}

pub fn settings() -> Settings {
    let seconds = Duration::from_secs;
    Settings {
        ping_interval: seconds(5),
        ping_timeout: seconds(15),
        join_timeout: seconds(60),
        resume_window: seconds(60),
        detached_timeout: seconds(5),
        negotiation_timeout: seconds(15),
        offer_debounce: Duration::from_millis(20),
        quality_interval: seconds(5),
        refresh_interval: seconds(300),
        announced_timeout: seconds(30),
        not_found_timeout: seconds(60),
        codecs: Codec::ALL.to_vec(),
        tracks_max: 50,
        announced_max: 20,
        metadata_bytes_max: 512,
        attributes_bytes_max: 64,
        name_bytes_max: 256,
        messages_per_window: 200,
        messages_window: seconds(10),
        messages_burst: 400,
    }
}
