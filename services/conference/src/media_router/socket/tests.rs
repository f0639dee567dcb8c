use std::{net::Ipv4Addr, thread, time::Duration};

use plenary_media_core::{Path, Protocol as PathProtocol};

use super::*;

#[tokio::test]
async fn a_run_is_one_message_and_arrives_as_datagrams_in_order() {
    let (mut socket, counters) = socket(Offload::Off);
    if socket.sender.gso == Gso::Off {
        return; // a kernel before 4.18
    }
    let client = Client::new();
    let bytes = run_of(3, 100, 40);
    send_all(&mut socket, &[client.run(&bytes, 100)]);
    client.expect_cut(&bytes, 100);
    assert_eq!((counters.messages_out.value(), counters.datagrams_out.value()), (1, 4));
    assert_eq!(counters.runs()[3], 1);
    assert_eq!(counters.bytes_out.value(), 340);
}

#[tokio::test]
async fn without_the_offload_a_run_goes_out_datagram_by_datagram() {
    let (mut socket, counters) = socket(Offload::Off);
    socket.sender.gso = Gso::Off;
    let client = Client::new();
    let bytes = run_of(3, 100, 40);
    send_all(&mut socket, &[client.run(&bytes, 100)]);
    client.expect_cut(&bytes, 100);
    assert_eq!((counters.messages_out.value(), counters.runs()[0]), (4, 4));
}

#[tokio::test]
async fn a_device_that_cannot_cut_is_remembered_and_nothing_is_lost() {
    let (mut socket, counters) = socket(Offload::Off);
    socket.sender.gso = Gso::On { refusals: 0 };
    socket.sender.refuse_runs = Some(libc::EIO);
    let client = Client::new();
    let bytes = run_of(5, 200, 200);
    send_all(&mut socket, &[client.single(b"before"), client.run(&bytes, 200), client.run(&bytes, 200)]);
    assert_eq!(client.next(), b"before");
    client.expect_cut(&bytes, 200);
    client.expect_cut(&bytes, 200);
    assert_eq!(socket.sender.gso, Gso::Off);
    assert_eq!(counters.lost(IoLoss::RunRefused), 1);
}

#[tokio::test]
async fn one_path_that_refuses_runs_does_not_cost_the_others_theirs() {
    let (mut socket, counters) = socket(Offload::Off);
    socket.sender.gso = Gso::On { refusals: 0 };
    let client = Client::new();
    let bytes = run_of(2, 200, 7);
    for refusals in 1..GSO_REFUSALS_MAX {
        socket.sender.refuse_runs = Some(libc::EINVAL);
        send_all(&mut socket, &[client.run(&bytes, 200)]);
        client.expect_cut(&bytes, 200);
        assert_eq!(socket.sender.gso, Gso::On { refusals });
    }
    socket.sender.refuse_runs = None;
    send_all(&mut socket, &[client.run(&bytes, 200)]);
    client.expect_cut(&bytes, 200);
    assert_eq!(socket.sender.gso, Gso::On { refusals: 0 }, "a run that goes out starts the count anew");

    socket.sender.refuse_runs = Some(libc::EINVAL);
    for _ in 0..GSO_REFUSALS_MAX {
        send_all(&mut socket, &[client.run(&bytes, 200)]);
        client.expect_cut(&bytes, 200);
    }
    assert_eq!(socket.sender.gso, Gso::Off);
    assert_eq!(counters.lost(IoLoss::RunRefused), u64::from(2 * GSO_REFUSALS_MAX - 1));
}

#[tokio::test]
async fn a_batch_larger_than_a_call_reaches_everybody_in_order() {
    let (mut socket, _) = socket(Offload::Off);
    let clients = [Client::new(), Client::new()];
    let payloads: Vec<[u8; 2]> = (0..200u16).map(u16::to_be_bytes).collect();
    let batch: Vec<_> = payloads.iter().enumerate().map(|(n, payload)| clients[n % 2].single(payload)).collect();
    send_all(&mut socket, &batch);
    for (n, payload) in payloads.iter().enumerate() {
        assert_eq!(clients[n % 2].next(), payload);
    }
}

#[tokio::test]
async fn a_destination_that_refuses_is_passed_over_and_counted() {
    let (mut socket, counters) = socket(Offload::Off);
    let client = Client::new();
    // Broadcasting needs a permission that was not asked for.
    let forbidden = Path { protocol: PathProtocol::Udp, remote: (Ipv4Addr::BROADCAST, 9).into() };
    let forbidden = Transmit { path: forbidden, bytes: b"lost", segment_bytes: None };
    let too_large = vec![0; 65_536];
    send_all(&mut socket, &[forbidden, client.single(&too_large), client.single(b"through")]);
    assert_eq!(client.next(), b"through");
    assert_eq!(counters.lost(IoLoss::NotPermitted), 1);
    assert_eq!(counters.lost(IoLoss::TooLarge), 1);
}

#[tokio::test]
async fn joined_datagrams_are_delivered_one_by_one() {
    for gro in [Offload::On, Offload::Off] {
        let (mut receiver, counters) = socket(gro);
        let (mut sender, _) = socket(Offload::Off);
        let bytes = run_of(6, 150, 33);
        let to = Path { protocol: PathProtocol::Udp, remote: receiver.fd.get_ref().local_addr().unwrap() };
        send_all(&mut sender, &[Transmit { path: to, bytes: &bytes, segment_bytes: Some(150) }]);
        let from = sender.fd.get_ref().local_addr().unwrap();
        let received = receive(&mut receiver, 7).await;
        let expected: Vec<_> = bytes.chunks(150).map(|datagram| (from, datagram.to_vec())).collect();
        assert_eq!(received, expected);
        assert_eq!((counters.datagrams_in.value(), counters.bytes_in.value()), (7, 933));
    }
}

