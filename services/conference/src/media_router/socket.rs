//! UDP in batches: `recvmmsg` with UDP_GRO and the kernel's time of arrival in, `sendmmsg` with UDP_SEGMENT out.
//!
//! The only file of the workspace with `unsafe`, and the only one that knows socket options. It moves bytes and counts;
//! it must never look into a datagram, decide about a peer, or wait.
//!
//! JUSTIFICATION of the unsafe code: neither std nor tokio offers these calls. Measured on Linux 6.18, sending costs
//! 1,850 ns per datagram one by one and 396 ns in runs of five with UDP_SEGMENT; receiving 456 ns with `recvmmsg` and
//! 131 ns with UDP_GRO. Sealing and rewriting a packet costs 180 ns, so these calls decide the capacity of a node.
#![allow(unsafe_code)]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, RawFd},
    ptr,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use plenary_media_core::Transmit;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    arrival::{Arrivals, Moment},
    counters::{IoCounters, IoLoss},
};

/// What the pump needs of a socket; connected sockets per peer or io_uring would be another implementation.
pub trait DatagramSocket: Unpin + 'static {
    /// Delivers one bounded batch of datagrams with the times they came, and says how many. `Pending`: dry, and the task
    /// is woken at the next one.
    fn poll_receive(&mut self, cx: &mut Context<'_>, present: Moment, deliver: &mut Deliver<'_>) -> Poll<usize>;

    /// Sends from the front of `batch` and says how many transmits need not be offered again. Destinations that refuse are
    /// counted and passed over. Fewer than all: the kernel has no room, and nothing announces when it has; try again soon.
    fn send(&mut self, batch: &[Transmit<'_>]) -> usize;
}

/// Takes who sent a datagram, when it came, and its bytes.
pub type Deliver<'a> = dyn FnMut(SocketAddr, Instant, &mut [u8]) + 'a;

/// Whether a kernel offload shall be used where the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offload {
    #[default]
    On,
    Off,
}

/// Binds a non-blocking UDP socket and asks for large buffers. The error names the address.
pub fn bind(ip: IpAddr, port: u16) -> io::Result<std::net::UdpSocket> {
    let address = SocketAddr::new(ip, port);
    let bound = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // The IPv4 socket has the same port, and mapped addresses would be second names for one path.
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    let socket = bound().map_err(|err| io::Error::new(err.kind(), format!("UDP port {port} on {ip}: {err}")))?;
    tracing::info!(
        asked_bytes = SOCKET_BUFFER_BYTES,
        receive_bytes = socket.recv_buffer_size().unwrap_or(0),
        send_bytes = socket.send_buffer_size().unwrap_or(0),
        port = socket.local_addr().ok().and_then(|local| Some(local.as_socket()?.port())),
        "media socket bound"
    );
    Ok(socket.into())
}

/// One UDP socket with its arenas, on the runtime of its media thread.
#[derive(Debug)]
pub struct UdpSocket {
    fd: AsyncFd<std::net::UdpSocket>,
    receiver: Receiver,
    sender: Sender,
}

impl UdpSocket {
    /// Registers with the runtime of the current thread.
    pub fn new(socket: std::net::UdpSocket, gso: Offload, gro: Offload, counters: Arc<IoCounters>) -> io::Result<Self> {
        // Only readable: room to send is announced after nearly every send, and each time would wake the thread.
        // SAFETY: a std socket keeps its one descriptor open until it is dropped, which `fd` alone does.
        let fd = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE)? };
        // Setting zero, the default, changes nothing and fails on a kernel that would ignore the control message.
        let gso = gso == Offload::On && set_option(fd.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        let gro = gro == Offload::On && set_option(fd.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        if let Err(error) = set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1) {
            tracing::warn!(%error, "the kernel does not say when datagrams come: senders will be slow to find their rate");
        }
        let buffer_bytes = if gro { GRO_BUFFER_BYTES } else { DATAGRAM_BYTES_MAX };
        Ok(Self {
            fd,
            receiver: Receiver::new(buffer_bytes, Arc::clone(&counters)),
            sender: Sender::new(if gso { Gso::On { refusals: 0 } } else { Gso::Off }, counters),
        })
    }
}

