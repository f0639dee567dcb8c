//! Frames as they lie in an opened datagram: kind, length, content (`link.proto`).
//!
//! Hot: once per datagram and frame. Reads in place, trusts no length.

use super::message::{Ack, Bye, Gone, KeyRequest, LetterPart, LetterTold, Ping, Report, TrackInfo, Want};
use crate::DropReason;

/// One frame in the buffer it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'d> {
    pub(crate) kind: u8,
    pub(crate) content: &'d [u8],
}

/// A message that has a kind of frame of its own.
pub(crate) trait Control: prost::Message + Default {
    const KIND: u8;
}

/// The frames of a datagram, up to the first that makes no sense.
pub(crate) fn frames(mut rest: &[u8]) -> impl Iterator<Item = Result<Frame<'_>, DropReason>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let split = rest.split_first_chunk::<FRAME_HEADER_BYTES>().and_then(|(&[kind, high, low], behind)| {
            let (content, behind) = behind.split_at_checked(u16::from_be_bytes([high, low]).into())?;
            Some((Frame { kind, content }, behind))
        });
        let (frame, behind) =
            split.map_or((Err(DropReason::LinkMalformed), &[][..]), |(frame, rest)| (Ok(frame), rest));
        rest = behind;
        Some(frame)
    })
}

/// The stream of a media frame, and the packet.
pub(crate) fn media(content: &[u8]) -> Option<(u32, &[u8])> {
    let (stream, packet) = content.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*stream), packet))
}

/// Bytes that a packet takes as a media frame.
pub(crate) fn media_bytes(packet: &[u8]) -> usize {
    packet.len().saturating_add(FRAME_HEADER_BYTES).saturating_add(4)
}

pub(crate) fn write_media(stream: u32, packet: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(packet.len().saturating_add(4)).unwrap_or(u16::MAX).to_be_bytes();
    out.push(MEDIA);
    out.extend_from_slice(&length);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(packet);
}

/// Bytes that a message takes as a frame.
pub(crate) fn control_bytes(message: &impl Control) -> usize {
    message.encoded_len().saturating_add(FRAME_HEADER_BYTES)
}

/// False if it is longer than a frame can be.
pub(crate) fn write_control<M: Control>(message: &M, out: &mut Vec<u8>) -> bool {
    let Ok(length) = u16::try_from(message.encoded_len()) else { return false };
    out.push(M::KIND);
    out.extend_from_slice(&length.to_be_bytes());
    message.encode(out).is_ok()
}

pub(crate) const MEDIA: u8 = 1;
const FRAME_HEADER_BYTES: usize = 3;

macro_rules! kinds {
    ($($message:ident $kind:literal),*) => { $(impl Control for $message { const KIND: u8 = $kind; })* };
}

kinds!(Ack 2, Ping 3, Want 4, TrackInfo 5, Gone 6, Report 7, KeyRequest 8, Bye 9, LetterPart 10, LetterTold 11);

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let mut out = Vec::new();
        write_media(7, b"packet", &mut out);
        assert_eq!(out.len(), media_bytes(b"packet"));
        assert!(write_control(&KeyRequest { stream: 9 }, &mut out));
        assert!(write_control(&Bye {}, &mut out));
        let read: Vec<_> = frames(&out).map(Result::unwrap).collect();
        assert_eq!(media(read[0].content), Some((7, &b"packet"[..])));
        assert_eq!(KeyRequest::decode(read[1].content), Ok(KeyRequest { stream: 9 }));
        assert_eq!(read.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [MEDIA, KeyRequest::KIND, Bye::KIND]);
    }

    #[test]
    fn a_length_that_lies_ends_the_datagram() {
        let mut out = Vec::new();
        write_media(7, b"packet", &mut out);
        out.extend_from_slice(&[MEDIA, 0, 9, 1, 2]);
        let read: Vec<_> = frames(&out).collect();
        assert_eq!((read.len(), read[1]), (2, Err(DropReason::LinkMalformed)));
        assert_eq!(frames(&[MEDIA]).collect::<Vec<_>>(), [Err(DropReason::LinkMalformed)]);
        assert_eq!(media(&[0, 0, 0]), None);
        assert!(!write_control(&Gone { track: "x".repeat(70_000), unreachable: false }, &mut out));
    }
}
