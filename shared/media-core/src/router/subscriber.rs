//! A client's subscriber transport: what it receives, in which layer, and what it says about it.
//!
//! Hot: `forward` runs once per outgoing packet. No allocation, lock, log or clock read there.

use std::time::{Duration, Instant};

use plenary_model::{MediaKind, TrackSid};

use super::{
    Random,
    counters::Counters,
    track::{Receiver, Track, Tracks},
};
use crate::{
    Deadline, DropReason, Path, PeerOptions, Wanted,
    egress::{Class, EgressQueue},
    estimate::{Ask, Estimator, LayerRate, Pace, Pausing, Rank, allocate, granted_bps, wanted_bps},
    forward::{
        Forwarder, ForwarderConfig, LayerState, Layering, Origin, OutgoingHeader, PassedExtension, Red, Repair,
        RtxConfig, Skip, Target, Written, choose_layer,
    },
    ingress::{Ingested, after},
    quality::QualityMeter,
    rtcp::{self, Packet},
    rtp::{Header, LayerId, StreamId},
    session_description::{SendSection, SendTrack, SubscriberSdp},
    transport::Transport,
};

#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) sdp: SubscriberSdp,
    /// Slots are stable, since tracks name them; a free one is `None`.
    subscriptions: Vec<Option<Subscription>>,
    /// Wanted tracks of other routers that are not known here yet, at most [`UNMET_MAX`].
    unmet: Vec<Wanted>,
    estimator: Estimator,
    pausing: Pausing,
    takes_trailers: bool,
    /// A ceiling on the estimate that the client asked for.
    cap_bits_per_second: Option<u64>,
    reports_due: Option<Instant>,
    allocation_due: Instant,
    quality: QualityMeter,
    /// Where the client was when the estimate began.
    path: Option<Path>,
}

/// One track on its way to this client.
#[derive(Debug)]
struct Subscription {
    wanted: Wanted,
    kind: MediaKind,
    ssrc: u32,
    rtx_ssrc: Option<u32>,
    /// From the answer that accepted its section on.
    forwarder: Option<Box<Forwarder>>,
    /// A first packet went out.
    flowing: bool,
    /// The path has no room for it.
    paused: bool,
    /// Some of it found the queue full. As long as not all fits no key frame is asked for before this: it would be too much
    /// again, and for all.
    skips_until: Option<Instant>,
}

impl Subscription {
    /// The layer on its way to the client: the one that flows, or was stopped just now and may wait here still.
    fn flowing_layer(&self, now: Instant) -> Option<LayerId> {
        let forwarder = self.forwarder.as_ref()?;
        let waits = self.skips_until.is_some_and(|until| now < until);
        if waits { forwarder.last_layer() } else { forwarder.current_layer() }
    }
}

/// What aiming anew led to.
#[derive(Debug, Default)]
pub(super) struct Retargeted {
    pub(super) needs: Vec<KeyframeNeed>,
    /// Tracks that were paused (`true`) or resumed for lack of room or with its return.
    pub(super) paused: Vec<(TrackSid, bool)>,
    /// Streams of which nothing that waits shall leave.
    pub(super) abandoned: Vec<u32>,
    /// How video is to leave from now on.
    pub(super) pace: Option<Pace>,
}

/// What a subscription would take, before its share is known.
struct Demand {
    kind: MediaKind,
    layering: Layering,
    wanted: Target,
    current: Target,
    layers: Vec<LayerRate>,
    priority: u32,
    rank: Rank,
    pixels: u64,
}

impl Demand {
    fn ask(&self, id: usize) -> Ask<'_> {
        let Self { kind, wanted, current, ref layers, priority, rank, pixels, .. } = *self;
        Ask { id, kind, wanted, layers, priority, rank, pixels, current, granted: Target::Off }
    }

    /// Where to aim with what was granted: who gets the best layer that is sent aims at the one that is wanted, if the
    /// encoder may begin it in the same stream.
    fn target(&self, granted: Target) -> Target {
        let best = self.layers.iter().rev().map(|layer| Target::Layer(layer.id)).find(|layer| *layer <= self.wanted);
        if self.layering == Layering::Svc && best == Some(granted) { self.wanted } else { granted }
    }
}

