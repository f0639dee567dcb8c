//! Handshakes against the same implementation at the other end, in virtual time.

use super::*;
use crate::testing::Rng;

/// Two ends and a network between them.
struct Pair {
    client: Dtls,
    server: Dtls,
    now: Instant,
    rng: Rng,
    /// Datagrams in a hundred that get lost, either way.
    loss: u64,
    client_said: Vec<DtlsOutput>,
    server_said: Vec<DtlsOutput>,
}

impl Pair {
    fn new(seed: u64, loss: u64) -> Self {
        let (ours, theirs) = (DtlsIdentity::generate().unwrap(), DtlsIdentity::generate().unwrap());
        let now = Instant::now();
        Self {
            client: Dtls::new(now, &theirs, DtlsRole::Client, fingerprint(&ours)).unwrap(),
            server: Dtls::new(now, &ours, DtlsRole::Server, fingerprint(&theirs)).unwrap(),
            now,
            rng: Rng::new(seed),
            loss,
            client_said: Vec::new(),
            server_said: Vec::new(),
        }
    }

    /// Carries datagrams and lets time pass until both are quiet or `limit` is over.
    fn run(&mut self, limit: Duration) -> Result<(), PeerEnd> {
        let end = self.now + limit;
        for _ in 0..10_000 {
            if self.carry()? {
                continue;
            }
            let next = [self.client.deadline(), self.server.deadline()].into_iter().flatten().min();
            match next.filter(|at| *at <= end) {
                Some(at) if !self.is_done() => self.now = self.now.max(at),
                _ => return Ok(()),
            }
            self.client.handle_timeout(self.now)?;
            self.server.handle_timeout(self.now)?;
        }
        panic!("never quiet");
    }

    fn carry(&mut self) -> Result<bool, PeerEnd> {
        let mut moved = false;
        while let Some(output) = self.client.poll() {
            moved = true;
            match output {
                DtlsOutput::Datagram(_) if self.rng.below(100) < self.loss => {}
                DtlsOutput::Datagram(datagram) => self.server.receive(self.now, &datagram)?,
                other => self.client_said.push(other),
            }
        }
        while let Some(output) = self.server.poll() {
            moved = true;
            match output {
                DtlsOutput::Datagram(_) if self.rng.below(100) < self.loss => {}
                DtlsOutput::Datagram(datagram) => self.client.receive(self.now, &datagram)?,
                other => self.server_said.push(other),
            }
        }
        Ok(moved)
    }

    fn is_done(&self) -> bool {
        keys(&self.client_said).is_some() && keys(&self.server_said).is_some()
    }
}

fn keys(said: &[DtlsOutput]) -> Option<&Keys> {
    said.iter().find_map(|output| match output {
        DtlsOutput::Connected(keys) => keys.as_deref(),
        _ => None,
    })
}

fn fingerprint(identity: &DtlsIdentity) -> Fingerprint {
    Fingerprint::of(&identity.certificate.certificate)
}

#[test]
fn both_ends_connect_with_the_same_keys_and_the_dearest_cipher() {
    let mut pair = Pair::new(1, 0);
    pair.run(Duration::from_secs(1)).unwrap();
    let (client, server) = (keys(&pair.client_said).unwrap(), keys(&pair.server_said).unwrap());
    assert_eq!(format!("{server:?}"), "Keys { profile: Aes256Gcm, .. }");
    let mut packet = vec![0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 7, 7, 7];
    let plain = packet.clone();
    client.seal_rtp(0, 12, &mut packet, 0).unwrap();
    let DtlsOutput::Connected(Some(mut server)) = pair.server_said.remove(0) else { panic!("not the first output") };
    assert_eq!(server.open_rtp(pair.now, &mut packet).as_deref(), Ok(plain.as_slice()));
}

#[test]
fn a_handshake_survives_a_network_that_loses_every_fifth_datagram() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed, 20);
        pair.run(Duration::from_secs(5)).unwrap();
        assert!(pair.is_done(), "seed {seed}");
    }
}

#[test]
fn a_wrong_fingerprint_ends_the_handshake_before_there_are_keys() {
    for role in [DtlsRole::Server, DtlsRole::Client] {
        let mut pair = Pair::new(1, 0);
        match role {
            DtlsRole::Server => pair.server.expected.0[31] ^= 1,
            DtlsRole::Client => pair.client.expected.0[31] ^= 1,
        }
        assert_eq!(pair.run(Duration::from_secs(1)), Err(PeerEnd::WrongFingerprint));
        let deceived = if role == DtlsRole::Server { &pair.server_said } else { &pair.client_said };
        assert!(deceived.is_empty(), "{deceived:?}");
    }
}

