//! People of whom only the signalling is there: for crowds at the door.

use std::{
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use livekit_protocol::{LeaveRequest, signal_request::Message as Request, signal_response::Message as Response};

use crate::signal::Signal;

pub struct Caller {
    signal: Signal,
    pub state: CallerState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerState {
    Asking,
    /// With the session's id.
    Seated(String),
    /// With an HTTP status.
    Refused(u16),
    /// Told to leave, or cut off.
    Ended,
}

impl Caller {
    pub fn new(server: SocketAddr, token: &str) -> Result<Self> {
        let (signal, _) = Signal::open(server, &format!("auto_subscribe=0&access_token={token}"))?;
        Ok(Self { signal, state: CallerState::Asking })
    }

    /// Takes in what has come.
    pub fn turn(&mut self) {
        while matches!(self.state, CallerState::Asking | CallerState::Seated(_)) {
            match self.signal.receive() {
                Ok(None) => return,
                Ok(Some(Response::Join(join))) => {
                    self.state = CallerState::Seated(join.participant.map(|own| own.sid).unwrap_or_default());
                }
                Ok(Some(Response::Leave(_))) => self.state = CallerState::Ended,
                Ok(Some(_)) => {}
                Err(error) => {
                    let refused = error.downcast_ref::<tungstenite::Error>().and_then(|error| match error {
                        tungstenite::Error::Http(answer) => Some(answer.status().as_u16()),
                        _ => None,
                    });
                    self.state = refused.map_or(CallerState::Ended, CallerState::Refused);
                }
            }
        }
    }

    /// Until there is a session; returns its id.
    pub fn seated(mut self, within: Duration) -> Result<String> {
        let begun = Instant::now();
        loop {
            self.turn();
            match &self.state {
                CallerState::Seated(sid) => {
                    let sid = sid.clone();
                    self.leave();
                    return Ok(sid);
                }
                CallerState::Asking if begun.elapsed() < within => sleep(Duration::from_millis(2)),
                state => bail!("no session: {state:?}"),
            }
        }
    }

    pub fn leave(mut self) {
        // Whoever is gone already cannot say so.
        let _ = self.signal.send(Request::Leave(LeaveRequest::default()));
        let _ = self.signal.flush();
    }
}

/// Takes in what has come for all, until it holds.
pub fn run_until(callers: &mut [Caller], within: Duration, holds: impl Fn(&[Caller]) -> bool) -> Option<Duration> {
    let begun = Instant::now();
    loop {
        callers.iter_mut().for_each(Caller::turn);
        if holds(callers) {
            return Some(begun.elapsed());
        }
        if begun.elapsed() > within {
            return None;
        }
        sleep(Duration::from_millis(1));
    }
}
