//! The parent of the media routers: starts them, hears of their death, starts another in the same place.
//!
//! It also hands on the requests that other nodes, or this node's own room API, address to rooms here.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, PoisonError},
    time::Duration,
};

use actix::{Actor, AsyncContext, Context, Handler, Message, Recipient, WrapFuture};
use plenary_cluster::{Inbox, Request};
use plenary_media_core::{DtlsIdentity, LinkConfig, Router, RouterConfig, RouterId, SdpLimits};
use plenary_model::{AdminRefusal, RouterInfo};
use secrecy::ExposeSecret;
use tokio::sync::{oneshot, watch};
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{RouterHandle, Shared, media_metrics};
use crate::{
    config::{Media, Settings},
    events::{PanicCaught, RouterNotRebuilt},
    ids,
    media_router::{
        self, RouterEnded, RouterIndex, RouterSettings, Stop,
        counters::IoCounters,
        socket::Offload,
        tcp::{Adopt, TcpDoor},
    },
    neighbours::OwnRouter,
    room::Administer,
    rooms::{FindRoom, RouterLost},
    telemetry,
};

pub(super) struct Supervisor {
    media: Media,
    /// Secrets that routers know each other by: the cluster's, or this node's own; none for a router that is alone.
    link_keys: Vec<Vec<u8>>,
    link_bits_per_second: u64,
    limits: crate::config::Limits,
    identity: DtlsIdentity,
    shared: Arc<Shared>,
    /// The routers by index, for the TCP door.
    adopting: watch::Sender<Vec<Recipient<Adopt>>>,
    tcp: Option<TcpDoor>,
    /// Bound ports by router, so that one that is rebuilt takes its predecessor's.
    ports: Vec<u16>,
}

/// From the node, once.
#[derive(Message)]
#[rtype(result = "io::Result<()>")]
pub(super) struct StartRouters;

/// From the node, once.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ServeInbox(pub Inbox);

/// From the node, after its people are gone.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StopRouters;

impl Supervisor {
    pub(super) fn new(settings: &Settings, identity: DtlsIdentity, shared: Arc<Shared>) -> Self {
        Self {
            media: settings.media.clone(),
            link_keys: link_keys(settings),
            link_bits_per_second: settings.cluster.as_ref().map_or(0, |cluster| cluster.link_bits_per_second),
            limits: settings.limits.clone(),
            identity,
            shared,
            adopting: watch::Sender::new(Vec::new()),
            tcp: None,
            ports: Vec::new(),
        }
    }

    fn start_router(&self, index: RouterIndex, port: u16, ctx: &Context<Self>) -> io::Result<RouterHandle> {
        let settings = RouterSettings {
            bind: vec![self.media.bind],
            udp_port: port,
            gso: Offload::On,
            gro: Offload::On,
            reach: self.shared.reach.clone(),
            letters: self.shared.letters.clone(),
        };
        let (identity, advertise) = (self.identity.clone(), self.media.advertise.clone());
        let tcp_port = self.tcp.as_ref().map(|door| door.local.port());
        let sdp = SdpLimits { bytes: self.limits.sdp_bytes, sections: self.limits.sdp_sections };
        let data_bytes_per_second = self.limits.data_bytes_per_second;
        let parent = ctx.address().downgrade().recipient();
        let (boot, at) = (ids::seed(), usize::from(index));
        let link = u16::try_from(at).ok().filter(|_| !self.link_keys.is_empty()).map(|index| LinkConfig {
            me: RouterId { node: self.shared.node.clone(), boot, index },
            keys: self.link_keys.clone(),
            bits_per_second_max: self.link_bits_per_second,
        });
        let build = move |_: std::time::Instant, local: &[SocketAddr]| {
            let udp_port = local.first().map(SocketAddr::port);
            let candidates = candidates(&advertise, udp_port, tcp_port);
            let config = RouterConfig { candidates, seed: ids::seed(), sdp, data_bytes_per_second, link };
            Router::new(config, identity)
        };
        let router = media_router::start(&settings, index, parent, build)?;
        let port = router.local.first().map_or(port, SocketAddr::port);
        let addresses = self.media.advertise.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        let local = router.local.iter().copied().map(reachable_here).collect();
        self.shared.neighbours.set_own(at, OwnRouter { info: RouterInfo { boot, addresses }, local });
        Ok(Arc::new(router))
    }

    /// Another router in the place of one that died. Until it is there, sessions on it end as they begin, and their clients
    /// try again.
    fn rebuild(&mut self, index: RouterIndex, ctx: &mut Context<Self>) {
        let at = usize::from(index);
        let port = self.ports.get(at).copied().unwrap_or_default();
        match self.start_router(index, port, ctx) {
            Ok(router) => {
                self.replace(at, router);
                self.shared.introduce_routers();
            }
            Err(error) => {
                RouterNotRebuilt { error: error.to_string() }.emit();
                ctx.run_later(REBUILD_PAUSE, move |supervisor, ctx| supervisor.rebuild(index, ctx));
            }
        }
        // Also for those who came since the last attempt, to the router that is no more.
        for rooms in self.shared.room_threads() {
            rooms.do_send(RouterLost);
        }
    }

