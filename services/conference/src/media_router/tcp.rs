//! ICE-TCP, passive side (RFC 6544): the door that accepts for all routers of a node, and the connections of one router.
//!
//! A connection says with its first frame, a STUN check, which router it is for; the door hands it to that router's
//! thread and forgets it. There each connection is one small task between two bounded buffers, so that a client that
//! does not read costs the pump nothing. Nothing here authenticates: the core does, and a connection that the core does
//! not answer soon is closed.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    io::{self, IoSlice},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::Range,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use actix::prelude::{Message, Recipient};
use plenary_media_core::{Input, Path, Protocol, local_ufrag};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{Instant, Sleep},
};

use super::{
    RouterIndex,
    counters::{IoCounters, IoLoss},
    socket::DATAGRAM_BYTES_MAX,
};

/// The accepting side of a node. Dropping it closes the door; connections that were handed over stay.
#[derive(Debug)]
pub struct TcpDoor {
    pub local: SocketAddr,
    task: JoinHandle<()>,
}

impl TcpDoor {
    /// Binds, then accepts on the runtime of the current thread. `routers` are the current routers by index; a router
    /// that was started anew takes its place there.
    pub fn open(
        address: SocketAddr,
        routers: watch::Receiver<Vec<Recipient<Adopt>>>,
        counters: Arc<IoCounters>,
    ) -> io::Result<Self> {
        let named = |err: io::Error| {
            io::Error::new(err.kind(), format!("TCP port {} on {}: {err}", address.port(), address.ip()))
        };
        let listener = bind(address).map_err(named)?;
        let local = listener.local_addr()?;
        tracing::info!(port = local.port(), "media TCP door open");
        let task = tokio::spawn(accept(TcpListener::from_std(listener)?, routers, counters));
        Ok(Self { local, task })
    }
}

impl Drop for TcpDoor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection whose first frame named this router. From the door; when the box is full the connection is closed, and
/// the client tries again or another way.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Adopt {
    pub stream: std::net::TcpStream,
    pub remote: SocketAddr,
    /// The first frame, without its length.
    pub first: Vec<u8>,
    /// The place among the unauthenticated, given back once the core has answered.
    pub permit: Permit,
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // A restarted node takes its port back although old connections still linger.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    Ok(socket.into())
}

async fn accept(listener: TcpListener, routers: watch::Receiver<Vec<Recipient<Adopt>>>, counters: Arc<IoCounters>) {
    let mut admission = Admission::default();
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(err) => {
                counters.lose(IoLoss::TcpAcceptFailed);
                if err.kind() != io::ErrorKind::ConnectionAborted {
                    // Out of descriptors, most likely: the connection stays in the backlog, and retrying would spin.
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
                continue;
            }
        };
        match admission.admit(remote.ip()) {
            Ok(permit) => {
                let (routers, counters) = (routers.clone(), Arc::clone(&counters));
                tokio::spawn(async move {
                    if let Err(why) = introduce(stream, remote, permit, routers).await {
                        counters.lose(why);
                    }
                });
            }
            Err(why) => counters.lose(why),
        }
    }
}

/// Reads the first frame, and nothing beyond it, and hands the connection to the router it names.
async fn introduce(
    mut stream: TcpStream,
    remote: SocketAddr,
    permit: Permit,
    routers: watch::Receiver<Vec<Recipient<Adopt>>>,
) -> Result<(), IoLoss> {
    let first = tokio::time::timeout(FIRST_FRAME_WITHIN, first_frame(&mut stream)).await;
    let first = first.map_err(|_| IoLoss::TcpSilent)??;
    let index = local_ufrag(&first).and_then(RouterIndex::of_mark).ok_or(IoLoss::TcpUnknownUfrag)?;
    let stream = stream.into_std().map_err(|_| IoLoss::TcpGarbage)?;
    let routers = routers.borrow();
    let router = routers.get(usize::from(index)).ok_or(IoLoss::TcpUnknownUfrag)?;
    router.try_send(Adopt { stream, remote, first, permit }).map_err(|_| IoLoss::TcpRouterBusy)
}

async fn first_frame(stream: &mut TcpStream) -> Result<Vec<u8>, IoLoss> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await.map_err(|_| IoLoss::TcpGarbage)?;
    let length = usize::from(u16::from_be_bytes(length));
    if !(1..=FRAME_BYTES_MAX).contains(&length) {
        return Err(IoLoss::TcpGarbage);
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await.map_err(|_| IoLoss::TcpGarbage)?;
    Ok(frame)
}

/// Who may be unauthenticated: so many in all, and so many per address.
#[derive(Debug, Default)]
struct Admission {
    all: Arc<()>,
    by_address: HashMap<IpAddr, Arc<()>>,
}

