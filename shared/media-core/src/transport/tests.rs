//! A whole transport against a client made of the same parts, in virtual time; against another implementation in
//! `rtc_peer`.

mod rtc_peer;

use super::*;
use crate::api::Protocol;
use crate::sctp::{LOSSY_BACKLOG_MAX, MESSAGE_BYTES_MAX, RELIABLE_BACKLOG_MAX};
use crate::stun::testing::{binding_request, nomination};
use crate::testing::Rng;

/// The client's end: checks, DTLS, SRTP and SCTP, and every way to misuse them.
struct Client {
    role: DtlsRole,
    opens_channels: bool,
    dtls: Dtls,
    sctp: Option<Sctp>,
    keys: Option<Box<Keys>>,
    messages: Vec<(Channel, Bytes)>,
    opened: Vec<Channel>,
}

struct Call {
    now: Instant,
    start: Instant,
    server: Transport,
    client: Client,
    /// Where the client is.
    path: Path,
    rng: Rng,
    loss: u64,
    events: Vec<TransportEvent>,
    /// Where the server's datagrams went, apart from answers to checks.
    sent_to: Vec<Path>,
}

fn credentials(ufrag: &str) -> IceCredentials {
    IceCredentials { ufrag: ufrag.into(), pwd: format!("a-long-password-for-{ufrag}") }
}

fn path(port: u16) -> Path {
    Path { protocol: Protocol::Udp, remote: ([198, 51, 100, 7], port).into() }
}

fn fingerprint(identity: &DtlsIdentity) -> Fingerprint {
    let bytes: Vec<u8> = identity.fingerprint().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    Fingerprint(bytes.try_into().unwrap())
}

impl Call {
    fn new(open_channels: bool) -> Self {
        Self::with_role(open_channels, DtlsRole::Client)
    }

    /// A call that knows both descriptions, nothing sent yet. `role` is the client's.
    fn with_role(open_channels: bool, role: DtlsRole) -> Self {
        let now = Instant::now();
        let (ours, theirs) = (DtlsIdentity::generate().unwrap(), DtlsIdentity::generate().unwrap());
        let mut server = Transport::new(&ours, credentials("srv1"), open_channels, 0);
        server.set_remote(now, remote(&theirs, role));
        let dtls = Dtls::new(now, &theirs, role, fingerprint(&ours)).unwrap();
        let (opens_channels, messages, opened) = (!open_channels, Vec::new(), Vec::new());
        let client = Client { role, opens_channels, dtls, sctp: None, keys: None, messages, opened };
        Self {
            now,
            start: now,
            server,
            client,
            path: path(1),
            rng: Rng::new(11),
            loss: 0,
            events: Vec::new(),
            sent_to: Vec::new(),
        }
    }

    fn connected(open_channels: bool) -> Self {
        let mut call = Self::new(open_channels);
        call.nominate();
        call.run(Duration::from_secs(2));
        assert!(call.server.is_connected());
        call
    }

    fn nominate(&mut self) {
        let check = nomination("srv1:clnt", &credentials("srv1").pwd);
        assert_eq!(self.server.receive(self.now, self.path, &mut check.clone()), Received::Consumed);
    }