/// A packet of a publisher on its way to every subscriber of its track.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming<'p> {
    pub(super) stream: StreamId,
    pub(super) origin: Origin<'p>,
    pub(super) header: &'p Header,
    pub(super) ingested: &'p Ingested,
    pub(super) packet: &'p [u8],
}

/// The way out to one client.
pub(super) struct Exit<'a> {
    pub(super) transport: &'a Transport,
    pub(super) egress: &'a mut EgressQueue,
    /// Bytes of video that may wait.
    pub(super) backlog: usize,
    pub(super) counters: &'a Counters,
}

/// A stream without whose key frame somebody stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyframeNeed {
    pub(super) track: TrackSid,
    pub(super) stream: StreamId,
}

impl Subscriber {
    pub(super) fn new(now: Instant, options: &PeerOptions) -> Self {
        Self {
            sdp: SubscriberSdp::new(options.open_channels),
            subscriptions: Vec::new(),
            unmet: Vec::new(),
            estimator: Estimator::new(now),
            pausing: if options.allow_pause { Pausing::Allowed } else { Pausing::Forbidden },
            takes_trailers: options.takes_trailers,
            cap_bits_per_second: None,
            reports_due: None,
            allocation_due: after(now, ALLOCATION_INTERVAL),
            quality: QualityMeter::new(now),
            path: None,
        }
    }

    /// Hot. Rewrites one packet into the egress queue; true when it is the first of its subscription.
    pub(super) fn forward(
        &mut self,
        now: Instant,
        slot: usize,
        incoming: &Incoming<'_>,
        exit: &mut Exit<'_>,
    ) -> Result<bool, DropReason> {
        let Exit { transport, egress, backlog, counters } = exit;
        let subscription = self.subscriptions.get_mut(slot).and_then(Option::as_mut);
        let Some(Subscription { forwarder: Some(forwarder), flowing, kind, skips_until, .. }) = subscription else {
            return Ok(false);
        };
        // What comes while it still connects is not kept for it; it starts with the next key frame.
        if !transport.is_connected() {
            return Ok(false);
        }
        let class = match kind {
            MediaKind::Audio => Class::Audio,
            MediaKind::Video => Class::Video,
        };
        // Asked before a sequence number is spent. What follows a picture with a hole cannot be decoded either.
        if !egress.has_room(class, *backlog) {
            if class == Class::Video && forwarder.current_layer().is_some() {
                forwarder.stop();
                *skips_until = Some(after(now, SKIP));
            }
            return Err(DropReason::QueueFull);
        }
        let Incoming { stream, origin, header, ingested, packet } = *incoming;
        let rewritten = match forwarder.forward(now, stream, origin, header, ingested) {
            Ok(rewritten) => rewritten,
            Err(Skip::TooOld) => return Err(DropReason::TooOld),
            Err(_) => return Ok(false),
        };
        let estimator = &mut self.estimator;
        let mut sequence = None;
        let bytes = egress.append(class, |out, start| {
            let stamp = |bytes: usize| {
                sequence = Some(estimator.sent(now, bytes));
                sequence
            };
            let written = forwarder.write(&rewritten, header, packet, stamp, out);
            seal(transport, &written, out, start)?;
            Ok(sequence)
        })?;
        if sequence.is_none() {
            self.estimator.sent_unstamped(now, bytes);
        }
        counters.packets_out.add(1);
        counters.bytes_out.add(bytes);
        if self.reports_due.is_none() {
            self.reports_due = Some(after(now, REPORT_INTERVAL));
        }
        Ok(!std::mem::replace(flowing, true))
    }

    /// Hot on a path that loses much without being full: what was said a moment ago once more. What is lost twice in a row
    /// is neither in the next packet's redundancy, nor does a NACK bring it back in time.
    pub(super) fn repeat(&mut self, now: Instant, slot: usize, track: &Track, exit: &mut Exit<'_>) {
        let subscription = self.subscriptions.get_mut(slot).and_then(Option::as_mut);
        let Some(Subscription { forwarder: Some(forwarder), .. }) = subscription else { return };
        let Some(repair) = forwarder.repeat(now, REPEAT_BACK) else { return };
        if resend(now, forwarder, &repair, track, &mut self.estimator, exit).is_ok() {
            exit.counters.retransmitted.add(1);
        }
    }