    fn replace(&mut self, at: usize, router: RouterHandle) {
        media_metrics::register(&router);
        self.adopting.send_modify(|routers| {
            let recipient = router.addr.clone().recipient();
            match routers.get_mut(at) {
                Some(place) => *place = recipient,
                None => routers.push(recipient),
            }
        });
        let mut routers = self.shared.routers.write().unwrap_or_else(PoisonError::into_inner);
        match routers.get_mut(at) {
            Some(place) => *place = router,
            None => routers.push(router),
        }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;
}

impl Handler<StartRouters> for Supervisor {
    type Result = io::Result<()>;

    fn handle(&mut self, StartRouters: StartRouters, ctx: &mut Self::Context) -> Self::Result {
        let address = SocketAddr::new(self.media.bind, self.media.tcp_port);
        self.tcp = Some(TcpDoor::open(address, self.adopting.subscribe(), Arc::new(IoCounters::default()))?);
        let ports: Vec<u16> = self.media.udp_ports().collect();
        for (at, port) in ports.into_iter().enumerate() {
            let index = u16::try_from(at).ok().and_then(RouterIndex::new);
            let index = index.ok_or_else(|| io::Error::other("more media threads than a node can have"))?;
            let router = self.start_router(index, port, ctx)?;
            self.ports.push(router.local.first().map_or(port, SocketAddr::port));
            self.replace(at, router);
        }
        self.shared.introduce_routers();
        Ok(())
    }
}

impl Handler<RouterEnded> for Supervisor {
    type Result = ();

    fn handle(&mut self, RouterEnded { index, crashed }: RouterEnded, ctx: &mut Self::Context) {
        if !crashed {
            return;
        }
        PanicCaught { what: "media_router" }.emit();
        self.rebuild(index, ctx);
    }
}

impl Handler<ServeInbox> for Supervisor {
    type Result = ();

    fn handle(&mut self, ServeInbox(mut inbox): ServeInbox, ctx: &mut Self::Context) {
        let shared = self.shared.clone();
        let serve = async move {
            while let Some((Request { room, what, trace }, reply)) = inbox.next().await {
                let span = tracing::info_span!("administer", otel.kind = "server", room = room.as_str());
                // Without telemetry behind it there is no trace to belong to.
                let _ = span.set_parent(telemetry::continued(trace.as_deref()));
                let (answers, answer) = oneshot::channel();
                match shared.rooms_for(&room).send(FindRoom(room)).await {
                    Ok(Some(room)) => room.do_send(Administer { what, reply: answers }),
                    _ => drop(answers.send(Err(AdminRefusal::NoSuchRoom))),
                }
                let answered = async move {
                    if let Ok(answer) = answer.await {
                        // Whoever asked may have given up.
                        let _ = reply.send(answer);
                    }
                };
                actix::spawn(answered.instrument(span));
            }
        };
        ctx.spawn(serve.into_actor(self));
    }
}

impl Handler<StopRouters> for Supervisor {
    type Result = ();

    fn handle(&mut self, StopRouters: StopRouters, _: &mut Self::Context) {
        self.tcp = None;
        for router in self.shared.routers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            router.addr.do_send(Stop);
        }
    }
}

fn link_keys(settings: &Settings) -> Vec<Vec<u8>> {
    match &settings.cluster {
        Some(cluster) => cluster.keys.iter().map(|key| key.expose_secret().as_bytes().to_vec()).collect(),
        None if settings.media.threads > 1 => vec![ids::random::<LINK_KEY_BYTES>().to_vec()],
        None => Vec::new(),
    }
}

/// Where another router of this machine finds who listens here.
fn reachable_here(local: SocketAddr) -> SocketAddr {
    let ip = match local.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, local.port())
}

/// Where clients reach the media: every advertised address, by UDP and by TCP.
fn candidates(
    advertise: &[IpAddr],
    udp_port: Option<u16>,
    tcp_port: Option<u16>,
) -> Vec<plenary_media_core::Candidate> {
    use plenary_media_core::{Candidate, Protocol};
    let on = |protocol, port: Option<u16>| {
        let port = port.into_iter();
        port.flat_map(move |port| {
            advertise.iter().map(move |ip| Candidate { protocol, address: SocketAddr::new(*ip, port) })
        })
    };
    on(Protocol::Udp, udp_port).chain(on(Protocol::Tcp, tcp_port)).collect()
}

const LINK_KEY_BYTES: usize = 32;
const REBUILD_PAUSE: Duration = Duration::from_secs(1);