    /// Lets time pass, with a check every two seconds.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        let mut next_check = self.now + Duration::from_secs(2);
        for _ in 0..200_000 {
            if self.carry() {
                continue;
            }
            let deadlines = [
                self.server.next_deadline().map(|(at, _)| at),
                self.client.dtls.deadline(),
                self.client.sctp.as_ref().and_then(Sctp::deadline),
                Some(next_check),
            ];
            let next = deadlines.into_iter().flatten().min().unwrap();
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if self.now >= next_check {
                next_check += Duration::from_secs(2);
                self.nominate();
            }
            self.server.handle_timeout(self.now);
            self.client.dtls.handle_timeout(self.now).unwrap();
            if let Some(sctp) = &mut self.client.sctp {
                sctp.handle_timeout(self.now).unwrap();
            }
        }
        panic!("never quiet");
    }

    /// Nothing from the client any more, until the server ends it.
    fn run_alone(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some((at, _)) = self.server.next_deadline().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.server.handle_timeout(self.now);
        }
        self.collect();
        self.now = end;
    }

    fn collect(&mut self) {
        self.events.extend(std::iter::from_fn(|| self.server.poll_event()));
    }

    fn carry(&mut self) -> bool {
        self.collect();
        let mut moved = false;
        while let Some((to, datagram)) = self.server.poll_transmit() {
            moved = true;
            if classify(&datagram) == Kind::Stun {
                continue;
            }
            self.sent_to.push(to);
            if to == self.path && self.rng.below(100) >= self.loss {
                self.client.dtls.receive(self.now, &datagram).unwrap();
            }
        }
        for mut datagram in self.client.pump(self.now) {
            moved = true;
            if self.rng.below(100) >= self.loss {
                self.server.receive(self.now, self.path, &mut datagram);
            }
        }
        self.collect();
        moved
    }

    fn end(&self) -> Option<PeerEnd> {
        self.events.iter().find_map(|event| match event {
            TransportEvent::Ended(why) => Some(*why),
            _ => None,
        })
    }

    fn received(&self) -> Vec<(Channel, Bytes)> {
        let data = self.events.iter().filter_map(|event| match event {
            TransportEvent::Data { channel, payload } => Some((*channel, payload.clone())),
            _ => None,
        });
        data.collect()
    }

    fn send_from_client(&mut self, channel: Channel, payload: &[u8]) {
        self.client.sctp.as_mut().unwrap().send(self.now, channel, payload).unwrap();
    }

    fn rtp_from_client(&self, sequence: u16) -> (Vec<u8>, Vec<u8>) {
        let plain = rtp(sequence);
        let mut sealed = plain.clone();
        self.client.keys.as_ref().unwrap().seal_rtp(0, 12, &mut sealed, 0).unwrap();
        (plain, sealed)
    }
}

impl Client {
    /// Moves everything one step on; returns what goes out.
    fn pump(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for _ in 0..1_000 {
            let mut moved = false;
            while let Some(output) = self.dtls.poll() {
                moved = true;
                match output {
                    DtlsOutput::Datagram(datagram) => out.push(datagram),
                    DtlsOutput::Connected(keys) => {
                        self.keys = keys;
                        self.sctp = Some(Sctp::new(now, self.role, self.opens_channels, 0, 0).unwrap());
                    }
                    DtlsOutput::Data(packet) => {
                        self.sctp.as_mut().unwrap().receive(now, packet).unwrap();
                    }
                    DtlsOutput::Closed => {}
                }
            }
            while let Some(output) = self.sctp.as_mut().and_then(Sctp::poll) {
                moved = true;
                match output {
                    SctpOutput::Packet(packet) => self.dtls.send(now, &packet).unwrap(),
                    SctpOutput::Open(channel) => self.opened.push(channel),
                    SctpOutput::Message { channel, payload } => self.messages.push((channel, payload)),
                }
            }
            if !moved {
                return out;
            }
        }
        panic!("never quiet");
    }
}

fn remote(identity: &DtlsIdentity, role: DtlsRole) -> RemoteParameters {
    let remote_is_dtls_client = role == DtlsRole::Client;
    RemoteParameters { fingerprint: fingerprint(identity), remote_is_dtls_client, max_message_bytes: 262_144 }
}

fn rtp(sequence: u16) -> Vec<u8> {
    let mut out = vec![0x80, 111];
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 9]);
    out.extend_from_slice(b"twenty milliseconds of speech");
    out
}