    pub(super) fn is_lossy(&self, now: Instant) -> bool {
        self.estimator.is_lossy(now)
    }

    /// Takes over the whole wish. True when sections must change.
    pub(super) fn want(
        &mut self,
        now: Instant,
        slot: usize,
        wanted: Vec<Wanted>,
        tracks: &mut Tracks,
        random: &mut Random,
    ) -> bool {
        // What the client believes of a track holds on when it goes on in another codec.
        let mut paused = Vec::new();
        for place in &mut self.subscriptions {
            let is_wanted = |one: &Subscription| wanted.iter().any(|wanted| wanted.track == one.wanted.track);
            if let Some(gone) = place.take_if(|one| !is_wanted(one)) {
                if let Some(track) = tracks.get_mut(&gone.wanted.track) {
                    track.receivers.retain(|receiver| receiver.peer != slot);
                }
                paused.extend(gone.paused.then_some(gone.wanted.shown));
            }
        }
        self.unmet.clear();
        for one in wanted {
            self.subscribe(now, slot, one, &paused, tracks, random);
        }
        self.describe(tracks)
    }

    /// A track of another router is known now. True when sections must change.
    pub(super) fn track_found(
        &mut self,
        now: Instant,
        slot: usize,
        sid: &TrackSid,
        tracks: &mut Tracks,
        random: &mut Random,
    ) -> bool {
        let Some(at) = self.unmet.iter().position(|wanted| wanted.track == *sid) else { return false };
        let wanted = self.unmet.swap_remove(at);
        self.subscribe(now, slot, wanted, &[], tracks, random);
        self.describe(tracks)
    }

    /// What is wanted and not known here.
    pub(super) fn unmet(&self) -> &[Wanted] {
        &self.unmet
    }

    /// `paused`: what the client believes to be paused.
    fn subscribe(
        &mut self,
        now: Instant,
        slot: usize,
        one: Wanted,
        paused: &[TrackSid],
        tracks: &mut Tracks,
        random: &mut Random,
    ) {
        let Some(track) = tracks.get_mut(&one.track) else {
            if one.from.is_some() && self.unmet.len() < UNMET_MAX {
                self.unmet.push(one);
            }
            return;
        };
        let demand = track.demand_of(now, &one.settings);
        if let Some(receiver) = track.receivers.iter_mut().find(|receiver| receiver.peer == slot) {
            receiver.demand = demand;
        }
        match self.subscriptions.iter_mut().flatten().find(|known| known.wanted.track == one.track) {
            Some(known) => known.wanted = one,
            None => {
                let rtx_ssrc = (track.kind == MediaKind::Video).then(|| random.ssrc());
                let new = Subscription {
                    kind: track.kind,
                    ssrc: random.ssrc(),
                    rtx_ssrc,
                    forwarder: None,
                    flowing: false,
                    paused: paused.contains(&one.shown),
                    skips_until: None,
                    wanted: one,
                };
                let free = self.subscriptions.iter().position(Option::is_none);
                let at = free.unwrap_or(self.subscriptions.len());
                match self.subscriptions.get_mut(at) {
                    Some(place) => *place = Some(new),
                    None => self.subscriptions.push(Some(new)),
                }
                // Known to its track before it can flow, so that it goes when its track does.
                track.receivers.push(Receiver { peer: slot, slot: at, demand });
            }
        }
    }

    /// The track is gone. If it is another router's it may come back.
    pub(super) fn track_ended(&mut self, slot: usize, sid: &TrackSid, tracks: &mut Tracks) -> bool {
        let ended = self.subscriptions.iter().flatten().find(|one| one.wanted.track == *sid);
        let unmet = ended.map(|one| one.wanted.clone()).filter(|wanted| wanted.from.is_some());
        self.unmet.extend(unmet.filter(|_| self.unmet.len() < UNMET_MAX));
        self.drop_track(slot, sid, tracks)
    }

