//! The WebSocket edge: the only file that names actix-web-actors.
//!
//! This actor runs only while HTTP wants response bytes: a client that stops reading freezes it, timers included. So it
//! holds nothing that matters, and eviction comes from outside, through the socket handle taken at accept.

use std::{
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix::{Actor, ActorContext, Addr, AsyncContext, Handler, Message, Running, StreamHandler};
use actix_http::ws::Item;
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws;
use futures_util::StreamExt;
use plenary_room_core::session::SocketEnd;

use super::{Edge, EdgeFull, EdgeId, ToEdge};
use crate::{
    events::SocketEvicted,
    front::convert::{self, Encoding, ServerIdentity},
    participant::{Attach, EdgeGone, FromClient, Participant, Resumption},
};

/// One client's WebSocket.
pub struct Socket {
    id: EdgeId,
    participant: Option<Addr<Participant>>,
    resumption: Option<Resumption>,
    handle: Option<SocketHandle>,
    server: Arc<ServerIdentity>,
    /// Frames in the encoding the client last used.
    encoding: Encoding,
    message: Vec<u8>,
    message_encoding: Encoding,
    frame_bytes_max: usize,
    /// Said instead of a session, then the socket closes.
    last_word: Option<ToEdge>,
    /// Our close frame is out, and nothing follows it (RFC 6455 5.5.1).
    is_closing: bool,
}

/// The accepted connection, duplicated so that it can be shut from outside.
#[derive(Debug, Clone)]
pub struct SocketHandle(Arc<TcpStream>);

impl SocketHandle {
    /// For `HttpServer::on_connect`. Connections that are no TCP stream cannot be evicted and have no handle.
    pub fn of(io: &dyn std::any::Any) -> Option<Self> {
        use std::os::fd::AsFd;
        let fd = crate::front::tcp(io)?.as_fd().try_clone_to_owned().ok()?;
        Some(Self(Arc::new(TcpStream::from(fd))))
    }

    fn shut(&self) {
        // The connection may be gone already, which is what was wanted.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// What the upgrade hands over.
#[derive(Debug)]
pub struct Upgrade {
    pub participant: Addr<Participant>,
    /// Set when the client comes back to a session that exists.
    pub resumption: Option<Resumption>,
}

/// Answers the upgrade and binds the socket to its participant.
pub fn open(
    request: &HttpRequest,
    body: web::Payload,
    upgrade: Result<Upgrade, ToEdge>,
    server: Arc<ServerIdentity>,
    frame_bytes_max: usize,
) -> Result<HttpResponse, actix_web::Error> {
    let (participant, resumption, last_word) = match upgrade {
        Ok(Upgrade { participant, resumption }) => (Some(participant), resumption, None),
        Err(word) => (None, None, Some(word)),
    };
    let socket = Socket {
        id: EdgeId(NEXT_EDGE.fetch_add(1, Ordering::Relaxed)),
        participant,
        resumption,
        handle: request.conn_data::<SocketHandle>().cloned(),
        server,
        encoding: Encoding::Binary,
        message: Vec::new(),
        message_encoding: Encoding::Binary,
        frame_bytes_max,
        last_word,
        is_closing: false,
    };
    // A client that says leave and is gone makes a broken body of what still holds its last frames; ending it instead lets
    // them be read.
    let body = body.take_while(|chunk| std::future::ready(chunk.is_ok()));
    ws::WsResponseBuilder::new(socket, request, body).frame_size(frame_bytes_max).start()
}

impl Actor for Socket {
    type Context = ws::WebsocketContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(PING_INTERVAL, |_, ctx| ctx.ping(b""));
        let Some(participant) = &self.participant else {
            if let Some(word) = self.last_word.take() {
                self.write(word, ctx);
            }
            self.close(SocketEnd::Ended, ctx);
            return;
        };
        let edge = WsEdge { addr: ctx.address(), handle: self.handle.clone() };
        let attach = Attach { id: self.id, edge: Box::new(edge), resumption: self.resumption.take() };
        // The one message whose loss would leave a session without a voice; its participant was found a moment ago.
        participant.do_send(attach);
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        if let Some(participant) = &self.participant {
            participant.do_send(EdgeGone { id: self.id });
        }
        Running::Stop
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Socket {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, ctx: &mut Self::Context) {
        match message {
            Ok(ws::Message::Binary(bytes)) => self.on_frame(&bytes, Encoding::Binary, ctx),
            Ok(ws::Message::Text(text)) => self.on_frame(text.as_bytes(), Encoding::Json, ctx),
            Ok(ws::Message::Continuation(item)) => self.on_continuation(item, ctx),
            Ok(ws::Message::Ping(bytes)) => ctx.pong(&bytes),
            Ok(ws::Message::Pong(_) | ws::Message::Nop) => {}
            Ok(ws::Message::Close(_)) => {
                self.say_close(ws::CloseCode::Normal.into(), ctx);
                ctx.stop();
            }
            Err(ws::ProtocolError::Overflow) => self.refuse(ws::CloseCode::Size, "message is too large", ctx),
            Err(_) => self.refuse(ws::CloseCode::Protocol, "broken WebSocket framing", ctx),
        }
    }
}

impl Handler<Outbound> for Socket {
    type Result = ();

    fn handle(&mut self, Outbound(message): Outbound, ctx: &mut Self::Context) {
        match message {
            ToEdge::Close(end) => self.close(end, ctx),
            message => self.write(message, ctx),
        }
    }
}

impl Socket {
    fn on_continuation(&mut self, item: Item, ctx: &mut ws::WebsocketContext<Self>) {
        let (part, last) = match item {
            Item::FirstText(part) => {
                (self.message, self.message_encoding) = (Vec::new(), Encoding::Json);
                (part, false)
            }
            Item::FirstBinary(part) => {
                (self.message, self.message_encoding) = (Vec::new(), Encoding::Binary);
                (part, false)
            }
            Item::Continue(part) => (part, false),
            Item::Last(part) => (part, true),
        };
        if self.message.len().saturating_add(part.len()) > self.frame_bytes_max {
            self.refuse(ws::CloseCode::Size, "message is too large", ctx);
            return;
        }
        self.message.extend_from_slice(&part);
        if last {
            let message = std::mem::take(&mut self.message);
            self.on_frame(&message, self.message_encoding, ctx);
        }
    }

    fn on_frame(&mut self, frame: &[u8], encoding: Encoding, ctx: &mut ws::WebsocketContext<Self>) {
        self.encoding = encoding;
        let signal = match convert::decode(frame, encoding) {
            Ok(signal) => signal,
            Err(_) => return self.refuse(ws::CloseCode::Invalid, "frame is not a SignalRequest", ctx),
        };
        let Some(participant) = &self.participant else { return };
        if participant.try_send(FromClient { id: self.id, signal }).is_err() {
            // This client says more than its session can take in.
            self.refuse(ws::CloseCode::Policy, "too many messages", ctx);
        }
    }

    fn write(&self, message: ToEdge, ctx: &mut ws::WebsocketContext<Self>) {
        if self.is_closing {
            return;
        }
        let bytes = match message {
            ToEdge::Signal(signal) => convert::encode(&signal, &self.server, unix_ms(), self.encoding),
            ToEdge::RefreshToken(token) => convert::encode_refresh_token(token, self.encoding),
            ToEdge::Close(_) => return,
        };
        match self.encoding {
            Encoding::Binary => ctx.binary(bytes),
            Encoding::Json => ctx.text(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    fn close(&mut self, end: SocketEnd, ctx: &mut ws::WebsocketContext<Self>) {
        let code = match end {
            SocketEnd::TooManyMessages => ws::CloseCode::Policy,
            SocketEnd::Left | SocketEnd::Ended | SocketEnd::Silent => ws::CloseCode::Normal,
            SocketEnd::Moved => ws::CloseCode::Restart,
            // Looks to the client like a socket that broke.
            SocketEnd::Simulated | SocketEnd::Replaced => ws::CloseCode::Away,
        };
        self.say_close(code.into(), ctx);
        // Gives the last messages time to leave before the connection ends.
        ctx.run_later(FLUSH_GRACE, |_, ctx| ctx.stop());
    }

    fn refuse(&mut self, code: ws::CloseCode, why: &str, ctx: &mut ws::WebsocketContext<Self>) {
        self.say_close((code, why.to_owned()).into(), ctx);
        ctx.stop();
    }

    /// One close frame: clients take a second one for a fault.
    fn say_close(&mut self, reason: ws::CloseReason, ctx: &mut ws::WebsocketContext<Self>) {
        if !std::mem::replace(&mut self.is_closing, true) {
            ctx.close(Some(reason));
        }
    }
}

/// The participant's hold on the socket. One kept address, so that the mailbox bound holds.
#[derive(Debug)]
struct WsEdge {
    addr: Addr<Socket>,
    handle: Option<SocketHandle>,
}

impl Edge for WsEdge {
    fn send(&self, message: ToEdge) -> Result<(), EdgeFull> {
        self.addr.try_send(Outbound(message)).map_err(|refused| EdgeFull(refused.into_inner().0))
    }

    fn evict(&self) {
        // It may have ended by itself.
        if !self.addr.connected() {
            return;
        }
        SocketEvicted { reason: "slow_consumer" }.emit();
        if let Some(handle) = &self.handle {
            handle.shut();
        }
    }
}

#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Outbound(ToEdge);

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

static NEXT_EDGE: AtomicU64 = AtomicU64::new(1);

/// Messages that wait for a client to read.
const MAILBOX: usize = 256;

/// Keeps balancers from thinking the socket idle.
const PING_INTERVAL: Duration = Duration::from_secs(10);

const FLUSH_GRACE: Duration = Duration::from_millis(250);
