//! A DTLS handshake between two ends of ours in whose datagrams somebody meddles.

use std::{
    collections::VecDeque,
    sync::LazyLock,
    time::{Duration, Instant},
};

use super::Tape;
use crate::dtls::{Dtls, DtlsIdentity, DtlsOutput, DtlsRole, Fingerprint};

/// Certificates take long to make, and what is in them does not matter here.
pub(super) static OURS: LazyLock<DtlsIdentity> = LazyLock::new(|| DtlsIdentity::generate().expect("an identity"));
pub(super) static THEIRS: LazyLock<DtlsIdentity> = LazyLock::new(|| DtlsIdentity::generate().expect("an identity"));

pub(super) fn fingerprint(identity: &DtlsIdentity) -> Fingerprint {
    let bytes = identity.fingerprint().split(':').map(|byte| u8::from_str_radix(byte, 16).expect("two digits"));
    Fingerprint(bytes.collect::<Vec<_>>().try_into().expect("32 bytes"))
}

/// The first byte says which end is meddled with, the next ones what becomes of each datagram to it. When they are used
/// up the handshake goes on undisturbed.
pub(super) fn dtls(input: &[u8]) {
    let mut tape = Tape::new(input);
    let role = if tape.byte() & 1 == 0 { DtlsRole::Server } else { DtlsRole::Client };
    let other = if role == DtlsRole::Server { DtlsRole::Client } else { DtlsRole::Server };
    let mut now = Instant::now();
    let mut victim = Dtls::new(now, &OURS, role, fingerprint(&THEIRS)).expect("an endpoint");
    let mut peer = Dtls::new(now, &THEIRS, other, fingerprint(&OURS)).expect("an endpoint");
    let mut to_victim = VecDeque::new();
    for _ in 0..TURNS_MAX {
        while let Some(output) = peer.poll() {
            match output {
                DtlsOutput::Datagram(datagram) => to_victim.push_back(datagram),
                DtlsOutput::Connected(_) => drop(peer.send(now, b"the first message")),
                DtlsOutput::Data(_) | DtlsOutput::Closed => {}
            }
        }
        let datagram = if tape.is_empty() { to_victim.pop_front() } else { meddle(&mut tape, &mut to_victim) };
        match datagram {
            Some(datagram) => {
                // An end is an end: junk from an address that was checked may cause one.
                if victim.receive(now, &datagram).is_err() {
                    return;
                }
            }
            None if tape.is_empty() => return,
            None => {
                now += Duration::from_millis(u64::from(tape.byte()));
                if victim.handle_timeout(now).is_err() || peer.handle_timeout(now).is_err() {
                    return;
                }
            }
        }
        let mut said = 0;
        while let Some(output) = victim.poll() {
            said += 1;
            match output {
                DtlsOutput::Datagram(datagram) => {
                    assert!(datagram.len() <= 1_500, "{} bytes", datagram.len());
                    if peer.receive(now, &datagram).is_err() {
                        return;
                    }
                }
                DtlsOutput::Connected(_) => drop(victim.send(now, b"and its answer")),
                DtlsOutput::Data(data) => assert_eq!(data, b"the first message", "nothing else was ever sealed"),
                DtlsOutput::Closed => {}
            }
        }
        assert!(said <= ANSWERS_MAX, "{said} answers to one datagram");
    }
}

/// What arrives instead of the next datagram; nothing lets time pass.
fn meddle(tape: &mut Tape<'_>, queue: &mut VecDeque<Vec<u8>>) -> Option<Vec<u8>> {
    match tape.byte() % 8 {
        0 => queue.pop_front(),
        1 => {
            queue.pop_front();
            None
        }
        2 => queue.front().cloned(),
        3 => {
            queue.rotate_left(usize::from(!queue.is_empty()));
            queue.pop_front()
        }
        4 => Some(tape.bytes().to_vec()),
        5 => {
            let mut datagram = queue.pop_front()?;
            datagram.truncate(usize::from(tape.half()));
            Some(datagram)
        }
        6 => {
            // Anywhere, the lengths in the headers of records and fragments included.
            let mut datagram = queue.pop_front()?;
            for _ in 0..=tape.byte() % 4 {
                let (at, value) = (usize::from(tape.half()), tape.byte());
                if let Some(byte) = datagram.get_mut(at) {
                    *byte = value;
                }
            }
            Some(datagram)
        }
        _ => {
            // More behind the last record of the datagram.
            let mut datagram = queue.pop_front()?;
            datagram.extend_from_slice(tape.bytes());
            Some(datagram)
        }
    }
}

const TURNS_MAX: usize = 256;
const ANSWERS_MAX: usize = 256;