    /// The streams that a subscription takes or aims at: bit n is the track's nth.
    pub(super) fn streams(&self, slot: usize) -> u8 {
        let forwarder = self.subscriptions.get(slot).and_then(|one| one.as_ref()?.forwarder.as_deref());
        forwarder.map_or(0, Forwarder::streams)
    }

    /// Nothing of it is sent any more: it is gone, or its codec is not understood here.
    pub(super) fn drop_track(&mut self, slot: usize, sid: &TrackSid, tracks: &mut Tracks) -> bool {
        for place in &mut self.subscriptions {
            place.take_if(|one| one.wanted.track == *sid);
        }
        if let Some(track) = tracks.get_mut(sid) {
            track.receivers.retain(|receiver| receiver.peer != slot);
        }
        self.describe(tracks)
    }

    /// Sections that the client accepted begin to flow.
    pub(super) fn accepted(&mut self, now: Instant, sections: Vec<SendSection>, tracks: &Tracks, random: &mut Random) {
        for section in sections {
            let Some(track) = tracks.get(&section.track) else { continue };
            let waits = |one: &&mut Subscription| one.wanted.track == section.track && one.forwarder.is_none();
            let Some(subscription) = self.subscriptions.iter_mut().flatten().find(waits) else { continue };
            let rtx = subscription.rtx_ssrc.zip(section.rtx_payload_type);
            let mut forwarder = Forwarder::new(
                now,
                ForwarderConfig {
                    codec: track.codec,
                    layering: track.layering,
                    clock_rate: section.clock_rate,
                    ssrc: subscription.ssrc,
                    payload_type: section.payload_type,
                    red: track.red_payload_type.map(|from| Red { from, to: section.red_payload_type }),
                    rtx: rtx.map(|(ssrc, payload_type)| RtxConfig { ssrc, payload_type }),
                    header: outgoing_header(&section, track),
                    cuts_trailers: track.trailers && !self.takes_trailers,
                    first_sequence: random.sequence(),
                },
            );
            forwarder.set_muted(track.muted);
            subscription.forwarder = Some(Box::new(forwarder));
        }
    }

    /// Where the client is now.
    pub(super) fn on_path(&mut self, now: Instant, path: Option<Path>) {
        if path.is_some() && std::mem::replace(&mut self.path, path).is_some_and(|before| Some(before) != path) {
            self.estimator.on_new_path(now);
        }
    }

