//! Which frames of a stream with layers one subscriber gets.
//!
//! A layer is *intact* for the subscriber while everything that belongs to it has been sent: it can be gone over to at
//! any frame, up or down. What was left out breaks the layers that needed it, until a frame comes with which they can be
//! begun again. So no frame goes out whose references were kept back, whatever the encoder's pattern is.

use super::bits::LastBits;
use crate::rtp::layers::{Frame, LayerId, Layers};

#[derive(Debug)]
pub(super) struct Selection {
    wanted: LayerId,
    current: Option<LayerId>,
    intact: Layers,
    active: Layers,
    /// Frames by number: which were decided about, and which of them were sent.
    decided: LastBits<WINDOW_WORDS>,
    sent: LastBits<WINDOW_WORDS>,
    newest: u64,
    /// Timestamp of the last picture of which something was sent.
    picture: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Send,
    KeepBack,
}

impl Selection {
    pub(super) fn new(wanted: LayerId) -> Self {
        Self {
            wanted,
            current: None,
            intact: Layers::NONE,
            active: Layers::NONE,
            decided: LastBits::up_to(0),
            sent: LastBits::up_to(0),
            newest: 0,
            picture: None,
        }
    }

    pub(super) fn want(&mut self, wanted: LayerId) {
        self.wanted = wanted;
    }

    pub(super) fn wanted(&self) -> LayerId {
        self.wanted
    }

    /// What flows; none before the first frame, and of a stream without layers.
    pub(super) fn current(&self) -> Option<LayerId> {
        self.current
    }

    /// Begins anew with a frame that needs no other.
    pub(super) fn begin(&mut self, frame: &Frame) {
        let before_it = frame.number.saturating_sub(1);
        *self = Self {
            decided: LastBits::up_to(before_it),
            sent: LastBits::up_to(before_it),
            newest: before_it,
            ..Self::new(self.wanted)
        };
    }

    /// Decides about a packet by its frame. All packets of a frame share its fate.
    pub(super) fn choose(&mut self, frame: &Frame, timestamp: u32) -> Choice {
        if frame.number > self.newest {
            self.newest = frame.number;
            self.decided.advance(frame.number);
            self.sent.advance(frame.number);
            // Within a picture nothing changes: it has one end, and that is marked.
            if self.picture != Some(timestamp) {
                self.follow(frame);
            }
        } else if let Some(true) = self.decided.get(frame.number) {
            return self.choice(frame.number);
        }
        self.decided.set(frame.number);
        if self.current.is_some_and(|current| frame.present.contains(current)) {
            self.sent.set(frame.number);
            if frame.number == self.newest {
                self.picture = Some(timestamp);
            }
        }
        // A frame that comes whole after later ones was waited for, as far as is known; it breaks nothing.
        if frame.number == self.newest {
            self.note(frame);
        }
        self.choice(frame.number)
    }

    /// Whether a frame was sent, if it was decided about and is not too old.
    pub(super) fn was_sent(&self, number: u64) -> Option<bool> {
        if self.decided.get(number)? { self.sent.get(number) } else { None }
    }

    /// Whether only a key picture leads to the spatial layer that is wanted, among those that are being sent.
    pub(super) fn needs_keyframe(&self) -> bool {
        let (Some(current), Some(best)) = (self.current, self.active.best_for(self.wanted)) else { return false };
        let is_there = !self.intact.and(Layers::row(best.spatial())).is_empty();
        let is_broken = !self.intact.contains(current);
        is_broken || (current.spatial() != best.spatial() && !is_there)
    }

    /// Goes over to the best layer that can be had from this frame on.
    fn follow(&mut self, frame: &Frame) {
        self.active = frame.active;
        let Some(target) = frame.active.best_for(self.wanted) else { return };
        let begun = if self.is_decodable(frame) { frame.switch } else { Layers::NONE };
        let candidates =
            self.intact.or(begun).and(frame.active).and(Layers::up_to(target.spatial(), target.temporal()));
        if !candidates.is_empty() {
            self.current = candidates.best_for(target);
        }
    }

    fn note(&mut self, frame: &Frame) {
        if self.sent.get(frame.number) == Some(true) {
            if self.is_decodable(frame) {
                self.intact = self.intact.or(frame.switch);
            }
        } else if frame.present.is_empty() {
            // Nothing is known of it, so anything may have needed it.
            self.intact = Layers::NONE;
        } else {
            self.intact = self.intact.without(frame.present);
        }
    }

    fn is_decodable(&self, frame: &Frame) -> bool {
        let needed = frame.needs.frames.iter().filter(|distance| **distance > 0);
        let mut needed = needed.map(|distance| frame.number.checked_sub(u64::from(*distance)));
        needed.all(|number| number.is_some_and(|number| self.sent.get(number) == Some(true)))
            && frame.needs.layer.is_none_or(|layer| self.intact.contains(layer))
    }

    fn choice(&self, number: u64) -> Choice {
        if self.sent.get(number) == Some(true) { Choice::Send } else { Choice::KeepBack }
    }
}

/// 256 frames: 64 pictures of VP9, whose numbers leave room for four layers.
const WINDOW_WORDS: usize = 4;
