//! One person over several sessions: comes back as `livekit-client` 2.23 does, and remembers what was seen and heard.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use livekit_protocol::{
    DisconnectReason, JoinResponse, LeaveRequest, ParticipantInfo, ParticipantPermission, leave_request::Action,
    participant_info::State as Presence, signal_request::Message as Request, signal_response::Message as Response,
};
use plenary_model::MediaKind;
use plenary_testkit::{Random, light::Identity};

use crate::{
    bot::{Bot, Join, realtime_ns},
    datagrams::Network,
};

pub struct Person {
    pub identity: String,
    token: String,
    pub bot: Option<Bot>,
    /// Of the present session, for its addresses and streams.
    pub number: usize,
    pub state: State,
    pub sid: String,
    pub permission: Option<ParticipantPermission>,
    /// Everybody else in the room, as the server says.
    pub view: BTreeMap<String, Seen>,
    /// Identities that the server said are gone.
    pub departures: Vec<String>,
    /// Whom this person subscribes to, and what came of them.
    pub ears: BTreeMap<String, Ear>,
    /// From those who are heard to here, of the packets since the mark that were opened.
    pub delays_us: Vec<u32>,
    /// Tracks asked for in this session, and those to be asked for.
    subscribed: BTreeSet<String>,
    wanted: Vec<String>,
    /// Sessions by stream of the present offer, and identities by session.
    streams: HashMap<u32, String>,
    who: HashMap<String, String>,
    pub joins: usize,
    pub resumes: usize,
    /// From the loss of the socket to the server's word that the session goes on.
    pub resumed_after: Vec<Duration>,
    lost_at: Option<Instant>,
    /// Since it was in a session.
    tries: usize,
    /// Why the last socket was lost.
    pub lost_why: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub sid: String,
    pub metadata: String,
}

/// What one person hears of another, by the kernel's clock.
#[derive(Debug, Clone, Default)]
pub struct Ear {
    pub sid: String,
    /// The first packet of this session of theirs.
    pub since_ns: i64,
    pub last_ns: i64,
    pub longest_ns: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum State {
    Asking {
        resumes: bool,
        since: Instant,
    },
    Here,
    Waiting {
        until: Instant,
        resumes: bool,
    },
    /// For good, and why.
    Gone(String),
}

/// Where people go, and what they draw.
pub struct Way<'w> {
    pub server: SocketAddr,
    pub network: Network,
    pub random: &'w mut Random,
    /// The next number for a session.
    pub number: usize,
}

impl Person {
    pub fn new(identity: String, token: String, hears: impl Iterator<Item = String>) -> Self {
        Self {
            identity,
            token,
            bot: None,
            number: 0,
            state: State::Waiting { until: Instant::now(), resumes: false },
            sid: String::new(),
            permission: None,
            view: BTreeMap::new(),
            departures: Vec::new(),
            ears: hears.map(|identity| (identity, Ear::default())).collect(),
            delays_us: Vec::new(),
            subscribed: BTreeSet::new(),
            wanted: Vec::new(),
            streams: HashMap::new(),
            who: HashMap::new(),
            joins: 0,
            resumes: 0,
            resumed_after: Vec::new(),
            lost_at: None,
            tries: 0,
            lost_why: String::new(),
        }
    }

    pub fn is_here(&self) -> bool {
        self.state == State::Here
    }

    /// The first packet in this session, of anybody.
    pub fn hears_since_ns(&self) -> Option<i64> {
        self.ears.values().map(|ear| ear.since_ns).filter(|since| *since > 0).min()
    }

    /// Begins what is due. A connection to be watched, if one was made.
    pub fn act(&mut self, now: Instant, way: &mut Way<'_>) -> Option<TcpStream> {
        if let State::Asking { since, .. } = self.state
            && now > since + ANSWER_WITHIN
        {
            self.lose(now, way.random, "no answer");
        }
        let State::Waiting { until, resumes } = self.state else { return None };
        if until > now {
            return None;
        }
        let opened = match (&mut self.bot, resumes) {
            (Some(bot), true) => bot.resume(now, way.server, &self.token, &self.sid),
            (_, _) => {
                let addresses = way.network.addresses(way.number);
                let join = Join { token: &self.token, kinds: &[MediaKind::Audio], auto_subscribe: false };
                Bot::join(now, way.server, way.number, addresses, join).map(|(bot, watched)| {
                    self.number = way.number;
                    self.subscribed.clear();
                    self.wanted.clear();
                    self.streams.clear();
                    // Says so first, as the SDK does; the socket is closed with the old session.
                    if let Some(mut old) = self.bot.replace(bot) {
                        let _ = old.say(Request::Leave(LeaveRequest::default()));
                    }
                    watched
                })
            }
        };
        self.state = State::Asking { resumes, since: now };
        match opened {
            Ok(watched) => Some(watched),
            Err(error) => {
                self.lose(now, way.random, &error.to_string());
                None
            }
        }
    }

    /// Takes in what came on the socket. Whether it is still to be watched.
    pub fn read(&mut self, now: Instant, identity: &Identity, random: &mut Random) -> bool {
        let Some(mut bot) = self.bot.take() else { return false };
        let mut leave = None;
        let read = bot.read_signal(now, identity, |message| match message {
            Response::Leave(said) => leave = Some(said.clone()),
            message => self.hear(now, message),
        });
        let wanted = std::mem::take(&mut self.wanted);
        let subscribed = if wanted.is_empty() { Ok(()) } else { bot.subscribe(wanted) };
        self.bot = Some(bot);
        match (leave, read.and(subscribed)) {
            (Some(leave), _) => self.told_to_leave(now, random, &leave),
            (None, Err(error)) => match error.downcast_ref::<tungstenite::Error>() {
                Some(tungstenite::Error::Http(answer)) if matches!(answer.status().as_u16(), 401 | 403 | 404) => {
                    self.state = State::Gone(format!("refused with {}", answer.status().as_u16()));
                }
                _ => self.lose(now, random, &error.to_string()),
            },
            (None, Ok(())) => return true,
        }
        false
    }

