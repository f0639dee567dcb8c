//! What this node does with the recordings that it holds: each has an actor on the thread of its room.

use std::sync::{Arc, Weak};

use plenary_model::{Egress, EgressId};

use super::Shared;
use crate::{
    egress::{Held, Recorder},
    recording::Ask,
    rooms::{StartRecording, ToRecorder},
};

/// Weak, as what it leads to holds whoever tells it.
pub(super) struct NodeRecorder(pub Weak<Shared>);

impl NodeRecorder {
    fn ask(&self, egress: &Arc<Egress>, ask: Ask) {
        if let Some(shared) = self.0.upgrade() {
            shared.rooms_for(&egress.room).do_send(ToRecorder { recording: egress.id.clone(), ask });
        }
    }
}

impl Recorder for NodeRecorder {
    fn start(&self, held: Held) {
        if let Some(shared) = self.0.upgrade() {
            shared.rooms_for(&held.egress.room).do_send(StartRecording(held));
        }
    }

    fn stop(&self, egress: &Arc<Egress>) {
        self.ask(egress, Ask::Stop(egress.clone()));
    }

    fn update_layout(&self, egress: &Arc<Egress>) {
        self.ask(egress, Ask::Change(egress.clone()));
    }

    fn fenced(&self, egress: &EgressId, epoch: u64) {
        let Some(shared) = self.0.upgrade() else { return };
        // Its room is not named, and there are few threads.
        for rooms in shared.room_threads() {
            rooms.do_send(ToRecorder { recording: egress.clone(), ask: Ask::Fence { epoch } });
        }
    }
}
