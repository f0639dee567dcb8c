//! What the router is asked to do, one method per command. Nothing here runs per packet.

use std::time::Instant;

use plenary_model::{Channel, PeerId, Target as PeerTarget, TrackSid};

use super::{
    Router,
    peer::{Peer, Role},
    publisher::Publisher,
    subscriber::Subscriber,
    track::{Track, TrackOrigin},
};
use crate::{
    Announced, Candidate, Command, DropReason, Event, IceCredentials, PeerEnd, PeerOptions, Protocol, Refusal, Wanted,
    egress::{EgressQueue, Pacer},
    rtp::Codec,
    session_description::{LocalParameters, PublisherAnswer},
    transport::{SendRefused, Transport},
};

impl Router {
    pub(super) fn on_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Open { peer, participant, target, ice, options } => {
                self.open(now, peer, participant, target, ice, options);
            }
            Command::Close { peer } => self.close(now, peer, PeerEnd::Asked),
            Command::Offer { peer, sdp, announced, restart } => {
                if let Err(why) = self.answer(now, peer, &sdp, &announced, restart) {
                    self.events.push_back(Event::Refused { peer, why });
                }
            }
            Command::MakeOffer { peer, restart } => self.make_offer(peer, restart),
            Command::Answer { peer, sdp } => match self.accept(now, peer, &sdp) {
                Ok(()) => self.events.push_back(Event::Accepted { peer }),
                Err(why) => self.events.push_back(Event::Refused { peer, why }),
            },
            Command::Want { peer, tracks } => self.want(now, peer, tracks),
            Command::Tap { track, from } => self.tap(now, track, from),
            Command::RefreshTap { track } => self.refresh_tap(now, &track),
            Command::Untap { track } => self.untap(now, &track),
            // What is published elsewhere is muted and ended there.
            Command::SetMuted { track, muted } if self.is_published_here(&track) => self.set_muted(now, &track, muted),
            Command::Unpublish { track } if self.is_published_here(&track) => self.unpublish(&track),
            Command::SetMuted { .. } | Command::Unpublish { .. } => {}
            Command::SetNeighbours { routers } => self.set_neighbours(now, routers),
            Command::SetReachesStore { reaches } => self.set_reaches_store(now, reaches),
            Command::WriteLetter { to, number, letter } => self.write_letter(now, &to, number, letter),
            Command::Send { peers, channel, payload } => {
                for peer in peers {
                    self.send(now, peer, channel, &payload);
                }
            }
            Command::CapBandwidth { peer, bits_per_second } => {
                if let Some(Role::Subscriber(subscriber)) = self.peers.get_mut(peer).map(|peer| &mut peer.role) {
                    subscriber.cap(bits_per_second);
                }
            }
        }
    }
}

impl Router {
    fn open(
        &mut self,
        now: Instant,
        id: PeerId,
        participant: plenary_model::ParticipantSid,
        target: PeerTarget,
        ice: IceCredentials,
        options: PeerOptions,
    ) {
        if self.peers.slot(id).is_some() {
            return;
        }
        self.book.expect(&ice.ufrag, id);
        let role = match target {
            PeerTarget::Publisher => {
                Role::Publisher(Box::new(Publisher::new(now, self.random.ssrc(), options.refused_codecs.clone())))
            }
            PeerTarget::Subscriber => Role::Subscriber(Box::new(Subscriber::new(now, &options))),
        };
        let transport = Transport::new(&self.identity, ice, options.open_channels, self.config.data_bytes_per_second);
        self.peers.insert(Peer {
            id,
            participant,
            transport,
            role,
            egress: EgressQueue::default(),
            pacer: Pacer::new(now, crate::estimate::START_BPS_WHOLE),
            is_ready: false,
            tcp_only: options.tcp_only,
        });
        self.counters.peers.set(self.peers.len());
    }