impl DatagramSocket for UdpSocket {
    fn poll_receive(&mut self, cx: &mut Context<'_>, present: Moment, deliver: &mut Deliver<'_>) -> Poll<usize> {
        let Poll::Ready(Ok(mut guard)) = self.fd.poll_read_ready(cx) else { return Poll::Pending };
        match self.receiver.receive(guard.get_inner().as_raw_fd()) {
            Ok(messages) => {
                if messages < RECEIVE_BATCH {
                    // A short batch means the kernel found the socket empty, so the next datagram is a new edge.
                    guard.clear_ready();
                }
                Poll::Ready(self.receiver.deliver(messages, present, deliver))
            }
            Err(err) => {
                if err.kind() != io::ErrorKind::WouldBlock {
                    self.receiver.counters.lose(IoLoss::ReceiveOther);
                }
                guard.clear_ready();
                drop(guard);
                // Registers for the next edge; ready already if one came in between.
                match self.fd.poll_read_ready(cx) {
                    Poll::Ready(Ok(_)) => Poll::Ready(0),
                    _ => Poll::Pending,
                }
            }
        }
    }

    fn send(&mut self, batch: &[Transmit<'_>]) -> usize {
        let mut at = Cursor::default();
        while at.transmit < batch.len() {
            match self.sender.step(self.fd.as_raw_fd(), batch, &mut at) {
                Step::Go => {}
                Step::NoRoom(why) => return self.sender.stop(at, why),
            }
        }
        batch.len()
    }
}

/// The receiving arena. The kernel structures are filled anew for each call, so none of their pointers outlives it.
struct Receiver {
    buffer_bytes: usize,
    buffers: Box<[u8]>,
    names: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    iovs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    arrivals: Arrivals,
    counters: Arc<IoCounters>,
}

impl Receiver {
    fn new(buffer_bytes: usize, counters: Arc<IoCounters>) -> Self {
        Self {
            buffer_bytes,
            buffers: vec![0; buffer_bytes * RECEIVE_BATCH].into(),
            names: vec![empty_name(); RECEIVE_BATCH].into(),
            controls: vec![Control::EMPTY; RECEIVE_BATCH].into(),
            iovs: vec![EMPTY_IOV; RECEIVE_BATCH].into(),
            headers: vec![empty_header(); RECEIVE_BATCH].into(),
            arrivals: Arrivals::default(),
            counters,
        }
    }

    /// How many messages came in.
    fn receive(&mut self, fd: RawFd) -> io::Result<usize> {
        let rows = self
            .headers
            .iter_mut()
            .zip(self.iovs.iter_mut())
            .zip(self.names.iter_mut())
            .zip(self.controls.iter_mut().zip(self.buffers.chunks_exact_mut(self.buffer_bytes)));
        for (((header, iov), name), (control, buffer)) in rows {
            *iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            header.msg_len = 0;
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = iov;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_BYTES as _;
            header.msg_hdr.msg_flags = 0;
        }
        // SAFETY: every header of the array was just pointed at one name, one iovec, one control block and one buffer,
        // each with its true length, each used by one header only, all owned by `self` and so alive during the call.
        let received = unsafe {
            libc::recvmmsg(
                fd,
                self.headers.as_mut_ptr(),
                RECEIVE_BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// How many datagrams the messages held.
    fn deliver(&mut self, messages: usize, present: Moment, deliver: &mut Deliver<'_>) -> usize {
        let (mut datagrams, mut bytes) = (0, 0);
        let rows = self.headers.iter().zip(&self.names).zip(self.buffers.chunks_exact_mut(self.buffer_bytes));
        for ((header, name), buffer) in rows.take(messages) {
            let Some(message) = buffer.get_mut(..header.msg_len as usize) else { continue };
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                self.counters.lose(IoLoss::Truncated);
                continue;
            }
            let Some(remote) = read_name(name) else { continue };
            if message.is_empty() {
                continue;
            }
            // SAFETY: the kernel filled the control block of this header, which `self` still owns, and set its length.
            let told = unsafe { read_controls(&header.msg_hdr) };
            // What the kernel joined came in one poll of the interface, so one time is true of all of it.
            let arrival = self.arrivals.time(present, told.stamp);
            let segment = told.segment.unwrap_or(message.len()).max(1);
            for datagram in message.chunks_mut(segment) {
                datagrams += 1;
                bytes += datagram.len();
                deliver(remote, arrival, datagram);
            }
        }
        self.counters.datagrams_in.add(datagrams);
        self.counters.bytes_in.add(bytes);
        datagrams
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("buffer_bytes", &self.buffer_bytes).finish_non_exhaustive()
    }
}

/// The sending arena and what is known about the kernel's willingness to cut runs.
struct Sender {
    names: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    iovs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    plan: Vec<Planned>,
    gso: Gso,
    counters: Arc<IoCounters>,
    /// Stands for a kernel that refuses runs with this error.
    #[cfg(test)]
    refuse_runs: Option<libc::c_int>,
}

/// Whether runs go out as one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gso {
    /// With the number of refusals since a run last went out.
    On {
        refusals: u32,
    },
    Off,
}

/// Where a send stands within its batch.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    transmit: usize,
    /// Bytes of that transmit which are out.
    bytes: usize,
    /// The transmit that is sent datagram by datagram because the kernel refused it as a run.
    single: Option<usize>,
}

/// One kernel message made from a transmit or a part of it.
#[derive(Debug, Clone, Copy)]
struct Planned {
    after: Cursor,
    bytes: usize,
    datagrams: usize,
}

enum Step {
    Go,
    NoRoom(IoLoss),
}

impl Sender {
    fn new(gso: Gso, counters: Arc<IoCounters>) -> Self {
        Self {
            names: vec![empty_name(); SEND_BATCH].into(),
            controls: vec![Control::EMPTY; SEND_BATCH].into(),
            iovs: vec![EMPTY_IOV; SEND_BATCH].into(),
            headers: vec![empty_header(); SEND_BATCH].into(),
            plan: Vec::with_capacity(SEND_BATCH),
            gso,
            counters,
            #[cfg(test)]
            refuse_runs: None,
        }
    }