    /// Aims every subscription at the layer that suits it and that the path has room for.
    pub(super) fn retarget(&mut self, now: Instant, tracks: &Tracks) -> Retargeted {
        self.allocation_due = after(now, ALLOCATION_INTERVAL);
        let states: Vec<_> = self.subscriptions.iter().map(|one| demand(now, one.as_ref()?, tracks)).collect();
        let mut asks: Vec<_> = states.iter().enumerate().filter_map(|(at, one)| Some(one.as_ref()?.ask(at))).collect();
        self.estimator.set_wanted(now, wanted_bps(asks.iter()));
        let estimate = self.estimator.target_bps(now);
        let budget = self.cap_bits_per_second.map_or(estimate, |cap| estimate.min(cap));
        allocate(budget, self.pausing, &mut asks);
        let videos = || asks.iter().filter(|ask| ask.kind == MediaKind::Video);
        self.quality.share(granted_bps(videos()), wanted_bps(videos()));

        let pace = self.estimator.pace();
        let granted = granted_bps(asks.iter());
        let unopposed = self.cap_bits_per_second.is_none() && self.estimator.is_unopposed(now);
        let fits = granted <= budget || unopposed;
        let bits_per_second = if unopposed {
            // Nothing has shown that the path is any narrower: what goes out anyway need not wait here.
            pace.bits_per_second.max(granted.saturating_add(granted / 4))
        } else if fits {
            pace.bits_per_second.min(budget)
        } else {
            // Video that does not fit and may not go must leave room for what comes before it.
            pace.bits_per_second.min(budget.saturating_sub(budget / OVERFULL_SHARE))
        };
        let pace = Pace { bits_per_second, ..pace };
        // A layer that goes flows on until the next has a key frame, unless the path cannot carry it that long.
        let flowing = |ask: &Ask<'_>| self.subscriptions.get(ask.id)?.as_ref()?.flowing_layer(now);
        let flows =
            asks.iter().fold(0u64, |sum, ask| sum.saturating_add(flowing(ask).map_or(0, |layer| ask.rate(layer))));
        let overruns = flows > budget.saturating_add(budget / 4);
        let mut result = Retargeted { pace: Some(pace), ..Retargeted::default() };
        for ask in &asks {
            let Some(Some(subscription)) = self.subscriptions.get_mut(ask.id) else { continue };
            let too_much = subscription.flowing_layer(now).is_some_and(|layer| ask.is_too_much(layer));
            let Some(forwarder) = &mut subscription.forwarder else { continue };
            if overruns && too_much && forwarder.leaves_stream(ask.granted) {
                forwarder.abandon();
                subscription.skips_until = None;
                result.abandoned.extend([Some(subscription.ssrc), subscription.rtx_ssrc].into_iter().flatten());
            }
            let demand = states.get(ask.id).and_then(Option::as_ref);
            let target = demand.map_or(ask.granted, |demand| demand.target(ask.granted));
            if forwarder.target() != target {
                forwarder.set_target(target);
            }
            let is_paused = ask.granted == Target::Off && ask.wanted != Target::Off;
            if std::mem::replace(&mut subscription.paused, is_paused) != is_paused {
                result.paused.push((subscription.wanted.track.clone(), is_paused));
            }
            if let Some(stream) = forwarder.needs_keyframe()
                && (fits || subscription.skips_until.is_none_or(|until| until <= now))
            {
                result.needs.push(KeyframeNeed { track: subscription.wanted.track.clone(), stream });
            }
        }
        result
    }

    pub(super) fn set_muted(&mut self, slot: usize, muted: bool) {
        let subscription = self.subscriptions.get_mut(slot).and_then(Option::as_mut);
        if let Some(forwarder) = subscription.and_then(|one| one.forwarder.as_mut()) {
            forwarder.set_muted(muted);
        }
    }

    pub(super) fn cap(&mut self, bits_per_second: u64) {
        self.cap_bits_per_second = (bits_per_second > 0).then_some(bits_per_second);
    }

    pub(super) fn tracks(&self) -> impl Iterator<Item = &TrackSid> {
        self.subscriptions.iter().flatten().map(|one| &one.wanted.track)
    }

    #[cfg(test)]
    pub(super) fn track_at(&self, slot: usize) -> Option<&TrackSid> {
        self.subscriptions.get(slot)?.as_ref().map(|one| &one.wanted.track)
    }

    pub(super) fn len(&self) -> usize {
        self.subscriptions.iter().flatten().count()
    }

    /// What the client says about what it got.
    pub(super) fn on_rtcp(
        &mut self,
        now: Instant,
        datagram: &[u8],
        tracks: &Tracks,
        mut exit: Exit<'_>,
    ) -> Result<Vec<KeyframeNeed>, DropReason> {
        let mut needs = Vec::new();
        for packet in rtcp::packets(datagram) {
            match packet.map_err(|_| DropReason::RtcpMalformed)? {
                Packet::ReceiverReport { blocks, .. } | Packet::SenderReport { blocks, .. } => {
                    for block in blocks {
                        let Some(forwarder) = self.forwarder_of(block.ssrc) else { continue };
                        forwarder.acknowledged();
                        if let Some(round_trip) = forwarder.round_trip(now, &block) {
                            self.estimator.note_rtt(round_trip);
                        }
                        self.estimator.on_loss_report(now, block.fraction_lost);
                    }
                }
                Packet::Nack { media_ssrc, lost } => {
                    for sequence in lost {
                        exit.counters.nacks_received.add(1);
                        self.repair(now, media_ssrc, sequence, tracks, &mut exit);
                    }
                }
                Packet::PictureLoss { media_ssrc } => needs.extend(self.keyframe_need(media_ssrc)),
                Packet::FullIntra { ssrcs } => needs.extend(ssrcs.filter_map(|ssrc| self.keyframe_need(ssrc))),
                Packet::MaximumBitrate { bits_per_second } => self.estimator.on_remb(now, bits_per_second),
                Packet::TransportFeedback(feedback) => {
                    let (before, drained) = (self.estimator.target_bps(now), self.estimator.is_draining());
                    self.estimator.on_feedback(now, &feedback);
                    // What no longer fits is not sent any longer, and what a queue held back goes on when that is gone.
                    if self.estimator.target_bps(now) < before || drained || self.estimator.is_draining() {
                        self.allocation_due = now;
                    }
                }
                Packet::Goodbye { .. } | Packet::Other => {}
            }
        }
        Ok(needs)
    }