#[test]
fn a_call_connects_and_carries_media_both_ways() {
    let mut call = Call::connected(false);
    assert!(call.events.contains(&TransportEvent::Connected));
    assert_eq!(call.server.remote(), Some(path(1)));
    let (plain, mut sealed) = call.rtp_from_client(7);
    let mut again = sealed.clone();
    match call.server.receive(call.now, path(1), &mut sealed) {
        Received::Rtp(packet) => assert_eq!(packet, plain),
        other => panic!("{other:?}"),
    }
    let replay = call.server.receive(call.now, path(1), &mut again);
    assert_eq!(replay, Received::Dropped(DropReason::SrtpReplayed));

    let plain = rtp(3);
    let mut sealed = plain.clone();
    call.server.seal_rtp(0, 12, &mut sealed, 0).unwrap();
    let opened = call.client.keys.as_mut().unwrap().open_rtp(call.now, &mut sealed);
    assert_eq!(opened.as_deref(), Ok(plain.as_slice()));
    let plain = vec![0x80, 201, 0, 1, 0, 0, 0, 9];
    let mut sealed = plain.clone();
    call.server.seal_rtcp(&mut sealed, 0).unwrap();
    let opened = call.client.keys.as_mut().unwrap().open_rtcp(call.now, &mut sealed);
    assert_eq!(opened.as_deref(), Ok(plain.as_slice()));
}

#[test]
fn sealing_needs_no_memory_beyond_the_tag() {
    let call = Call::connected(false);
    let mut buf = Vec::with_capacity(rtp(1).len() + crate::srtp::TAG_BYTES_MAX);
    buf.extend_from_slice(&rtp(1));
    let (pointer, capacity) = (buf.as_ptr(), buf.capacity());
    call.server.seal_rtp(0, 12, &mut buf, 0).unwrap();
    assert_eq!((buf.as_ptr(), buf.capacity()), (pointer, capacity));
}

#[test]
fn a_call_connects_over_a_network_that_loses_every_fifth_datagram() {
    for seed in 0..10 {
        let mut call = Call::new(false);
        (call.rng, call.loss) = (Rng::new(seed), 20);
        call.nominate();
        call.run(Duration::from_secs(10));
        assert!(call.server.is_connected(), "seed {seed}");
        assert_eq!(call.client.opened.len(), 3, "channels, seed {seed}");
    }
}

#[test]
fn a_hello_from_an_address_that_was_never_checked_is_dropped() {
    let mut call = Call::new(false);
    let hello = call.client.pump(call.now).remove(0);
    let dropped = Received::Dropped(DropReason::DtlsNotValidated);
    assert_eq!(call.server.receive(call.now, path(1), &mut hello.clone()), dropped);
    call.nominate();
    assert_eq!(call.server.receive(call.now, path(66), &mut hello.clone()), dropped);
    assert_eq!(call.server.receive(call.now, path(1), &mut hello.clone()), Received::Consumed);
    assert!(call.server.poll_transmit().is_some());
}

#[test]
fn media_from_an_address_that_was_never_checked_is_dropped() {
    let mut call = Call::connected(false);
    let (_, mut sealed) = call.rtp_from_client(1);
    let elsewhere = call.server.receive(call.now, path(66), &mut sealed);
    assert_eq!(elsewhere, Received::Dropped(DropReason::UnknownAddress));
}

#[test]
fn media_before_there_are_keys_is_dropped() {
    let mut call = Call::new(false);
    call.nominate();
    assert_eq!(call.server.receive(call.now, path(1), &mut rtp(1)), Received::Dropped(DropReason::NotConnected));
    assert_eq!(call.server.seal_rtp(0, 12, &mut rtp(1), 0), Err(SealError::NotConnected));
}

#[test]
fn a_handshake_that_overtakes_the_description_waits_for_it() {
    let mut call = Call::new(false);
    let known = call.server.remote.take().unwrap();
    call.nominate();
    call.run(Duration::from_millis(20));
    assert!(call.sent_to.is_empty(), "nothing is said to somebody unknown");
    for _ in 0..50 {
        call.server.receive(call.now, path(1), &mut [22, 254, 253, 0]);
    }
    assert_eq!(call.server.early.len(), EARLY_DATAGRAMS_MAX);
    call.server.set_remote(call.now, known);
    call.run(Duration::from_secs(3));
    assert!(call.server.is_connected());
}

