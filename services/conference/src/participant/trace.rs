//! The trace of a session: one span over its life, which belongs to the trace of the join request, and under it one for
//! each stage on the way to the first packets. Log lines of a session carry its span's fields.

use opentelemetry::Context;
use plenary_model::{LeaveReason, ParticipantSid, Target};
use tracing::{
    Span,
    field::{Empty, display},
    span::EnteredSpan,
};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::metrics::label;

/// What a session's trace is made of.
#[derive(Debug)]
pub(super) struct SessionTrace {
    session: Span,
    publisher: Stages,
    subscriber: Stages,
}

/// The stages of one transport that run now, and those that have been.
#[derive(Debug, Default)]
struct Stages {
    /// From the first offer to its answer, whoever makes it.
    negotiation: Option<Span>,
    is_negotiated: bool,
    /// From the transport's beginning to the client's first check after its description.
    ice: Option<Span>,
    dtls: Option<Span>,
    is_connected: bool,
    /// From there being something to send on a connected transport to its first packet.
    first_packet: Option<Span>,
    has_media: bool,
    had_first_packet: bool,
}

impl SessionTrace {
    /// `join` is the request that the session came from.
    pub(super) fn begin(room: &str, identity: &str, sid: &ParticipantSid, join: Context) -> Self {
        // The level of errors, so that every line that is written at all says whom it concerns.
        let session =
            tracing::error_span!(parent: None, "session", room, participant = identity, sid = %sid, reason = Empty);
        // Without telemetry behind it there is no trace to belong to.
        let _ = session.set_parent(join);
        Self { session, publisher: Stages::default(), subscriber: Stages::default() }
    }

    /// For as long as the session's work goes on.
    pub(super) fn enter(&self) -> EnteredSpan {
        self.session.clone().entered()
    }

    pub(super) fn opened(&mut self, target: Target) {
        let ice =
            tracing::info_span!(parent: &self.session, "ice", transport = label(target), otel.status_code = Empty);
        *self.stages(target) = Stages { ice: Some(ice), ..Stages::default() };
    }

    /// An offer is on its way.
    pub(super) fn offered(&mut self, target: Target) {
        let session = self.session.clone();
        let stages = self.stages(target);
        if !stages.is_negotiated && stages.negotiation.is_none() {
            let transport = label(target);
            stages.negotiation =
                Some(tracing::info_span!(parent: &session, "negotiation", transport, otel.status_code = Empty));
        }
    }

    /// Its answer was taken.
    pub(super) fn answered(&mut self, target: Target) {
        let stages = self.stages(target);
        stages.is_negotiated |= stages.negotiation.take().is_some();
    }

    pub(super) fn ice_connected(&mut self, target: Target) {
        let dtls =
            tracing::info_span!(parent: &self.session, "dtls", transport = label(target), otel.status_code = Empty);
        let stages = self.stages(target);
        stages.ice = None;
        stages.dtls = Some(dtls);
    }

    pub(super) fn connected(&mut self, target: Target) {
        let stages = self.stages(target);
        stages.dtls = None;
        stages.is_connected = true;
        self.expect_packet(target);
    }

    /// There is something that this transport shall carry.
    pub(super) fn has_media(&mut self, target: Target) {
        self.stages(target).has_media = true;
        self.expect_packet(target);
    }

    pub(super) fn packet(&mut self, target: Target) {
        let stages = self.stages(target);
        stages.had_first_packet = true;
        stages.first_packet = None;
    }

    /// Stages that still run did not come to their end.
    pub(super) fn ended(&mut self, reason: LeaveReason) {
        self.session.record("reason", display(label(reason)));
        for stages in [&mut self.publisher, &mut self.subscriber] {
            let running = [&mut stages.negotiation, &mut stages.ice, &mut stages.dtls, &mut stages.first_packet];
            for stage in running.into_iter().filter_map(Option::take) {
                stage.record("otel.status_code", "error");
            }
        }
    }

    fn expect_packet(&mut self, target: Target) {
        let session = self.session.clone();
        let stages = self.stages(target);
        if stages.is_connected && stages.has_media && !stages.had_first_packet && stages.first_packet.is_none() {
            let transport = label(target);
            stages.first_packet =
                Some(tracing::info_span!(parent: &session, "first_packet", transport, otel.status_code = Empty));
        }
    }

    fn stages(&mut self, target: Target) -> &mut Stages {
        match target {
            Target::Publisher => &mut self.publisher,
            Target::Subscriber => &mut self.subscriber,
        }
    }
}