    /// One system call: sends up to [`SEND_BATCH`] messages from the cursor on and moves it past what is settled.
    fn step(&mut self, fd: RawFd, batch: &[Transmit<'_>], at: &mut Cursor) -> Step {
        self.fill(batch, *at);
        match self.sendmmsg(fd) {
            Ok(sent) => {
                self.account(sent);
                if let Some(last) = sent.checked_sub(1).and_then(|last| self.plan.get(last)) {
                    *at = last.after;
                }
                Step::Go
            }
            Err(err) => self.settle(&err, at),
        }
    }

    /// Lays out messages until the arena or the batch ends.
    fn fill(&mut self, batch: &[Transmit<'_>], mut at: Cursor) {
        self.plan.clear();
        let rows =
            self.headers.iter_mut().zip(self.iovs.iter_mut()).zip(self.names.iter_mut()).zip(self.controls.iter_mut());
        for (((header, iov), name), control) in rows {
            let Some(transmit) = batch.get(at.transmit) else { break };
            let rest = transmit.bytes.get(at.bytes..).unwrap_or_default();
            let runs = self.gso != Gso::Off && at.single != Some(at.transmit);
            let (bytes, segment) = cut(rest.len(), transmit.segment_bytes, runs);
            *iov = libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: bytes };
            header.msg_hdr.msg_namelen = write_name(name, transmit.path.remote);
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_iov = iov;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_flags = 0;
            header.msg_hdr.msg_control = ptr::null_mut();
            header.msg_hdr.msg_controllen = 0;
            if let Some(segment) = segment {
                header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
                // SAFETY: CMSG_SPACE only computes.
                header.msg_hdr.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<u16>() as u32) } as _;
                // SAFETY: the control block of CONTROL_BYTES, aligned for a cmsghdr, holds the space just announced.
                unsafe { write_segment(&header.msg_hdr, segment) };
            }
            let done = bytes == rest.len();
            at = Cursor {
                transmit: if done { at.transmit + 1 } else { at.transmit },
                bytes: if done { 0 } else { at.bytes + bytes },
                single: if done { None } else { at.single },
            };
            let datagrams = segment.map_or(1, |segment| bytes.div_ceil(usize::from(segment).max(1)));
            self.plan.push(Planned { after: at, bytes, datagrams });
        }
    }

