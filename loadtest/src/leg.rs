//! One transport of a client: checks, handshake and data channels until it stands, and what keeps it standing.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use plenary_media_core::IceCredentials;
use plenary_testkit::light::{Context, Identity, Transport};

use crate::{channels::Channels, datagrams::Datagrams};

/// Not to be confused with its socket, which it shares.
pub struct Leg {
    address: Ipv4Addr,
    labels: &'static [&'static str],
    standing: Option<Standing>,
}

struct Standing {
    server: SocketAddrV4,
    transport: Transport,
    channels: Option<Channels>,
    /// The server has answered a check.
    checked: bool,
    next_check: Instant,
    next_timers: Instant,
}

impl Leg {
    /// The client opens the channels with these labels.
    pub fn new(address: Ipv4Addr, labels: &'static [&'static str]) -> Self {
        Self { address, labels, standing: None }
    }

    /// The server's description. Of later ones only new credentials concern us: a resumed session is checked with those.
    pub fn describe(&mut self, now: Instant, identity: &Identity, sdp: &str) -> Result<()> {
        let value = |name: &str| sdp.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let ufrag = value("a=ice-ufrag:").context("a ufrag")?;
        let ice = IceCredentials { ufrag, pwd: value("a=ice-pwd:").context("a password")? };
        if let Some(standing) = &mut self.standing {
            if standing.transport.ice.ufrag != ice.ufrag {
                standing.transport.ice = ice;
                standing.next_check = now;
            }
            return Ok(());
        }
        let server = sdp.lines().find_map(udp_candidate).context("a UDP candidate on IPv4")?;
        let transport = Transport::new(now, identity, ice);
        let standing =
            Standing { server, transport, channels: None, checked: false, next_check: now, next_timers: now };
        self.standing = Some(standing);
        Ok(())
    }

    pub fn is_connected(&self) -> bool {
        self.standing.as_ref().is_some_and(|standing| standing.transport.is_connected)
    }

    /// Seals what is sent, opens what is received.
    pub fn keys(&mut self) -> Option<&mut (Context, Context)> {
        self.standing.as_mut()?.transport.keys.as_mut()
    }

    pub fn send(&self, socket: &Datagrams, datagram: &[u8]) -> Result<()> {
        self.standing.as_ref().map_or(Ok(()), |standing| socket.send(self.address, standing.server, datagram))
    }

    /// A STUN or DTLS datagram.
    pub fn receive(&mut self, now: Instant, socket: &Datagrams, datagram: &[u8]) -> Result<()> {
        let Some(standing) = &mut self.standing else { return Ok(()) };
        let mut out = Vec::new();
        match datagram {
            [0x01, 0x01, ..] if !standing.checked => {
                standing.checked = true;
                standing.next_check = now + CHECK_INTERVAL;
                out = standing.transport.handshake(now, None);
            }
            [20..=63, ..] => out = standing.transport.handshake(now, Some(datagram)),
            _ => {}
        }
        if standing.transport.is_connected {
            let channels = match &mut standing.channels {
                Some(channels) => channels,
                none => none.insert(Channels::new(self.labels)?),
            };
            for packet in std::mem::take(&mut standing.transport.application) {
                channels.receive(now, packet)?;
            }
            for packet in channels.packets(now) {
                out.extend(standing.transport.send(now, &packet));
            }
        }
        out.iter().try_for_each(|datagram| socket.send(self.address, standing.server, datagram))
    }

    pub fn handle_timeout(&mut self, now: Instant, socket: &Datagrams) -> Result<()> {
        let Some(standing) = self.standing.as_mut().filter(|standing| standing.next_timers <= now) else {
            return Ok(());
        };
        standing.next_timers = now + TIMERS_INTERVAL;
        let mut out = Vec::new();
        if standing.next_check <= now {
            standing.next_check = now + if standing.checked { CHECK_INTERVAL } else { CHECK_AGAIN };
            out.push(standing.transport.check());
        }
        if standing.checked && !standing.transport.is_connected {
            out.extend(standing.transport.handshake(now, None));
        }
        if let Some(channels) = &mut standing.channels {
            for packet in channels.packets(now) {
                out.extend(standing.transport.send(now, &packet));
            }
        }
        out.iter().try_for_each(|datagram| socket.send(self.address, standing.server, datagram))
    }
}

/// RFC 8839 5.1: foundation, component, transport, priority, address, port, "typ", type.
fn udp_candidate(line: &str) -> Option<SocketAddrV4> {
    let mut words = line.strip_prefix("a=candidate:")?.split(' ');
    words.nth(1)?;
    words.next().filter(|transport| transport.eq_ignore_ascii_case("udp"))?;
    words.next()?;
    Some(SocketAddrV4::new(words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// As Chromium does on a stable connection.
const CHECK_INTERVAL: Duration = Duration::from_millis(2_500);
const CHECK_AGAIN: Duration = Duration::from_millis(50);
const TIMERS_INTERVAL: Duration = Duration::from_millis(20);