#[tokio::test]
async fn datagrams_that_are_read_together_keep_the_times_they_came_at() {
    for gro in [Offload::On, Offload::Off] {
        let (mut receiver, _) = socket(gro);
        let to = receiver.fd.get_ref().local_addr().unwrap();
        let client = Client::new();
        // The kernel begins to stamp some time after the first socket asked it to, hence the attempts.
        let mut apart = Vec::new();
        while apart.iter().all(|apart| *apart < Duration::from_millis(15)) {
            assert!(apart.len() < 50, "never told apart: {apart:?}");
            client.0.send_to(b"one", to).unwrap();
            thread::sleep(Duration::from_millis(20));
            client.0.send_to(b"two", to).unwrap();
            let (mut came, now) = (Vec::new(), present());
            let mut deliver = |_, received, _: &mut [u8]| came.push(received);
            let read = std::future::poll_fn(|cx| receiver.poll_receive(cx, now, &mut deliver)).await;
            assert_eq!(read, 2, "one call reads both");
            assert!(came.is_sorted() && came.iter().all(|came| *came <= now.monotonic), "{came:?}");
            apart.push(came[1] - came[0]);
        }
    }
}

#[tokio::test]
async fn a_datagram_that_media_never_sends_is_dropped() {
    let (mut receiver, counters) = socket(Offload::Off);
    let client = Client::new();
    let to = receiver.fd.get_ref().local_addr().unwrap();
    client.0.send_to(&[0; DATAGRAM_BYTES_MAX + 1], to).unwrap();
    client.0.send_to(b"next", to).unwrap();
    assert_eq!(receive(&mut receiver, 1).await[0].1, b"next");
    assert_eq!(counters.lost(IoLoss::Truncated), 1);
}

#[test]
fn runs_are_cut_by_what_the_kernel_takes() {
    let cases = [
        // (rest, segment, offload), (bytes of the message, segment)
        ((1_000, None, true), (1_000, None)),
        ((1_000, Some(1_000), true), (1_000, None)),
        ((1_000, Some(2_000), true), (1_000, None)),
        ((1_000, Some(0), true), (1_000, None)),
        ((1_001, Some(1_000), true), (1_001, Some(1_000))),
        ((1_001, Some(1_000), false), (1_000, None)),
        ((100_000, Some(1_200), true), (54 * 1_200, Some(1_200))),
        ((100_000, Some(10), true), (640, Some(10))),
        ((200_000, Some(70_000), true), (70_000, None)),
        ((0, Some(10), true), (0, None)),
    ];
    for ((rest, segment, runs), expected) in cases {
        assert_eq!(cut(rest, segment, runs), expected, "{rest} bytes in {segment:?}, runs {runs}");
    }
}

#[test]
fn names_survive_the_way_through_the_kernel_structures() {
    for (written, read) in [
        ("192.0.2.7:65535", "192.0.2.7:65535"),
        ("[2001:db8::7]:1", "[2001:db8::7]:1"),
        ("[fe80::1%3]:443", "[fe80::1%3]:443"),
    ] {
        let mut name = empty_name();
        write_name(&mut name, written.parse().unwrap());
        assert_eq!(read_name(&name), Some(read.parse().unwrap()));
    }
    let flow = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, 5, 0);
    let mut name = empty_name();
    write_name(&mut name, flow.into());
    assert_eq!(read_name(&name), Some("[::1]:1".parse().unwrap()), "the flow label names no path");
    assert_eq!(read_name(&empty_name()), None);
}

struct Client(std::net::UdpSocket);

impl Client {
    fn new() -> Self {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Self(socket)
    }

    fn run<'a>(&self, bytes: &'a [u8], segment: usize) -> Transmit<'a> {
        Transmit { segment_bytes: Some(segment), ..self.single(bytes) }
    }

    fn single<'a>(&self, bytes: &'a [u8]) -> Transmit<'a> {
        let path = Path { protocol: PathProtocol::Udp, remote: self.0.local_addr().unwrap() };
        Transmit { path, bytes, segment_bytes: None }
    }

    fn next(&self) -> Vec<u8> {
        let mut bytes = [0; 4_096];
        let read = self.0.recv(&mut bytes).expect("a datagram");
        bytes[..read].to_vec()
    }

    fn expect_cut(&self, bytes: &[u8], segment: usize) {
        for datagram in bytes.chunks(segment) {
            assert_eq!(self.next(), datagram);
        }
    }
}

fn socket(gro: Offload) -> (UdpSocket, Arc<IoCounters>) {
    let counters = Arc::new(IoCounters::default());
    let socket = bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
    (UdpSocket::new(socket, Offload::On, gro, Arc::clone(&counters)).unwrap(), counters)
}

/// Full segments and a last one, each byte telling its place.
fn run_of(full: usize, segment: usize, last: usize) -> Vec<u8> {
    (0..full * segment + last).map(|n| (n % 251) as u8).collect()
}

fn send_all(socket: &mut UdpSocket, batch: &[Transmit<'_>]) {
    assert_eq!(socket.send(batch), batch.len());
}

fn present() -> Moment {
    Moment { monotonic: Instant::now(), wall: SystemTime::now() }
}

async fn receive(socket: &mut UdpSocket, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut received = Vec::new();
    let all = std::future::poll_fn(|cx| {
        while received.len() < count {
            let mut deliver = |from, _, bytes: &mut [u8]| received.push((from, bytes.to_vec()));
            std::task::ready!(socket.poll_receive(cx, present(), &mut deliver));
        }
        Poll::Ready(())
    });
    tokio::time::timeout(Duration::from_secs(5), all).await.expect("all datagrams");
    received
}