#[test]
fn a_wrong_fingerprint_ends_the_peer_and_there_are_never_keys() {
    let mut call = Call::new(false);
    call.server.remote.as_mut().unwrap().fingerprint.0[0] ^= 1;
    call.nominate();
    for _ in 0..10 {
        call.carry();
    }
    assert_eq!(call.end(), Some(PeerEnd::WrongFingerprint));
    assert_eq!(call.events.last(), Some(&TransportEvent::Ended(PeerEnd::WrongFingerprint)));
    assert!(!call.events.contains(&TransportEvent::Connected));
    assert_eq!(call.server.seal_rtp(0, 12, &mut rtp(1), 0), Err(SealError::NotConnected));
    assert_eq!(call.server.receive(call.now, path(1), &mut rtp(1)), Received::Dropped(DropReason::NotConnected));
    assert_eq!(call.server.next_deadline(), None);
}

#[test]
fn another_fingerprint_in_a_later_description_ends_the_peer() {
    let mut call = Call::connected(false);
    let same = call.server.remote.unwrap();
    call.server.set_remote(call.now, same);
    assert!(call.server.is_connected());
    let mut other = same;
    other.fingerprint.0[0] ^= 1;
    call.server.set_remote(call.now, other);
    call.collect();
    assert_eq!(call.end(), Some(PeerEnd::WrongFingerprint));
}

#[test]
fn we_are_the_dtls_client_of_a_passive_peer() {
    let mut call = Call::with_role(true, DtlsRole::Server);
    assert!(!call.carry(), "nobody to talk to yet");
    call.nominate();
    call.run(Duration::from_secs(2));
    assert!(call.server.is_connected());
    assert_eq!(call.client.opened.len(), 3, "and begin the association too");
    let (plain, mut sealed) = call.rtp_from_client(7);
    assert!(matches!(call.server.receive(call.now, path(1), &mut sealed), Received::Rtp(packet) if packet == plain));
}

#[test]
fn channels_the_client_opened_carry_messages_both_ways() {
    let mut call = Call::connected(false);
    for channel in [Channel::Reliable, Channel::Lossy, Channel::DataTrack] {
        assert!(call.events.contains(&TransportEvent::ChannelOpen(channel)));
        call.send_from_client(channel, b"up");
        call.server.send(call.now, channel, b"down").unwrap();
    }
    call.send_from_client(Channel::Reliable, &vec![7; MESSAGE_BYTES_MAX]);
    call.send_from_client(Channel::Reliable, &[]);
    call.run(Duration::from_secs(1));
    let received = call.received();
    for channel in [Channel::Reliable, Channel::Lossy, Channel::DataTrack] {
        assert!(received.contains(&(channel, Bytes::from_static(b"up"))));
        assert!(call.client.messages.contains(&(channel, Bytes::from_static(b"down"))));
    }
    let of_reliable: Vec<usize> = received
        .iter()
        .filter(|(channel, _)| *channel == Channel::Reliable)
        .map(|(_, payload)| payload.len())
        .collect();
    assert_eq!(of_reliable, [2, MESSAGE_BYTES_MAX, 0]);
}

#[test]
fn channels_we_open_carry_messages_both_ways() {
    let mut call = Call::connected(true);
    assert_eq!(call.client.opened.len(), 3);
    assert_eq!(call.server.send(call.now, Channel::Lossy, b"down"), Ok(()));
    call.send_from_client(Channel::Reliable, b"up");
    call.run(Duration::from_secs(1));
    assert_eq!(call.client.messages, [(Channel::Lossy, Bytes::from_static(b"down"))]);
    assert_eq!(call.received(), [(Channel::Reliable, Bytes::from_static(b"up"))]);
}

