//! Faults on demand, for the tests of isolation: a client that sets this attribute on itself names what shall panic.
//! No release build has it.

use actix::{Addr, Context, Handler, Message};
use plenary_room_core::signal::ClientSignal;

use crate::{
    media_router::{Core, MediaRouter},
    node::RouterHandle,
    recording::Recorder,
    room::Room,
};

#[cfg(all(feature = "fault-injection", not(debug_assertions)))]
compile_error!("fault-injection is for debug builds alone");

/// From a session on which it was wished, to its room or its router, and from there to who records the room.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Panic;

/// From a session, to its room.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct PanicRecorders;

/// On the session's thread, within its handling of the signal.
pub(crate) fn obey(signal: &ClientSignal, room: Option<Addr<Room>>, router: &RouterHandle) {
    let ClientSignal::UpdateMetadata { attributes, .. } = signal else { return };
    match attributes.get(ATTRIBUTE).map(String::as_str) {
        Some("participant") => panic!("told to"),
        Some("room") => room.into_iter().for_each(|room| room.do_send(Panic)),
        Some("recorder") => room.into_iter().for_each(|room| room.do_send(PanicRecorders)),
        Some("media_router") => router.addr.do_send(Panic),
        _ => {}
    }
}

impl Handler<Panic> for Room {
    type Result = ();

    fn handle(&mut self, Panic: Panic, _: &mut Context<Self>) {
        panic!("told to");
    }
}

impl Handler<PanicRecorders> for Room {
    type Result = ();

    fn handle(&mut self, PanicRecorders: PanicRecorders, _: &mut Context<Self>) {
        self.recorders.iter().for_each(|recorder| recorder.do_send(Panic));
    }
}

impl Handler<Panic> for Recorder {
    type Result = ();

    fn handle(&mut self, Panic: Panic, _: &mut Context<Self>) {
        panic!("told to");
    }
}

impl<C: Core> Handler<Panic> for MediaRouter<C> {
    type Result = ();

    fn handle(&mut self, Panic: Panic, _: &mut Context<Self>) {
        panic!("told to");
    }
}

const ATTRIBUTE: &str = "plenary.fault";