    fn sendmmsg(&mut self, fd: RawFd) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(errno) = self.refuse_runs {
            match self.plan.iter().position(|planned| planned.datagrams > 1) {
                Some(0) => return Err(io::Error::from_raw_os_error(errno)),
                Some(run) => self.plan.truncate(run),
                None => {}
            }
        }
        // SAFETY: the first `plan.len()` headers were filled by `fill` in the same step, from slices of the batch that
        // the caller borrows during the step and from rows owned by `self`; the kernel only reads through them, and
        // writes `msg_len` of each header.
        let sent = unsafe {
            libc::sendmmsg(fd, self.headers.as_mut_ptr(), self.plan.len() as libc::c_uint, libc::MSG_DONTWAIT as _)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    fn account(&mut self, sent: usize) {
        let (mut datagrams, mut bytes) = (0, 0);
        for planned in self.plan.iter().take(sent) {
            datagrams += planned.datagrams;
            bytes += planned.bytes;
            self.counters.run(planned.datagrams);
            if planned.datagrams > 1 {
                self.gso = Gso::On { refusals: 0 };
            }
        }
        self.counters.datagrams_out.add(datagrams);
        self.counters.bytes_out.add(bytes);
        self.counters.messages_out.add(sent);
    }

    /// The first planned message failed: decides between waiting, trying it otherwise, and passing over it.
    fn settle(&mut self, err: &io::Error, at: &mut Cursor) -> Step {
        let Some(first) = self.plan.first().copied() else { return Step::Go };
        let loss = match err.raw_os_error() {
            Some(libc::EAGAIN) => return Step::NoRoom(IoLoss::SendBufferFull),
            Some(libc::EINTR) => return Step::Go,
            Some(libc::ENOBUFS | libc::ENOMEM) => return Step::NoRoom(IoLoss::NoBuffers),
            Some(errno @ (libc::EIO | libc::EINVAL)) if first.datagrams > 1 => {
                self.counters.lose(IoLoss::RunRefused);
                self.gso = self.gso.refused(errno);
                at.single = Some(at.transmit);
                return Step::Go;
            }
            Some(libc::EMSGSIZE) => IoLoss::TooLarge,
            Some(libc::EPERM | libc::EACCES) => IoLoss::NotPermitted,
            Some(
                libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::EADDRNOTAVAIL
                | libc::EINVAL,
            ) => IoLoss::Unreachable,
            _ => IoLoss::SendOther,
        };
        self.counters.lose(loss);
        *at = first.after;
        Step::Go
    }

    /// A transmit that is partly out cannot be offered again from the middle: its rest is lost, as media may be.
    fn stop(&self, at: Cursor, why: IoLoss) -> usize {
        self.counters.lose(why);
        let cut = at.bytes > 0;
        if cut {
            self.counters.lose(IoLoss::RunCut);
        }
        at.transmit + usize::from(cut)
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("gso", &self.gso).finish_non_exhaustive()
    }
}

impl Gso {
    /// EIO says that the device cannot cut. EINVAL may be about one destination (a segment larger than its path's MTU),
    /// and one peer must not cost the others their runs: it counts only in a row.
    fn refused(self, errno: libc::c_int) -> Self {
        match self {
            Self::On { refusals } if errno == libc::EINVAL && refusals + 1 < GSO_REFUSALS_MAX => {
                Self::On { refusals: refusals + 1 }
            }
            _ => Self::Off,
        }
    }
}

/// The bytes of the next message of a transmit, and its segment size if it is a run that the kernel shall cut.
fn cut(rest: usize, segment_bytes: Option<usize>, runs: bool) -> (usize, Option<u16>) {
    let Some(segment) = segment_bytes.filter(|segment| (1..rest).contains(segment)) else { return (rest, None) };
    let segments = if runs { (GSO_BYTES_MAX / segment).min(GSO_SEGMENTS_MAX) } else { 1 };
    match u16::try_from(segment) {
        Ok(size) if segments > 1 => (rest.min(segments * segment), Some(size)),
        _ => (segment, None),
    }
}

/// Control messages of one kernel message, aligned as `cmsghdr` wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

impl Control {
    const EMPTY: Self = Self([0; CONTROL_BYTES]);
}

/// # Safety
/// `header.msg_control` points at `msg_controllen` writable bytes, aligned for a `cmsghdr`, with space for a `u16`.
unsafe fn write_segment(header: &libc::msghdr, segment: u16) {
    // SAFETY: by the contract the first header and its two bytes of data lie within the block.
    unsafe {
        let cmsg = libc::CMSG_FIRSTHDR(header);
        if !cmsg.is_null() {
            (*cmsg).cmsg_level = libc::SOL_UDP;
            (*cmsg).cmsg_type = libc::UDP_SEGMENT;
            (*cmsg).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
            libc::CMSG_DATA(cmsg).cast::<u16>().write_unaligned(segment);
        }
    }
}

/// What the kernel told of one message.
#[derive(Debug, Default)]
struct Told {
    /// The size of the datagrams that it joined, if it joined any.
    segment: Option<usize>,
    /// When the first of them came, on the wall clock.
    stamp: Option<SystemTime>,
}

/// # Safety
/// `header` describes control messages that the kernel wrote into memory that is still alive.
unsafe fn read_controls(header: &libc::msghdr) -> Told {
    let mut told = Told::default();
    // SAFETY: the kernel wrote well-formed headers within msg_controllen, and the macros stay within it.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(header);
        while !cmsg.is_null() {
            match ((*cmsg).cmsg_level, (*cmsg).cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    told.segment = usize::try_from(libc::CMSG_DATA(cmsg).cast::<libc::c_int>().read_unaligned()).ok();
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    told.stamp = wall_time(libc::CMSG_DATA(cmsg).cast::<libc::timespec>().read_unaligned());
                }
                _ => {}
            }
            cmsg = libc::CMSG_NXTHDR(header, cmsg);
        }
    }
    told
}

