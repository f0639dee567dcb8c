//! This node's lease: says every second that the node lives, hears who else does, and removes the people of who does not.

use std::{sync::Arc, time::Instant};

use plenary_cluster::{Lease, RENEW_INTERVAL, Reaped};
use plenary_model::NodeInfo;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    events::{LeaseNotRenewed, NodesReaped, StoreFailed},
    node::Shared,
    rooms::{HostRoom, Lapsed, Parted},
};

/// For as long as the node runs.
pub async fn hold(shared: Arc<Shared>) {
    let mut tick = interval(RENEW_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lease = Lease::default();
    let (mut fails, mut renewals) = (false, 0u64);
    loop {
        tick.tick().await;
        let asked = Instant::now();
        let has_lapsed = match shared.store.renew(info(&shared)).await {
            Ok(renewed) => {
                renewals = renewals.wrapping_add(1);
                shared.reach.part(asked, &renewed.nodes);
                let parted = shared.reach.parted();
                if !parted.is_empty() {
                    let parted = Parted(Arc::new(parted));
                    shared.room_threads().for_each(|rooms| rooms.do_send(parted.clone()));
                }
                let has_lapsed = lease.renewed(&renewed);
                let is_back = shared.reach.renewed(Instant::now());
                if is_back {
                    shared.neighbours.keep(Instant::now());
                }
                if shared.neighbours.replace(Instant::now(), renewed.nodes) || is_back {
                    shared.introduce_routers();
                }
                if has_lapsed {
                    shared.room_threads().for_each(|rooms| rooms.do_send(Lapsed));
                }
                fails = false;
                has_lapsed
            }
            Err(error) => {
                lease.unanswered();
                LeaseNotRenewed.emit();
                if shared.reach.lost() {
                    shared.introduce_routers();
                }
                if !std::mem::replace(&mut fails, true) {
                    StoreFailed { error }.emit();
                }
                // To the other nodes these people are gone. Elsewhere they are together again.
                if shared.reach.is_left_behind(Instant::now()) {
                    shared.move_everybody().await;
                }
                continue;
            }
        };
        if has_lapsed || renewals.is_multiple_of(LOOK_EVERY) {
            shared.store_doubted.notify_one();
        }
        // The next second brings another chance.
        if let Ok(Reaped { nodes, deserted }) = shared.store.reap().await
            && !nodes.is_empty()
        {
            NodesReaped { nodes }.emit();
            // Whoever comes back does so in a moment. If nobody does, the room ends here, and host apps hear of it.
            for room in deserted {
                shared.rooms_for(&room).do_send(HostRoom(room));
            }
        }
    }
}

fn info(shared: &Shared) -> NodeInfo {
    NodeInfo {
        node: shared.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: shared.state(),
        routers: shared.neighbours.own_routers(),
        records: shared.recording.directory.is_some(),
    }
}

/// Renewals of a lease between looks at what no break made doubtful, which also end hints that are over.
const LOOK_EVERY: u64 = 60;
