//! The bare process. A datagram says what it is by its first byte: somebody registers for a room, or sends to one, or says
//! something that concerns nobody. A turn is one wake of epoll, `recvmmsg` until the socket is empty, and for each run of
//! packets of one size a copy for each subscriber, sealed with a key of theirs, out by `sendmmsg` with UDP_SEGMENT.

use std::{
    io::{IoSlice, IoSliceMut, Write, stdin, stdout},
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use nix::{
    cmsg_space,
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt},
        time::TimeSpec,
    },
};

/// Prints its port and forwards until its standard input ends.
pub fn forward() -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES)?;
    setsockopt(&socket, sockopt::SndBuf, &BUFFER_BYTES)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    writeln!(stdout(), "{}", socket.local_addr()?.port())?;
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, DATAGRAMS))?;
    epoll.add(stdin(), EpollEvent::new(EpollFlags::EPOLLIN, PARENT))?;
    let mut inbox = Inbox::new();
    let mut rooms = Vec::new();
    let mut outbox = Outbox::new();
    let mut events = [EpollEvent::empty(); 2];
    loop {
        let ready = epoll.wait(&mut events, EpollTimeout::NONE)?;
        if events.iter().take(ready).any(|event| event.data() == PARENT) {
            return Ok(());
        }
        while inbox.receive(&socket, &mut rooms, &mut outbox)? == RECEIVE_BATCH {}
    }
}

/// Who receives what is sent to a room, and with which key.
#[derive(Default)]
struct Room {
    addresses: Vec<Option<SockaddrIn>>,
    keys: Vec<LessSafeKey>,
}

struct Inbox {
    buffers: Vec<u8>,
    headers: MultiHeaders<SockaddrIn>,
}

impl Inbox {
    fn new() -> Self {
        let headers = MultiHeaders::preallocate(RECEIVE_BATCH, Some(cmsg_space!(TimeSpec)));
        Self { buffers: vec![0; RECEIVE_BATCH * DATAGRAM_BYTES_MAX], headers }
    }

    /// Takes in what is there, forwards it, and says how many datagrams that was.
    fn receive(&mut self, socket: &UdpSocket, rooms: &mut Vec<Room>, outbox: &mut Outbox) -> Result<usize> {
        let mut slices: Vec<_> =
            self.buffers.chunks_exact_mut(DATAGRAM_BYTES_MAX).map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = match recvmmsg(socket.as_raw_fd(), &mut self.headers, slices.iter_mut(), flags, None) {
            Err(Errno::EAGAIN) => return Ok(0),
            received => received?,
        };
        let mut datagrams = 0;
        let mut media = Vec::with_capacity(RECEIVE_BATCH);
        for message in received {
            datagrams += 1;
            let datagram = message.iovs().next().unwrap_or_default();
            match *datagram {
                [REGISTER, room, ..] => {
                    let room = usize::from(room);
                    rooms.resize_with(rooms.len().max(room + 1), Room::default);
                    let Room { addresses, keys } = &mut rooms[room];
                    addresses.push(message.address);
                    keys.push(key(addresses.len())?);
                }
                [MEDIA, room, ..] => media.push((usize::from(room), datagram)),
                _ => {}
            }
        }
        media.sort_by_key(|(room, _)| *room);
        for run in media.chunk_by(|(room, one), (next_room, next)| room == next_room && one.len() == next.len()) {
            let Some(room) = run.first().and_then(|(room, _)| rooms.get(*room)) else { continue };
            outbox.send(socket, room, run)?;
        }
        Ok(datagrams)
    }
}

struct Outbox {
    bytes: Vec<u8>,
    runs: MultiHeaders<SockaddrIn>,
    singles: MultiHeaders<SockaddrIn>,
    sealed: u64,
}

impl Outbox {
    fn new() -> Self {
        Self {
            bytes: Vec::new(),
            runs: MultiHeaders::preallocate(SEND_BATCH, Some(cmsg_space!(u16))),
            singles: MultiHeaders::preallocate(SEND_BATCH, None),
            sealed: 0,
        }
    }

    /// Packets of one size to everybody in a room.
    fn send(&mut self, socket: &UdpSocket, room: &Room, run: &[(usize, &[u8])]) -> Result<()> {
        self.bytes.clear();
        for key in &room.keys {
            for (_, packet) in run {
                self.seal(key, packet)?;
            }
        }
        let segment = self.bytes.len() / (room.keys.len() * run.len()).max(1);
        let (headers, control): (_, &[_]) = match run {
            [_] => (&mut self.singles, &[]),
            _ => (&mut self.runs, &[ControlMessage::UdpGsoSegments(&u16::try_from(segment)?)]),
        };
        let messages: Vec<_> =
            self.bytes.chunks_exact((segment * run.len()).max(1)).map(|message| [IoSlice::new(message)]).collect();
        for (messages, addresses) in messages.chunks(SEND_BATCH).zip(room.addresses.chunks(SEND_BATCH)) {
            let flags = MsgFlags::MSG_DONTWAIT;
            let sent = sendmmsg(socket.as_raw_fd(), headers, messages, addresses, control, flags)?.count();
            ensure!(sent == messages.len(), "loopback takes what it is given");
        }
        Ok(())
    }

    /// Appends a copy as it leaves: the tag that it came with is replaced.
    fn seal(&mut self, key: &LessSafeKey, packet: &[u8]) -> Result<()> {
        let plain = packet.get(..packet.len().saturating_sub(TAG_BYTES)).unwrap_or_default();
        let start = self.bytes.len();
        self.bytes.extend_from_slice(plain);
        let whole = self.bytes.get_mut(start..).unwrap_or_default();
        let (header, payload) = whole.split_at_mut_checked(HEADER_BYTES).context("a packet has a header")?;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.sealed.to_be_bytes());
        self.sealed += 1;
        let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&*header), payload)?;
        self.bytes.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

fn key(number: usize) -> Result<LessSafeKey> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes)?))
}

/// The first byte of a datagram; the second is the room.
pub const REGISTER: u8 = 0;
pub const MEDIA: u8 = 0x90;
pub const FEEDBACK: u8 = 0x8f;

/// RTP header with two words of extensions, as packets leave.
const HEADER_BYTES: usize = 24;
pub const TAG_BYTES: usize = 16;

const DATAGRAMS: u64 = 0;
const PARENT: u64 = 1;
/// As the server's.
const RECEIVE_BATCH: usize = 32;
const SEND_BATCH: usize = 64;
const DATAGRAM_BYTES_MAX: usize = 2_048;
const BUFFER_BYTES: usize = 4 << 20;
