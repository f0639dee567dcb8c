//! UDP for many clients on one socket. Each client transport is an address of its own, so that the server sees as many
//! remotes as there would be; the kernel hands over whole GSO runs and says when each arrived.

use std::{
    io::{ErrorKind, IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
};

use anyhow::Result;
use nix::{
    cmsg_space,
    errno::Errno,
    libc::{in_addr, in_pktinfo},
    sys::{
        socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt},
        time::TimeSpec,
    },
};

pub struct Datagrams(UdpSocket);

/// Where clients have their addresses: all of a /16 is this machine's.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    pub device: &'static str,
    pub base: Ipv4Addr,
}

impl Network {
    pub const LOOPBACK: Self = Self { device: "lo", base: Ipv4Addr::new(127, 1, 0, 0) };

    /// Of a bot's subscriber (0) and publisher (1) leg. The number is below 32,000.
    pub fn addresses(self, number: usize) -> [Ipv4Addr; 2] {
        [0, 1].map(|leg| Ipv4Addr::from(u32::from(self.base) + 1 + (2 * number + leg) as u32))
    }

    /// Whose address this is: the bot's number and its leg.
    pub fn owner(self, address: Ipv4Addr) -> Option<(usize, usize)> {
        let number = usize::try_from(u32::from(address).checked_sub(u32::from(self.base) + 1)?).ok()?;
        Some((number / 2, number % 2))
    }
}

/// Where a message is put.
pub struct Inbox {
    buffer: Vec<u8>,
    control: Vec<u8>,
}

/// One message of the kernel: datagrams of one sender to one of our addresses.
pub struct Arrival<'a> {
    pub to: Ipv4Addr,
    /// Unix time at which the kernel had it.
    pub at_ns: i64,
    /// All datagrams have this size, the last may be shorter.
    pub segment_bytes: usize,
    /// How many datagrams found the socket full until now: lost by us, not by the server.
    pub overflowed: u32,
    pub bytes: &'a [u8],
}

impl Inbox {
    pub fn new() -> Self {
        // The most that the kernel joins into one message.
        Self { buffer: vec![0; 1 << 16], control: cmsg_space!(in_pktinfo, TimeSpec, i32, u32) }
    }
}

impl Datagrams {
    pub fn bind(network: Network) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::BindToDevice, &network.device.into())?;
        // Beyond what the machine allows everybody, where we may.
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES)?;
        }
        setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        Ok(Self(socket))
    }

    /// Several, so that their buffers together take a burst to everybody.
    pub fn several(network: Network) -> Result<[Self; SOCKETS]> {
        Ok([Self::bind(network)?, Self::bind(network)?, Self::bind(network)?, Self::bind(network)?])
    }

    /// `None` when the socket is empty.
    pub fn receive<'a>(&self, inbox: &'a mut Inbox) -> Result<Option<Arrival<'a>>> {
        let mut slices = [IoSliceMut::new(&mut inbox.buffer)];
        let fd = self.0.as_raw_fd();
        let received = recvmsg::<SockaddrIn>(fd, &mut slices, Some(&mut inbox.control), MsgFlags::empty());
        let received = match received {
            Err(Errno::EAGAIN) => return Ok(None),
            received => received?,
        };
        let bytes = received.bytes;
        let (mut to, mut at_ns, mut segment_bytes, mut overflowed) = (Ipv4Addr::UNSPECIFIED, 0, bytes.max(1), 0);
        for message in received.cmsgs()? {
            match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => to = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)),
                ControlMessageOwned::ScmTimestampns(at) => at_ns = at.tv_sec() * 1_000_000_000 + at.tv_nsec(),
                ControlMessageOwned::UdpGroSegments(segment) => segment_bytes = usize::try_from(segment)?.max(1),
                ControlMessageOwned::RxqOvfl(count) => overflowed = count,
                _ => {}
            }
        }
        let bytes = inbox.buffer.get(..bytes).unwrap_or_default();
        Ok(Some(Arrival { to, at_ns, segment_bytes, overflowed, bytes }))
    }

    /// A full send buffer loses the datagram, as a network would.
    pub fn send(&self, from: Ipv4Addr, to: SocketAddrV4, bytes: &[u8]) -> Result<()> {
        let source = in_addr { s_addr: u32::from(from).to_be() };
        let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: in_addr { s_addr: 0 } };
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let fd = self.0.as_raw_fd();
        match sendmsg(fd, &[IoSlice::new(bytes)], &control, MsgFlags::empty(), Some(&SockaddrIn::from(to))) {
            Err(error) if std::io::Error::from(error).kind() != ErrorKind::WouldBlock => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Which of several sockets is a leg's.
pub fn socket_of(number: usize, leg: usize) -> usize {
    (2 * number + leg) % SOCKETS
}

pub const SOCKETS: usize = 4;
const BUFFER_BYTES: usize = 8 << 20;