fn wall_time(stamp: libc::timespec) -> Option<SystemTime> {
    let since = Duration::new(u64::try_from(stamp.tv_sec).ok()?, u32::try_from(stamp.tv_nsec).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// `None` for a family other than IP.
fn read_name(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the storage is large enough and aligned for every family, and its family says sockaddr_in.
            let name = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, its family says sockaddr_in6.
            let name = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            // The flow label is not part of who a remote is; it would make two paths of one.
            Some(SocketAddrV6::new(ip, u16::from_be(name.sin6_port), 0, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Returns the length of the name.
fn write_name(name: &mut libc::sockaddr_storage, remote: SocketAddr) -> libc::socklen_t {
    match remote {
        SocketAddr::V4(remote) => {
            let value = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: remote.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*remote.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is at least as large and as aligned as every sockaddr.
            unsafe { ptr::from_mut(name).cast::<libc::sockaddr_in>().write(value) };
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(remote) => {
            let value = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: remote.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: remote.ip().octets() },
                sin6_scope_id: remote.scope_id(),
            };
            // SAFETY: as above.
            unsafe { ptr::from_mut(name).cast::<libc::sockaddr_in6>().write(value) };
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

fn set_option(fd: RawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(fd, level, option, ptr::from_ref(&value).cast(), size_of::<libc::c_int>() as libc::socklen_t)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn empty_name() -> libc::sockaddr_storage {
    // SAFETY: a C struct of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: a C struct of integers and raw pointers, for which zero and null are values.
    unsafe { std::mem::zeroed() }
}

const EMPTY_IOV: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

/// Messages per receiving call.
pub(super) const RECEIVE_BATCH: usize = 32;
/// Messages per sending call.
const SEND_BATCH: usize = 64;
/// No datagram of a browser is larger than an Ethernet frame; a larger one is cut by the kernel, counted and dropped.
pub(super) const DATAGRAM_BYTES_MAX: usize = 2_048;
/// The most the kernel joins into one message.
const GRO_BUFFER_BYTES: usize = 65_536;
/// The kernel's UDP_MAX_SEGMENTS (128 since Linux 6.9).
const GSO_SEGMENTS_MAX: usize = 64;
/// An IP packet with its headers has at most 65,535 bytes, before it is cut too.
const GSO_BYTES_MAX: usize = 65_000;
/// Refusals in a row after which runs are no longer tried.
const GSO_REFUSALS_MAX: u32 = 16;
/// Room for a segment size and a time of arrival, each with its header; more than the segment size that goes out.
const CONTROL_BYTES: usize = 64;
/// Asked of the kernel for each direction; it gives what `net.core.{r,w}mem_max` allows.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests;