    /// Sender reports that are due, as compounds into `out`.
    pub(super) fn write_reports(&mut self, now: Instant, out: &mut Vec<u8>) {
        if self.reports_due.is_none_or(|at| now < at) {
            return;
        }
        self.reports_due = Some(after(now, REPORT_INTERVAL));
        for subscription in self.subscriptions.iter_mut().flatten() {
            let Some(info) = subscription.forwarder.as_mut().and_then(|forwarder| forwarder.sender_report(now)) else {
                continue;
            };
            rtcp::write_sender_report(out, subscription.ssrc, &info);
            rtcp::write_description(out, subscription.ssrc, subscription.wanted.publisher.as_str());
        }
    }

    /// A packet that waited for the pacer leaves now.
    pub(super) fn departed(&mut self, now: Instant, transport_sequence: u16) {
        self.estimator.departed(now, transport_sequence);
    }

    /// Sends what the probe under way asks for.
    pub(super) fn probe(&mut self, now: Instant, tracks: &Tracks, mut exit: Exit<'_>) {
        for back in 0..PADDING_PACKETS_MAX {
            let owed = self.estimator.probe_owed(now);
            if owed == 0 || !self.pad(now, owed, back, tracks, &mut exit) {
                return;
            }
        }
    }

    /// One packet more than media needs, of about so many bytes at most. False if there is no stream for it.
    fn pad(&mut self, now: Instant, bytes: usize, back: u64, tracks: &Tracks, exit: &mut Exit<'_>) -> bool {
        let Exit { transport, egress, counters, .. } = exit;
        if !transport.is_connected() || !egress.has_room(Class::Padding, 0) {
            return false;
        }
        let video = self.subscriptions.iter_mut().flatten().filter(|one| one.kind == MediaKind::Video);
        for Subscription { forwarder, wanted, .. } in video {
            let Some(forwarder) = forwarder else { continue };
            let estimator = &mut self.estimator;
            let mut sequence = None;
            let sent = egress.append(Class::Padding, |out, start| {
                let mut stamp = |bytes: usize| {
                    sequence = Some(estimator.sent(now, bytes));
                    sequence
                };
                // An old packet may fill a gap of which the client has not told yet.
                let old = forwarder.replay(back).and_then(|repair| {
                    let stream = tracks.get(&wanted.track)?.stream(repair.stream)?;
                    let packet =
                        Some(stream).filter(|stream| stream.ssrc() == repair.source_ssrc)?.store().get(repair.index)?;
                    (packet.len() <= bytes).then_some((repair, (packet, stream.frame_number(packet))))
                });
                let written = match old {
                    Some((repair, packet)) => forwarder.write_repair(now, &repair, packet, stamp, out),
                    None => forwarder.write_padding(padding_bytes(bytes), &mut stamp, out),
                };
                seal(transport, &written.ok_or(DropReason::NotConnected)?, out, start)?;
                Ok(sequence)
            });
            if sent.is_ok() {
                counters.padding_out.add(1);
                return true;
            }
        }
        false
    }

    /// How well media gets to the client, if that is news.
    pub(super) fn quality(&mut self, now: Instant, silence: Duration) -> Option<f32> {
        let (lost, told) = self.estimator.take_told();
        self.quality.packets(lost, told);
        self.quality.round_trip(self.estimator.rtt());
        self.quality.close(now, silence)
    }