#[test]
fn reliable_messages_arrive_in_order_over_a_bad_network() {
    let mut call = Call::connected(false);
    (call.rng, call.loss) = (Rng::new(5), 10);
    let sent: Vec<Bytes> = (0..200_u32).map(|n| Bytes::from(vec![n as u8; 1 + (n as usize * 37) % 5_000])).collect();
    for message in &sent {
        call.send_from_client(Channel::Reliable, message);
        call.server.send(call.now, Channel::Reliable, message).unwrap();
    }
    call.run(Duration::from_secs(120));
    let up: Vec<Bytes> = call.received().into_iter().map(|(_, payload)| payload).collect();
    let down: Vec<Bytes> = call.client.messages.drain(..).map(|(_, payload)| payload).collect();
    assert!(up == sent, "{} of {} up", up.len(), sent.len());
    assert!(down == sent, "{} of {} down", down.len(), sent.len());
}

#[test]
fn messages_that_are_too_large_or_have_no_channel_are_refused() {
    let mut call = Call::new(false);
    assert_eq!(call.server.send(call.now, Channel::Reliable, b"early"), Err(SendRefused::NotOpen));
    call.server.remote.as_mut().unwrap().max_message_bytes = 1_000;
    call.nominate();
    call.run(Duration::from_secs(1));
    assert_eq!(call.server.send(call.now, Channel::Reliable, &[0; 1_001]), Err(SendRefused::TooLarge));
    assert_eq!(call.server.send(call.now, Channel::Reliable, &[0; 1_000]), Ok(()));
}

#[test]
fn a_slow_receiver_loses_lossy_messages_and_is_ended_by_reliable_ones() {
    let mut call = Call::connected(false);
    let message = vec![0; 10_000];
    // Nothing is carried meanwhile: the client reads nothing.
    let lossy = (0..1_000).take_while(|_| call.server.send(call.now, Channel::Lossy, &message).is_ok()).count();
    assert!((LOSSY_BACKLOG_MAX / message.len()..20).contains(&lossy), "{lossy}");
    assert_eq!(call.server.send(call.now, Channel::Lossy, &message), Err(SendRefused::Backlog));
    assert!(call.server.is_connected());
    let reliable = (0..1_000).take_while(|_| call.server.send(call.now, Channel::Reliable, &message).is_ok()).count();
    assert!((RELIABLE_BACKLOG_MAX / message.len()..120).contains(&reliable), "{reliable}");
    call.collect();
    assert_eq!(call.end(), Some(PeerEnd::SlowReceiver));
}

#[test]
fn what_moves_the_client_moves_media_and_nothing_above_notices() {
    let mut call = Call::connected(false);
    call.path = path(2);
    let (plain, mut sealed) = call.rtp_from_client(1);
    assert!(matches!(call.server.receive(call.now, path(2), &mut sealed), Received::Dropped(_)), "not checked yet");
    call.nominate();
    assert_eq!(call.server.remote(), Some(path(2)));
    let (_, mut sealed) = call.rtp_from_client(1);
    assert!(matches!(call.server.receive(call.now, path(2), &mut sealed), Received::Rtp(packet) if packet == plain));
    call.send_from_client(Channel::Reliable, b"from elsewhere");
    call.sent_to.clear();
    call.run(Duration::from_secs(1));
    assert_eq!(call.received().last(), Some(&(Channel::Reliable, Bytes::from_static(b"from elsewhere"))));
    assert!(!call.sent_to.is_empty() && call.sent_to.iter().all(|to| *to == path(2)), "{:?}", call.sent_to);
    assert!(call.events.contains(&TransportEvent::Validated(path(2))));
}

