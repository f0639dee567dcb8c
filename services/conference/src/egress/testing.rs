//! A recorder that only remembers what it was told.

use std::sync::Arc;

use plenary_model::{Egress, EgressId};
use tokio::sync::mpsc;

use super::{Held, Recorder};

#[derive(Debug)]
pub(crate) enum Told {
    Start(Held),
    Stop(Arc<Egress>),
    Layout(Arc<Egress>),
    Fenced(u64),
}

pub(crate) struct FakeRecorder {
    told: mpsc::UnboundedSender<Told>,
}

impl FakeRecorder {
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Told>) {
        let (told, heard) = mpsc::unbounded_channel();
        (Arc::new(Self { told }), heard)
    }

    fn note(&self, told: Told) {
        // A test that is over does not listen.
        let _ = self.told.send(told);
    }
}

impl Recorder for FakeRecorder {
    fn start(&self, held: Held) {
        self.note(Told::Start(held));
    }

    fn stop(&self, egress: &Arc<Egress>) {
        self.note(Told::Stop(egress.clone()));
    }

    fn update_layout(&self, egress: &Arc<Egress>) {
        self.note(Told::Layout(egress.clone()));
    }

    fn fenced(&self, _egress: &EgressId, epoch: u64) {
        self.note(Told::Fenced(epoch));
    }
}