    pub(super) fn is_allocation_due(&self, now: Instant) -> bool {
        self.allocation_due <= now
    }

    pub(super) fn next_deadline(&self, now: Instant) -> Option<(Instant, Deadline)> {
        let probe = self.estimator.next_probe(now).map(|at| (at, Deadline::Probe));
        let allocation = (self.len() > 0).then_some((self.allocation_due, Deadline::Allocation));
        let reports = self.reports_due.map(|at| (at, Deadline::Reports));
        probe.into_iter().chain(allocation).chain(reports).min_by_key(|(at, _)| *at)
    }

    fn describe(&mut self, tracks: &Tracks) -> bool {
        let sent: Vec<_> = self
            .subscriptions
            .iter()
            .flatten()
            .filter_map(|one| {
                let track = tracks.get(&one.wanted.track)?;
                Some(SendTrack {
                    track: track.sid.clone(),
                    shown: one.wanted.shown.clone(),
                    publisher: one.wanted.publisher.clone(),
                    kind: track.kind,
                    codec: track.send_codec.clone(),
                    ssrc: one.ssrc,
                    rtx_ssrc: one.rtx_ssrc,
                    stereo: track.stereo,
                })
            })
            .collect();
        self.sdp.want(&sent)
    }

    fn repair(&mut self, now: Instant, ssrc: u32, sequence: u16, tracks: &Tracks, exit: &mut Exit<'_>) {
        let round_trip = self.estimator.rtt();
        let found = self.subscriptions.iter_mut().flatten().find(|one| one.ssrc == ssrc);
        let Some(Subscription { forwarder: Some(forwarder), wanted, .. }) = found else {
            return exit.counters.count_drop(DropReason::NackUnknown);
        };
        let outcome = match (forwarder.repair(now, round_trip, sequence), tracks.get(&wanted.track)) {
            (Ok(repair), Some(track)) => resend(now, forwarder, &repair, track, &mut self.estimator, exit),
            (Err(why), _) => Err(why.reason()),
            (_, None) => Err(DropReason::NackUnknown),
        };
        match outcome {
            Ok(()) => exit.counters.retransmitted.add(1),
            Err(reason) => exit.counters.count_drop(reason),
        }
    }

    fn forwarder_of(&mut self, ssrc: u32) -> Option<&mut Forwarder> {
        self.subscriptions.iter_mut().flatten().find(|one| one.ssrc == ssrc)?.forwarder.as_deref_mut()
    }

    fn keyframe_need(&self, ssrc: u32) -> Option<KeyframeNeed> {
        let subscription = self.subscriptions.iter().flatten().find(|one| one.ssrc == ssrc)?;
        let stream = subscription.forwarder.as_ref()?.current_stream()?;
        Some(KeyframeNeed { track: subscription.wanted.track.clone(), stream })
    }
}

/// Sends a packet of the track again.
fn resend(
    now: Instant,
    forwarder: &mut Forwarder,
    repair: &Repair,
    track: &Track,
    estimator: &mut Estimator,
    exit: &mut Exit<'_>,
) -> Result<(), DropReason> {
    let Exit { transport, egress, backlog, .. } = exit;
    let stream = track.stream(repair.stream).filter(|stream| stream.ssrc() == repair.source_ssrc);
    let stream = stream.ok_or(DropReason::NackUnknown)?;
    let missing = || if stream.awaits(repair.index) { DropReason::NackAwaited } else { DropReason::NackUnknown };
    let packet = stream.store().get(repair.index).ok_or_else(missing)?;
    let stored = (packet, stream.frame_number(packet));
    // Audio is as urgent the second time.
    let class = if track.kind == MediaKind::Audio { Class::Audio } else { Class::Repair };
    if !egress.has_room(class, *backlog) {
        return Err(DropReason::QueueFull);
    }
    let appended = egress.append(class, |out, start| {
        let mut sequence = None;
        let stamp = |bytes: usize| {
            sequence = Some(estimator.sent(now, bytes));
            sequence
        };
        let written = forwarder.write_repair(now, repair, stored, stamp, out).ok_or(DropReason::RtpMalformed)?;
        seal(transport, &written, out, start)?;
        Ok(sequence)
    });
    appended.map(drop)
}