/// A place among the unauthenticated. The count of its references is the count of places taken.
#[derive(Debug, Default)]
pub struct Permit {
    _all: Arc<()>,
    _address: Arc<()>,
}

impl Admission {
    fn admit(&mut self, ip: IpAddr) -> Result<Permit, IoLoss> {
        if Arc::strong_count(&self.all) > UNAUTHENTICATED_MAX {
            return Err(IoLoss::TcpTooManyUnauthenticated);
        }
        if self.by_address.len() > UNAUTHENTICATED_MAX {
            self.by_address.retain(|_, places| Arc::strong_count(places) > 1);
        }
        let places = self.by_address.entry(block(ip)).or_default();
        if !ip.is_loopback() && Arc::strong_count(places) > UNAUTHENTICATED_PER_ADDRESS_MAX {
            return Err(IoLoss::TcpTooManyFromAddress);
        }
        Ok(Permit { _all: Arc::clone(&self.all), _address: Arc::clone(places) })
    }
}

/// Who counts as one address: in IPv6 a customer has at least a /64.
fn block(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// The TCP connections of one media thread.
#[derive(Debug)]
pub(super) struct TcpPaths {
    connections: HashMap<SocketAddr, Writer>,
    inbox: Rc<RefCell<Inbox>>,
    counters: Arc<IoCounters>,
}

impl TcpPaths {
    pub fn new(counters: Arc<IoCounters>) -> Self {
        Self { connections: HashMap::new(), inbox: Rc::default(), counters }
    }

    /// Starts the connection's task; the first frame reaches the core at the next turn.
    pub fn adopt(&mut self, Adopt { stream, remote, first, permit }: Adopt) {
        if self.connections.len() >= CONNECTIONS_MAX || self.connections.contains_key(&remote) {
            return self.counters.lose(IoLoss::TcpTooManyConnections);
        }
        if !self.inbox.borrow().has_room() {
            return self.counters.lose(IoLoss::TcpRouterBusy);
        }
        let Ok(stream) = TcpStream::from_std(stream) else { return self.counters.lose(IoLoss::TcpGarbage) };
        // Frames are whole datagrams: holding one back for more bytes only delays it. Without it they are only later.
        let _ = stream.set_nodelay(true);
        self.inbox.borrow_mut().push(remote, &first);
        let outbox = Rc::new(RefCell::new(Outbox::default()));
        let connection = Connection {
            stream,
            remote,
            frames: FrameBuffer::default(),
            inbox: Rc::clone(&self.inbox),
            outbox: Rc::clone(&outbox),
            idle: Box::pin(tokio::time::sleep(FIRST_ANSWER_WITHIN)),
            permit: Some(permit),
            counters: Arc::clone(&self.counters),
        };
        self.counters.tcp_opened.add(1);
        let task = tokio::task::spawn_local(connection.run());
        self.connections.insert(remote, Writer { outbox, task });
    }

    /// Queues a transmit as frames. Whole frames that find no room are dropped: to media TCP is as lossy as UDP.
    pub fn send(&mut self, remote: SocketAddr, bytes: &[u8], segment_bytes: Option<usize>) {
        let Some(writer) = self.connections.get(&remote) else {
            return self.counters.lose(IoLoss::TcpNoConnection);
        };
        let mut outbox = writer.outbox.borrow_mut();
        let segment = segment_bytes.unwrap_or(bytes.len()).max(1);
        for frame in bytes.chunks(segment) {
            if let Err(why) = outbox.push(frame) {
                self.counters.lose(why);
            }
        }
        outbox.answered = true;
        if let Some(writer) = &outbox.writer {
            writer.wake_by_ref();
        }
    }

    /// Delivers what has come in since the last turn, and has the task woken when there is more. When it came nobody says.
    pub fn receive(&mut self, cx: &mut Context<'_>, now: std::time::Instant, deliver: &mut dyn FnMut(Input<'_>)) {
        let Inbox { entries, bytes, pump, waiting } = &mut *self.inbox.borrow_mut();
        keep_waker(pump, cx);
        for entry in entries.drain(..) {
            let path = |remote| Path { protocol: Protocol::Tcp, remote };
            match entry {
                Entry::Frame { remote, range } => {
                    if let Some(frame) = bytes.get_mut(range) {
                        self.counters.datagrams_in.add(1);
                        self.counters.bytes_in.add(frame.len());
                        deliver(Input::Datagram { path: path(remote), received: now, bytes: frame });
                    }
                }
                Entry::Closed { remote } => {
                    self.connections.remove(&remote);
                    deliver(Input::PathClosed { path: path(remote) });
                }
            }
        }
        bytes.clear();
        waiting.drain(..).for_each(Waker::wake);
    }
}