    /// Forgets a peer with everything it published and received.
    pub(super) fn close(&mut self, now: Instant, id: PeerId, why: PeerEnd) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.transport.close(now);
        // Its goodbye leaves before it is forgotten.
        while let Some((path, datagram)) = peer.transport.poll_transmit() {
            super::send_control(&mut self.control, &self.counters, path, datagram);
        }
        let Some((slot, peer)) = self.peers.remove(id) else { return };
        self.book.remove(id);
        self.timers.remove(id);
        self.pacing.remove(id);
        // Its slot may be somebody else's before the next datagram leaves.
        self.ready.retain(|ready| *ready != slot);
        match peer.role {
            Role::Publisher(publisher) => {
                let tracks: Vec<_> = publisher.tracks().cloned().collect();
                for track in tracks {
                    self.unpublish(&track);
                }
            }
            Role::Subscriber(subscriber) => {
                self.counters.subscriptions.moved(subscriber.len(), 0);
                let tracks: Vec<_> = subscriber.tracks().cloned().collect();
                for track in &tracks {
                    if let Some(track) = self.tracks.get_mut(track) {
                        track.receivers.retain(|receiver| receiver.peer != slot);
                    }
                }
                self.tell_demands(&tracks);
            }
        }
        self.links.stir(now);
        self.counters.peers.set(self.peers.len());
        if why != PeerEnd::Asked {
            self.events.push_back(Event::Closed { peer: id, why });
        }
    }

    fn answer(
        &mut self,
        now: Instant,
        id: PeerId,
        sdp: &str,
        announced: &[Announced],
        restart: IceCredentials,
    ) -> Result<(), Refusal> {
        let Some(peer) = self.peers.get_mut(id) else { return Ok(()) };
        let Role::Publisher(publisher) = &mut peer.role else { return Err(Refusal::NotExpected) };
        let local = LocalParameters {
            ice: peer.transport.local_ice(),
            restart: &restart,
            fingerprint: self.identity.fingerprint(),
            candidates: self.candidate_lines.for_peer(peer.tcp_only),
            limits: self.config.sdp,
            refused_codecs: &publisher.refused_codecs,
        };
        let PublisherAnswer { sdp, remote, ice_restarted, receive, published, gone } =
            publisher.sdp.answer(sdp, announced, &local)?;
        for track in &published {
            let Some(announced) = announced.iter().find(|one| one.track == track.track) else { continue };
            let codec = Codec::of_mime(&track.mime).ok_or(Refusal::Missing("codec"))?;
            let section = receive.iter().find(|section| section.track == track.track);
            let section = section.ok_or(Refusal::Missing("section"))?;
            let mut new = Track::new(announced, peer.participant.clone(), id, codec, section);
            self.links.name(&mut new);
            self.tracks.insert(track.track.clone(), new);
        }
        publisher.set_sections(receive);
        if ice_restarted {
            self.book.expect(&restart.ufrag, id);
            peer.transport.restart_ice(restart);
        }
        peer.transport.set_remote(now, remote);
        for track in &gone {
            self.unpublish(track);
        }
        self.counters.tracks.set(self.tracks.len());
        self.events.push_back(Event::Answered { peer: id, sdp, published, gone });
        self.links.stir(now);
        self.settle(now, id);
        Ok(())
    }

    fn make_offer(&mut self, id: PeerId, restart: Option<IceCredentials>) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Role::Subscriber(subscriber) = &mut peer.role else { return };
        if let Some(ice) = restart {
            self.book.expect(&ice.ufrag, id);
            peer.transport.restart_ice(ice);
        }
        let ice = peer.transport.local_ice();
        let local = LocalParameters {
            ice,
            restart: ice,
            fingerprint: self.identity.fingerprint(),
            candidates: self.candidate_lines.for_peer(peer.tcp_only),
            limits: self.config.sdp,
            refused_codecs: &[],
        };
        let sdp = subscriber.sdp.offer(&local);
        self.events.push_back(Event::Offered { peer: id, sdp });
    }

    fn accept(&mut self, now: Instant, id: PeerId, sdp: &str) -> Result<(), Refusal> {
        let slot = self.peers.slot(id);
        let Some((slot, peer)) = slot.and_then(|slot| Some((slot, self.peers.at(slot)?))) else { return Ok(()) };
        let Role::Subscriber(subscriber) = &mut peer.role else { return Err(Refusal::NotExpected) };
        let answer = subscriber.sdp.accept(sdp, self.config.sdp)?;
        peer.transport.set_remote(now, answer.remote);
        subscriber.accepted(now, answer.send, &self.tracks, &mut self.random);
        let before = subscriber.len();
        for track in &answer.undecodable {
            subscriber.drop_track(slot, track, &mut self.tracks);
            self.events.push_back(Event::Undecodable { peer: id, track: track.clone() });
        }
        self.counters.subscriptions.moved(before, subscriber.len());
        let retargeted = subscriber.retarget(now, &self.tracks);
        self.tell_demands(&answer.undecodable);
        self.links.stir(now);
        self.retargeted(now, id, retargeted);
        self.settle(now, id);
        Ok(())
    }

    fn want(&mut self, now: Instant, id: PeerId, mut wanted: Vec<Wanted>) {
        for one in &mut wanted {
            one.from.take_if(|from| self.links.is_own(from));
        }
        let slot = self.peers.slot(id);
        let Some((slot, peer)) = slot.and_then(|slot| Some((slot, self.peers.at(slot)?))) else { return };
        let Role::Subscriber(subscriber) = &mut peer.role else { return };
        let before = subscriber.len();
        let mut touched: Vec<_> = subscriber.tracks().cloned().collect();
        touched.extend(wanted.iter().map(|one| one.track.clone()));
        let changed = subscriber.want(now, slot, wanted, &mut self.tracks, &mut self.random);
        self.counters.subscriptions.moved(before, subscriber.len());
        let retargeted = subscriber.retarget(now, &self.tracks);
        self.tell_demands(&touched);
        self.links.stir(now);
        if changed {
            self.events.push_back(Event::OfferNeeded { peer: id });
        }
        self.retargeted(now, id, retargeted);
        self.settle(now, id);
    }

    fn is_published_here(&self, sid: &TrackSid) -> bool {
        self.tracks.get(sid).is_some_and(Track::is_local)
    }

    pub(super) fn set_muted(&mut self, now: Instant, sid: &TrackSid, muted: bool) {
        let Some(track) = self.tracks.get_mut(sid) else { return };
        track.muted = muted;
        track.version = self.links.next_version();
        self.links.stir(now);
        for receiver in track.receivers.clone() {
            let Some(peer) = self.peers.at(receiver.peer) else { continue };
            let id = peer.id;
            if let Role::Subscriber(subscriber) = &mut peer.role {
                subscriber.set_muted(receiver.slot, muted);
                let retargeted = subscriber.retarget(now, &self.tracks);
                self.retargeted(now, id, retargeted);
            }
        }
        self.aim_taps(now);
        self.tell_demands(std::slice::from_ref(sid));
    }

    /// Tells publishers what of these tracks is wanted, where that changed.
    pub(super) fn tell_demands(&mut self, tracks: &[TrackSid]) {
        for sid in tracks {
            let Some(track) = self.tracks.get_mut(sid) else { continue };
            let Some(top) = track.changed_demand() else { continue };
            match track.origin {
                TrackOrigin::Peer(peer) => self.events.push_back(Event::Demand { peer, track: sid.clone(), top }),
                // Told with what else is wanted over the link.
                TrackOrigin::Link(_) => {}
            }
        }
    }

    /// The track is gone, from here or from where it is published.
    pub(super) fn unpublish(&mut self, sid: &TrackSid) {
        let Some(track) = self.tracks.remove(sid) else { return };
        self.links.forget_track(sid);
        self.taps.forget(sid);
        self.tell_gone(&track);
        for receiver in &track.receivers {
            let Some(peer) = self.peers.at(receiver.peer) else { continue };
            let Role::Subscriber(subscriber) = &mut peer.role else { continue };
            let before = subscriber.len();
            let changed = subscriber.track_ended(receiver.peer, sid, &mut self.tracks);
            self.counters.subscriptions.moved(before, subscriber.len());
            if changed {
                self.events.push_back(Event::OfferNeeded { peer: peer.id });
            }
        }
        self.counters.tracks.set(self.tracks.len());
    }

    fn send(&mut self, now: Instant, id: PeerId, channel: Channel, payload: &[u8]) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        match peer.transport.send(now, channel, payload) {
            Ok(()) | Err(SendRefused::SlowReceiver) => {}
            Err(SendRefused::Backlog) => self.counters.count_drop(DropReason::LossyBacklog),
            Err(SendRefused::TooLarge) => self.counters.count_drop(DropReason::MessageTooLarge),
            Err(SendRefused::NotOpen) => self.counters.count_drop(DropReason::UnknownChannel),
        }
        self.settle(now, id);
    }
}

impl Candidate {
    /// The candidate as an SDP attribute's value (RFC 8839 5.1). UDP before TCP, and the first address before the others.
    pub(super) fn line(&self, position: usize) -> String {
        let preference = 65_535u32.saturating_sub(u32::try_from(position).unwrap_or(u32::MAX));
        let (address, port) = (self.address.ip(), self.address.port());
        // RFC 8445 5.1.2.1: type preference 126 for host candidates; TCP is rated below UDP.
        let (kind, tail) = match self.protocol {
            Protocol::Udp => ((126u32 << 24) | (preference << 8) | 255, format!("udp {{}} {address} {port} typ host")),
            Protocol::Tcp => {
                ((90u32 << 24) | (preference << 8) | 255, format!("tcp {{}} {address} {port} typ host tcptype passive"))
            }
        };
        let foundation = position.saturating_add(1);
        format!("candidate:{foundation} 1 {}", tail.replacen("{}", &kind.to_string(), 1))
    }
}