/// Seals the packet that stands at `start`.
fn seal(transport: &Transport, written: &Written, out: &mut Vec<u8>, start: usize) -> Result<(), DropReason> {
    let roc = u32::try_from(written.extended >> 16 & 0xffff_ffff).unwrap_or_default();
    transport.seal_rtp(roc, written.header_bytes, out, start).map_err(|_| DropReason::NotConnected)
}

/// RFC 3550 5.1: one byte counts the padding.
fn padding_bytes(wanted: usize) -> u8 {
    u8::try_from(wanted).unwrap_or(u8::MAX).max(PADDING_BYTES_MIN)
}

fn outgoing_header(section: &SendSection, track: &Track) -> OutgoingHeader {
    let passed = |(from, to): (Option<u8>, Option<u8>)| Some(PassedExtension { from: from?, to: to? });
    let (from, to) = (&track.extensions, &section.extensions);
    OutgoingHeader {
        mid: section.mid.clone(),
        mid_id: section.extensions.mid,
        transport_sequence_id: section.extensions.transport_sequence,
        audio_level: passed((from.audio_level, to.audio_level)),
        dependency: passed((from.dependency, to.dependency)),
    }
}

fn demand(now: Instant, subscription: &Subscription, tracks: &Tracks) -> Option<Demand> {
    let track = tracks.get(&subscription.wanted.track)?;
    let forwarder = subscription.forwarder.as_ref()?;
    let settings = &subscription.wanted.settings;
    let states = track.layer_states(now, settings.fps);
    let wanted = match subscription.kind {
        MediaKind::Audio if settings.disabled => Target::Off,
        MediaKind::Audio => Target::Layer(LayerId::spatial_layer(0)),
        MediaKind::Video => choose_layer(settings, &states),
    };
    Some(Demand {
        kind: subscription.kind,
        layering: track.layering,
        wanted,
        current: forwarder.target(),
        layers: ladder(now, track, &states),
        priority: settings.priority,
        rank: track.rank(now),
        pixels: u64::from(settings.width).saturating_mul(u64::from(settings.height)),
    })
}

/// What the estimate may choose from, low to high: the spatial layers that are sent, and below them the lowest with fewer
/// pictures. A step that takes nothing more is none.
fn ladder(now: Instant, track: &Track, states: &[LayerState]) -> Vec<LayerRate> {
    let sent: Vec<_> = states.iter().filter(|state| state.alive).collect();
    let fewer = sent.first().map(|lowest| {
        let top = track.top_temporal(lowest.spatial).min(lowest.temporal);
        (0..top).map(|temporal| LayerId::new(lowest.spatial, temporal))
    });
    let ids = fewer.into_iter().flatten().chain(sent.iter().map(|state| state.id()));
    let mut ladder: Vec<LayerRate> = Vec::new();
    for id in ids {
        let bits_per_second = track.bits_per_second(now, id);
        ladder.retain(|lower| lower.bits_per_second < bits_per_second || lower.id.temporal() == id.temporal());
        ladder.push(LayerRate { id, bits_per_second });
    }
    ladder
}

/// Packets of audio that lie between one and its repetition: 40 ms at the usual 20 ms, longer than most bursts of loss and
/// shorter than playout buffers on such paths.
const REPEAT_BACK: u64 = 2;
/// livekit-protocol 5.3: often enough for lip sync.
const REPORT_INTERVAL: Duration = Duration::from_secs(3);

/// As many as a session keeps of its client's wishes.
const UNMET_MAX: usize = 4_096;

/// Also of taps.
pub(super) const ALLOCATION_INTERVAL: Duration = Duration::from_millis(200);

/// So much of the estimate stays free when more is granted than it says: a sixth.
const OVERFULL_SHARE: u64 = 6;
/// Between two tries to send a video that does not fit and must not be paused.
const SKIP: Duration = Duration::from_secs(2);
/// Of a probe, at one time.
const PADDING_PACKETS_MAX: u64 = 64;
/// Smaller packets say little about a rate.
const PADDING_BYTES_MIN: u8 = 100;