/// Chromium's hello with post-quantum key shares is larger than a datagram.
#[test]
fn a_hello_in_two_datagrams_is_put_together_in_either_order() {
    for swapped in [false, true] {
        let (ours, theirs) = (DtlsIdentity::generate().unwrap(), DtlsIdentity::generate().unwrap());
        let now = Instant::now();
        let small = Config::builder().mtu(80).build().unwrap();
        let small = DtlsIdentity { config: Arc::new(small), ..theirs };
        let mut client = Dtls::new(now, &small, DtlsRole::Client, fingerprint(&ours)).unwrap();
        let server = Dtls::new(now, &ours, DtlsRole::Server, fingerprint(&small)).unwrap();
        let mut hello: Vec<Vec<u8>> = std::iter::from_fn(|| client.poll_datagram()).collect();
        assert!(hello.len() >= 2, "{} datagrams of {} bytes", hello.len(), hello[0].len());
        if swapped {
            hello.reverse();
        }
        let mut pair = Pair { client, server, now, ..Pair::new(1, 0) };
        for datagram in hello {
            pair.server.receive(now, &datagram).unwrap();
        }
        pair.run(Duration::from_secs(5)).unwrap();
        assert!(pair.is_done(), "swapped: {swapped}");
    }
}

#[test]
fn messages_cross_and_goodbye_is_heard() {
    let mut pair = Pair::new(1, 0);
    pair.run(Duration::from_secs(1)).unwrap();
    let message = vec![7; MESSAGE_MAX];
    pair.client.send(pair.now, &message).unwrap();
    pair.client.send(pair.now, &vec![8; MESSAGE_MAX + 1]).unwrap();
    pair.run(Duration::from_secs(1)).unwrap();
    let heard: Vec<_> = pair.server_said.iter().filter(|output| matches!(output, DtlsOutput::Data(_))).collect();
    assert!(matches!(heard.as_slice(), [DtlsOutput::Data(data)] if *data == message), "the larger one is not sent");
    pair.client.close();
    pair.run(Duration::from_secs(1)).unwrap();
    assert!(matches!(pair.server_said.last(), Some(DtlsOutput::Closed)));
    assert!(pair.server.send(pair.now, b"anybody there?").is_ok(), "what nobody hears harms nobody");
}

#[test]
fn junk_and_replays_do_not_end_what_is_connected() {
    let mut pair = Pair::new(1, 0);
    let mut recorded = Vec::new();
    while let Some(datagram) = pair.client.poll_datagram() {
        recorded.push(datagram.clone());
        pair.server.receive(pair.now, &datagram).unwrap();
    }
    pair.run(Duration::from_secs(1)).unwrap();
    let mut rng = Rng::new(3);
    for n in 0..500 {
        let (length, kind) = (1 + rng.below(200) as usize, 20 + rng.below(44) as u8);
        let mut junk = rng.bytes(length);
        junk[0] = kind;
        pair.server.receive(pair.now, &junk).unwrap_or_else(|end| panic!("junk {n}: {end:?}"));
        let replay = &recorded[rng.below(recorded.len() as u64) as usize];
        pair.server.receive(pair.now, replay).unwrap_or_else(|end| panic!("replay {n}: {end:?}"));
    }
    pair.client.send(pair.now, b"still here").unwrap();
    pair.run(Duration::from_secs(1)).unwrap();
    assert!(matches!(pair.server_said.last(), Some(DtlsOutput::Data(data)) if data == b"still here"));
}

#[test]
fn a_quiet_connection_asks_for_no_wake_up_in_the_past() {
    let mut pair = Pair::new(1, 0);
    pair.run(Duration::from_secs(1)).unwrap();
    let mut wake_ups = 0;
    let end = pair.now + Duration::from_secs(600);
    while let Some(at) = pair.server.deadline().filter(|at| *at <= end) {
        pair.now = pair.now.max(at);
        pair.server.handle_timeout(pair.now).unwrap();
        wake_ups += 1;
        assert!(wake_ups < 20, "busy");
    }
}

#[test]
fn neither_identity_nor_handshake_print_secrets() {
    let identity = DtlsIdentity::generate().unwrap();
    assert_eq!(identity.fingerprint().len(), 95);
    assert_eq!(format!("{identity:?}"), format!("DtlsIdentity {{ fingerprint: {:?}, .. }}", identity.fingerprint()));
}