/// The pump's end of a connection.
#[derive(Debug)]
struct Writer {
    outbox: Rc<RefCell<Outbox>>,
    task: JoinHandle<()>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Frames of all connections on their way to the core, in the order they came.
#[derive(Debug, Default)]
struct Inbox {
    entries: VecDeque<Entry>,
    bytes: Vec<u8>,
    pump: Option<Waker>,
    /// Connections that found no room; they do not read until the pump has made some.
    waiting: Vec<Waker>,
}

#[derive(Debug)]
enum Entry {
    Frame { remote: SocketAddr, range: Range<usize> },
    Closed { remote: SocketAddr },
}

impl Inbox {
    fn has_room(&self) -> bool {
        self.entries.len() < INBOX_FRAMES_MAX && self.bytes.len() + FRAME_BYTES_MAX <= INBOX_BYTES_MAX
    }

    fn push(&mut self, remote: SocketAddr, frame: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        self.enter(Entry::Frame { remote, range: start..self.bytes.len() });
    }

    /// Beyond the limit of frames if need be: there is one such entry per connection.
    fn enter(&mut self, entry: Entry) {
        self.entries.push_back(entry);
        if let Some(pump) = &self.pump {
            pump.wake_by_ref();
        }
    }

    fn wait(&mut self, cx: &Context<'_>) {
        if !self.waiting.iter().any(|waiting| waiting.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
    }
}

/// Frames of one connection on their way out, lengths included.
#[derive(Debug, Default)]
struct Outbox {
    bytes: VecDeque<u8>,
    /// The core has sent something since this was last cleared.
    answered: bool,
    writer: Option<Waker>,
}

impl Outbox {
    fn push(&mut self, frame: &[u8]) -> Result<(), IoLoss> {
        let length = u16::try_from(frame.len()).map_err(|_| IoLoss::TcpTooLarge)?;
        if self.bytes.len() + LENGTH_BYTES + frame.len() > WRITE_QUEUE_BYTES_MAX {
            return Err(IoLoss::TcpQueueFull);
        }
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend(frame);
        Ok(())
    }
}

/// One connection as a task of the media thread. Ends by itself; the pump hears of it through the inbox.
struct Connection {
    stream: TcpStream,
    remote: SocketAddr,
    frames: FrameBuffer,
    inbox: Rc<RefCell<Inbox>>,
    outbox: Rc<RefCell<Outbox>>,
    idle: Pin<Box<Sleep>>,
    permit: Option<Permit>,
    counters: Arc<IoCounters>,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client closed it, or the network did.
    Gone,
    Idle,
    Garbage,
}

impl Connection {
    async fn run(mut self) {
        let end = std::future::poll_fn(|cx| self.poll(cx)).await;
        match end {
            End::Gone => {}
            End::Idle => self.counters.lose(IoLoss::TcpIdle),
            End::Garbage => self.counters.lose(IoLoss::TcpGarbage),
        }
        self.counters.tcp_closed.add(1);
        self.inbox.borrow_mut().enter(Entry::Closed { remote: self.remote });
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        keep_waker(&mut self.outbox.borrow_mut().writer, cx);
        if self.poll_idle(cx).is_ready() {
            return Poll::Ready(End::Idle);
        }
        if let Poll::Ready(end) = self.poll_write(cx) {
            return Poll::Ready(end);
        }
        self.poll_read(cx)
    }

