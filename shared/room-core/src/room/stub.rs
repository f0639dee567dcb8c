use std::time::Instant;
use plenary_model::NodeId;
use super::{Deadline, Input, Output, Settings};
#[derive(Debug)]
pub struct Room;
impl Room {
    pub fn new(_: Instant, _: NodeId, _: Settings) -> Self { Self }
    pub fn handle(&mut self, _: Instant, _: Input) {}
    pub fn handle_timeout(&mut self, _: Instant) {}
    pub fn poll_output(&mut self) -> Option<Output> { None }
    pub fn next_deadline(&self) -> Option<(Instant, Deadline)> { None }
}
