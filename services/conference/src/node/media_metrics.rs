//! What media threads count, offered to the scrape. Registered once per router; nothing here runs per packet.

use std::sync::Arc;

use plenary_media_core::{Count, Counters, DropReason};

use super::RouterHandle;
use crate::{
    media_router::counters::{IoCounters, IoLoss},
    metrics::{Observed, label, observe},
};

pub(super) fn register(router: &RouterHandle) {
    let count = |observed, direction: Option<&str>, read: fn(&Counters) -> &Count| {
        let labels: Vec<_> = direction.map(|name| ("direction", name.to_owned())).into_iter().collect();
        let counters = Arc::clone(&router.counters);
        observe(observed, &labels, move || read(&counters).get());
    };
    count(Observed::RtpPackets, Some("in"), |all| &all.packets_in);
    count(Observed::RtpPackets, Some("out"), |all| &all.packets_out);
    count(Observed::RtpIo, Some("in"), |all| &all.bytes_in);
    count(Observed::RtpIo, Some("out"), |all| &all.bytes_out);
    count(Observed::NacksSent, None, |all| &all.nacks_sent);
    count(Observed::PlisSent, None, |all| &all.keyframe_requests);
    count(Observed::LinkPackets, Some("in"), |all| &all.link_packets_in);
    count(Observed::LinkPackets, Some("out"), |all| &all.link_packets_out);
    count(Observed::LinkIo, Some("in"), |all| &all.link_bytes_in);
    count(Observed::LinkIo, Some("out"), |all| &all.link_bytes_out);
    count(Observed::LinkRetransmitted, None, |all| &all.link_retransmitted);
    count(Observed::LinkLost, None, |all| &all.link_lost);
    count(Observed::LinkCuts, None, |all| &all.link_cuts);
    for reason in DropReason::ALL {
        let counters = Arc::clone(&router.counters);
        observe(Observed::MediaDrops, &[("reason", label(reason))], move || counters.dropped(reason));
    }
    for why in IoLoss::ALL {
        let io: Arc<IoCounters> = Arc::clone(&router.io);
        observe(Observed::IoLosses, &[("reason", label(why))], move || io.lost(why));
    }
}