    /// A path that the core uses is never silent for long, because the core answers its checks. So what counts is not
    /// what the client sends, which may be anything, but whether the core says something.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let answered = self.outbox.borrow().answered;
        if answered {
            self.permit = None;
        }
        while self.idle.as_mut().poll(cx).is_ready() {
            if !std::mem::take(&mut self.outbox.borrow_mut().answered) {
                return Poll::Ready(());
            }
            self.idle.as_mut().reset(Instant::now() + IDLE_MAX);
        }
        Poll::Pending
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Outbox { bytes, .. } = &mut *self.outbox.borrow_mut();
        while !bytes.is_empty() {
            let (front, back) = bytes.as_slices();
            let slices = [IoSlice::new(front), IoSlice::new(back)];
            match ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices)) {
                Ok(written @ 1..) => {
                    self.counters.bytes_out.add(written);
                    bytes.drain(..written);
                }
                _ => return Poll::Ready(End::Gone),
            }
        }
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..READS_PER_POLL {
            loop {
                let mut inbox = self.inbox.borrow_mut();
                if !inbox.has_room() {
                    inbox.wait(cx);
                    return Poll::Pending;
                }
                match self.frames.next() {
                    Ok(Some(frame)) => inbox.push(self.remote, frame),
                    Ok(None) => break,
                    Err(Garbage) => return Poll::Ready(End::Garbage),
                }
            }
            let mut space = ReadBuf::new(self.frames.space());
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space)) {
                Ok(()) if !space.filled().is_empty() => {
                    let read = space.filled().len();
                    self.frames.filled(read);
                }
                _ => return Poll::Ready(End::Gone),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Cuts a byte stream into frames (RFC 4571: a length of two bytes, then so many bytes).
#[derive(Debug)]
struct FrameBuffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

/// What came is no framing, or no protocol of ours inside it.
#[derive(Debug, PartialEq, Eq)]
struct Garbage;

impl Default for FrameBuffer {
    fn default() -> Self {
        Self { bytes: vec![0; READ_BUFFER_BYTES].into(), start: 0, end: 0 }
    }
}

impl FrameBuffer {
    fn next(&mut self) -> Result<Option<&[u8]>, Garbage> {
        loop {
            let unread = self.bytes.get(self.start..self.end).unwrap_or_default();
            let Some((length, rest)) = unread.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
            let length = usize::from(u16::from_be_bytes(*length));
            if length > FRAME_BYTES_MAX {
                return Err(Garbage);
            }
            if rest.len() < length {
                return Ok(None);
            }
            let from = self.start + LENGTH_BYTES;
            self.start = from + length;
            // An empty frame says nothing, which is allowed.
            let Some(first) = self.bytes.get(from).filter(|_| length > 0) else { continue };
            if !speaks_media(*first) {
                return Err(Garbage);
            }
            return Ok(self.bytes.get(from..self.start));
        }
    }

    /// Where the next bytes go. Never empty after `next` gave `None`: the buffer is larger than a frame.
    fn space(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.bytes.len());
    }
}

/// RFC 7983 section 7: STUN, DTLS, and RTP or RTCP by their first byte.
fn speaks_media(first_byte: u8) -> bool {
    matches!(first_byte, 0..=3 | 20..=63 | 128..=191)
}

fn keep_waker(kept: &mut Option<Waker>, cx: &Context<'_>) {
    match kept {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *kept = Some(cx.waker().clone()),
    }
}

/// Bytes of the length before each frame.
const LENGTH_BYTES: usize = 2;
/// Longest frame: one datagram. A longer one closes the connection.
const FRAME_BYTES_MAX: usize = DATAGRAM_BYTES_MAX;
/// Read at once from one connection; holds some frames.
const READ_BUFFER_BYTES: usize = 4 * FRAME_BYTES_MAX;
/// Reads of one connection before the others have their turn.
const READS_PER_POLL: usize = 8;
/// Frames waiting for the pump; beyond it connections are not read, and TCP slows their clients.
const INBOX_FRAMES_MAX: usize = 1_024;
const INBOX_BYTES_MAX: usize = 512 << 10;
/// Bytes waiting for a slow reader, half a second at 8 Mb/s; further frames are dropped.
const WRITE_QUEUE_BYTES_MAX: usize = 512 << 10;
/// Connections of one router; further ones are closed.
const CONNECTIONS_MAX: usize = 4_096;
/// Connections that the core has not answered yet, all together and per address (IPv6 /64; loopback is exempt, so that
/// a proxy or a load test on the same host is not one stranger). Further ones are closed at once.
const UNAUTHENTICATED_MAX: usize = 1_000;
const UNAUTHENTICATED_PER_ADDRESS_MAX: usize = 100;
/// From the connection to its whole first frame.
pub const FIRST_FRAME_WITHIN: Duration = Duration::from_secs(5);
/// From the first frame to the core's first answer.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Longest time without anything sent by us, give or take once more the same: checked at this interval.
const IDLE_MAX: Duration = Duration::from_secs(30);
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
const ACCEPT_BACKLOG: libc::c_int = 1_024;

/// The fuzz target of what a TCP connection says: its bytes as they come, in pieces of a size that the first one gives.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(input: &[u8]) {
    let Some((piece, stream)) = input.split_first() else { return };
    let mut buffer = FrameBuffer::default();
    let mut framed = 0;
    for piece in stream.chunks(usize::from(*piece).saturating_mul(16).max(1)) {
        let space = buffer.space();
        assert!(space.len() >= FRAME_BYTES_MAX, "it always takes more");
        space[..piece.len()].copy_from_slice(piece);
        buffer.filled(piece.len());
        loop {
            match buffer.next() {
                Ok(Some(frame)) => framed += frame.len() + LENGTH_BYTES,
                Ok(None) => break,
                Err(Garbage) => return,
            }
        }
    }
    assert!(framed <= stream.len());
}

#[cfg(test)]
mod tests;