    /// A packet of media.
    pub fn arrived(&mut self, ssrc: u32, at_ns: i64) {
        let Some(sid) = self.streams.get(&ssrc) else { return };
        let Some(ear) = self.who.get(sid).and_then(|identity| self.ears.get_mut(identity)) else { return };
        if ear.last_ns > 0 {
            ear.longest_ns = ear.longest_ns.max(at_ns - ear.last_ns);
        }
        ear.last_ns = ear.last_ns.max(at_ns);
        if ear.sid != *sid || ear.since_ns == 0 {
            (ear.sid, ear.since_ns) = (sid.clone(), at_ns);
        }
    }

    /// From now on silences count anew; one that lasts begins now.
    pub fn mark(&mut self) {
        for ear in self.ears.values_mut() {
            (ear.longest_ns, ear.last_ns) = (0, realtime_ns());
        }
        self.departures.clear();
        self.delays_us.clear();
    }

    /// The socket is gone, or what was asked for is refused.
    pub fn lose(&mut self, now: Instant, random: &mut Random, why: &str) {
        let resumes = match self.state {
            State::Here => {
                self.lost_at = Some(now);
                true
            }
            // Only a word of the server ends a session.
            State::Asking { resumes, .. } => resumes,
            State::Waiting { .. } | State::Gone(_) => return,
        };
        why.clone_into(&mut self.lost_why);
        self.wait(now, random, resumes);
    }

    /// As long as the SDK does before its next try.
    fn wait(&mut self, now: Instant, random: &mut Random, resumes: bool) {
        let (least_ms, jitter_ms) = *WAITS_MS.get(self.tries).unwrap_or(&(7_000, 1_000));
        self.tries += 1;
        self.state = State::Waiting { until: now + Duration::from_millis(least_ms + random.below(jitter_ms)), resumes };
    }

    fn told_to_leave(&mut self, now: Instant, random: &mut Random, leave: &LeaveRequest) {
        match leave.action() {
            Action::Disconnect => {
                let reason = DisconnectReason::try_from(leave.reason).map_or("?", |reason| reason.as_str_name());
                self.state = State::Gone(reason.to_owned());
            }
            Action::Resume => self.wait(now, random, true),
            Action::Reconnect => self.wait(now, random, false),
        }
    }

    fn hear(&mut self, now: Instant, message: &Response) {
        match message {
            Response::Join(join) => self.joined(join),
            Response::Reconnect(_) => {
                (self.state, self.tries) = (State::Here, 0);
                self.resumes += 1;
                self.resumed_after.extend(self.lost_at.take().map(|lost| now - lost));
            }
            Response::Update(update) => update.participants.iter().for_each(|info| self.note(info)),
            Response::Offer(offer) => {
                let repairs: BTreeSet<u32> = offer.sdp.lines().filter_map(repair_of).collect();
                let streams = offer.sdp.lines().filter_map(stream_of);
                self.streams = streams.filter(|(ssrc, _)| !repairs.contains(ssrc)).collect();
            }
            _ => {}
        }
    }

    fn joined(&mut self, join: &JoinResponse) {
        (self.state, self.tries) = (State::Here, 0);
        self.joins += 1;
        self.lost_at = None;
        self.view.clear();
        self.ears.values_mut().for_each(|ear| ear.since_ns = 0);
        if let Some(own) = &join.participant {
            self.sid.clone_from(&own.sid);
            self.permission.clone_from(&own.permission);
        }
        join.other_participants.iter().for_each(|info| self.note(info));
    }

    fn note(&mut self, info: &ParticipantInfo) {
        if info.identity == self.identity {
            return;
        }
        self.who.insert(info.sid.clone(), info.identity.clone());
        if info.state() == Presence::Disconnected {
            self.departures.push(info.identity.clone());
            if self.view.get(&info.identity).is_some_and(|seen| seen.sid == info.sid) {
                self.view.remove(&info.identity);
            }
            return;
        }
        let seen = Seen { sid: info.sid.clone(), metadata: info.metadata.clone() };
        self.view.insert(info.identity.clone(), seen);
        if self.ears.contains_key(&info.identity) {
            let sids = info.tracks.iter().map(|track| &track.sid);
            let new: Vec<_> = sids.filter(|sid| self.subscribed.insert((*sid).clone())).cloned().collect();
            self.wanted.extend(new);
        }
    }
}

/// The session whose stream an offer's line announces: `a=ssrc:1 msid:PA_x|TR_y TR_y`.
fn stream_of(line: &str) -> Option<(u32, String)> {
    let (ssrc, stream) = line.strip_prefix("a=ssrc:")?.split_once(" msid:")?;
    Some((ssrc.parse().ok()?, stream.split('|').next()?.to_owned()))
}

fn repair_of(line: &str) -> Option<u32> {
    line.strip_prefix("a=ssrc-group:FID ")?.split(' ').nth(1)?.parse().ok()
}

/// Before each try to come back, milliseconds at least and by lot on top.
const WAITS_MS: [(u64, u64); 5] = [(0, 500), (150, 300), (1_200, 1_000), (2_700, 1_000), (4_800, 1_000)];
/// As long as the SDK waits for a socket.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