#[test]
fn an_ice_restart_keeps_what_is_above_it() {
    let mut call = Call::connected(false);
    call.server.restart_ice(credentials("srv2"));
    assert_eq!(call.server.local_ice().ufrag, "srv2");
    call.nominate();
    let check = nomination("srv2:clnt", &credentials("srv2").pwd);
    assert_eq!(call.server.receive(call.now, path(3), &mut check.clone()), Received::Consumed);
    assert_eq!(call.server.remote(), Some(path(3)));
    let mut old = binding_request("srv1:clnt", &credentials("srv1").pwd);
    let refused = call.server.receive(call.now, path(1), &mut old);
    assert_eq!(refused, Received::Dropped(DropReason::StunNotAuthenticated));
    let (plain, mut sealed) = call.rtp_from_client(9);
    assert!(matches!(call.server.receive(call.now, path(3), &mut sealed), Received::Rtp(packet) if packet == plain));
}

#[test]
fn silence_ends_the_transport_and_traffic_puts_it_off() {
    let mut call = Call::connected(false);
    call.run_alone(Duration::from_secs(12));
    assert_eq!(call.end(), None);
    let (_, mut sealed) = call.rtp_from_client(1);
    call.server.receive(call.now, path(1), &mut sealed);
    call.run_alone(Duration::from_secs(14));
    assert_eq!(call.end(), None, "media is a sign of life");
    call.run_alone(Duration::from_secs(2));
    assert_eq!(call.end(), Some(PeerEnd::IceTimeout));
}

#[test]
fn a_lost_tcp_connection_is_silence_too() {
    let mut call = Call::connected(false);
    call.server.path_closed(path(1));
    assert_eq!(call.server.remote(), None);
    call.run_alone(Duration::from_secs(16));
    assert_eq!(call.end(), Some(PeerEnd::IceTimeout));
}

#[test]
fn who_is_described_and_never_comes_is_ended_and_who_is_not_described_may_wait() {
    let mut call = Call::new(false);
    call.run_alone(Duration::from_secs(29));
    assert_eq!(call.end(), None);
    call.run_alone(Duration::from_secs(2));
    assert_eq!(call.end(), Some(PeerEnd::NeverConnected));
    let mut waiting = Transport::new(&DtlsIdentity::generate().unwrap(), credentials("x"), false, 0);
    waiting.handle_timeout(call.start + Duration::from_secs(3_600));
    assert_eq!((waiting.next_deadline(), waiting.poll_event()), (None, None));
}

#[test]
fn a_close_is_heard_by_the_client_and_is_the_end() {
    let mut call = Call::connected(false);
    call.server.close(call.now);
    let (to, goodbye) = call.server.poll_transmit().unwrap();
    assert_eq!(to, path(1));
    call.client.dtls.receive(call.now, &goodbye).unwrap();
    assert!(std::iter::from_fn(|| call.client.dtls.poll()).any(|output| matches!(output, DtlsOutput::Closed)));
    call.collect();
    assert_eq!(call.end(), Some(PeerEnd::Asked));
    assert_eq!(call.server.remote(), None);
}

#[test]
fn a_goodbye_of_the_client_is_no_end() {
    let mut call = Call::connected(false);
    call.client.dtls.close();
    call.carry();
    assert_eq!(call.end(), None);
    assert_eq!(call.server.send(call.now, Channel::Reliable, b"?"), Err(SendRefused::NotOpen));
    let (plain, mut sealed) = call.rtp_from_client(1);
    assert!(matches!(call.server.receive(call.now, path(1), &mut sealed), Received::Rtp(packet) if packet == plain));
}

#[test]
fn an_idle_call_wakes_seldom() {
    let mut call = Call::connected(false);
    let mut wake_ups = 0;
    let end = call.now + Duration::from_secs(14);
    while let Some((at, why)) = call.server.next_deadline().filter(|(at, _)| *at <= end) {
        call.now = call.now.max(at);
        call.server.handle_timeout(call.now);
        wake_ups += 1;
        assert!(wake_ups < 20, "busy with {why:?}");
    }
}
