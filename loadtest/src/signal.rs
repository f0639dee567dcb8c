//! One client's signalling: LiveKit's messages on a WebSocket that is never waited for.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
};

use anyhow::{Result, bail};
use livekit_protocol::{SignalRequest, SignalResponse, signal_request, signal_response};
use prost::Message as _;
use tungstenite::{ClientHandshake, Error, HandshakeError, Message, WebSocket, handshake::MidHandshake};

pub struct Signal {
    state: State,
    is_unflushed: bool,
}

enum State {
    Upgrading(MidHandshake<ClientHandshake<TcpStream>>),
    Open(Box<WebSocket<TcpStream>>),
    Closed,
}

impl Signal {
    /// Also returns the connection, to be told when something came. A refusal is a [`tungstenite::Error::Http`].
    pub fn open(server: SocketAddr, query: &str) -> Result<(Self, TcpStream)> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let watched = stream.try_clone()?;
        let state = match tungstenite::client(format!("ws://{server}/rtc?protocol=16&sdk=go&{query}"), stream) {
            Ok((socket, _)) => State::Open(Box::new(socket)),
            Err(HandshakeError::Interrupted(handshake)) => State::Upgrading(handshake),
            Err(HandshakeError::Failure(error)) => return Err(error.into()),
        };
        Ok((Self { state, is_unflushed: false }, watched))
    }

    /// The next message, if one has come.
    pub fn receive(&mut self) -> Result<Option<signal_response::Message>> {
        loop {
            match std::mem::replace(&mut self.state, State::Closed) {
                State::Upgrading(handshake) => match handshake.handshake() {
                    Ok((socket, _)) => self.state = State::Open(Box::new(socket)),
                    Err(HandshakeError::Interrupted(handshake)) => {
                        self.state = State::Upgrading(handshake);
                        return Ok(None);
                    }
                    Err(HandshakeError::Failure(error)) => return Err(error.into()),
                },
                State::Open(mut socket) => {
                    let read = socket.read();
                    self.state = State::Open(socket);
                    match read {
                        Ok(Message::Binary(frame)) => {
                            if let Some(message) = SignalResponse::decode(frame)?.message {
                                return Ok(Some(message));
                            }
                        }
                        Ok(Message::Close(why)) => bail!("the server closed: {why:?}"),
                        Ok(_) => {}
                        Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                        Err(error) => return Err(error.into()),
                    }
                }
                State::Closed => bail!("the signalling connection is closed"),
            }
        }
    }

    pub fn send(&mut self, message: signal_request::Message) -> Result<()> {
        let frame = SignalRequest { message: Some(message) }.encode_to_vec();
        let State::Open(socket) = &mut self.state else { bail!("the signalling connection is not open") };
        self.is_unflushed = is_pending(socket.send(Message::binary(frame)))?;
        Ok(())
    }

    /// Sends what did not fit before.
    pub fn flush(&mut self) -> Result<()> {
        if self.is_unflushed
            && let State::Open(socket) = &mut self.state
        {
            self.is_unflushed = is_pending(socket.flush())?;
        }
        Ok(())
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }
}

fn is_pending(sent: Result<(), Error>) -> Result<bool, Error> {
    match sent {
        Ok(()) => Ok(false),
        // Queued inside, and goes out with the next flush.
        Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}
