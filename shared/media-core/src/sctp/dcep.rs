//! The Data Channel Establishment Protocol (RFC 8832): two messages.

use plenary_model::Channel;

/// A DATA_CHANNEL_OPEN, as far as it concerns us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    /// `None` for a label we have no use for.
    pub channel: Option<Channel>,
    pub unordered: bool,
    pub reliability: Reliability,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reliability {
    Full,
    Retransmissions(u32),
    LifetimeMs(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    Open(Open),
    Ack,
}

pub(super) const ACK: [u8; 1] = [TYPE_ACK];

impl Message {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match *bytes.first()? {
            TYPE_ACK => Some(Self::Ack),
            TYPE_OPEN => Open::parse(bytes).map(Self::Open),
            _ => None,
        }
    }
}

impl Open {
    /// How we open a channel of ours.
    pub fn ours(channel: Channel) -> Self {
        match channel {
            Channel::Reliable => Self { channel: Some(channel), unordered: false, reliability: Reliability::Full },
            Channel::Lossy | Channel::DataTrack => {
                Self { channel: Some(channel), unordered: true, reliability: Reliability::Retransmissions(0) }
            }
        }
    }

    /// RFC 8832 section 5.1; priority "normal", no protocol.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, parameter) = match self.reliability {
            Reliability::Full => (0, 0),
            Reliability::Retransmissions(count) => (1, count),
            Reliability::LifetimeMs(lifetime) => (2, lifetime),
        };
        let label = self.channel.map(label).unwrap_or_default();
        let mut out = vec![TYPE_OPEN, if self.unordered { kind | UNORDERED } else { kind }, 1, 0];
        out.extend_from_slice(&parameter.to_be_bytes());
        out.extend_from_slice(&u16::try_from(label.len()).unwrap_or_default().to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(label.as_bytes());
        out
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let ([_, kind, _, _, p0, p1, p2, p3, l0, l1, q0, q1], rest) = bytes.split_first_chunk::<12>()?;
        let parameter = u32::from_be_bytes([*p0, *p1, *p2, *p3]);
        let (label_bytes, protocol) = rest.split_at_checked(usize::from(u16::from_be_bytes([*l0, *l1])))?;
        if protocol.len() != usize::from(u16::from_be_bytes([*q0, *q1])) {
            return None;
        }
        let reliability = match kind & !UNORDERED {
            0 => Reliability::Full,
            1 => Reliability::Retransmissions(parameter),
            2 => Reliability::LifetimeMs(parameter),
            _ => return None,
        };
        let channel = ALL_CHANNELS.into_iter().find(|channel| label(*channel).as_bytes() == label_bytes);
        Some(Self { channel, unordered: kind & UNORDERED != 0, reliability })
    }
}

fn label(channel: Channel) -> &'static str {
    match channel {
        Channel::Reliable => "_reliable",
        Channel::Lossy => "_lossy",
        Channel::DataTrack => "_data_track",
    }
}

pub(super) const ALL_CHANNELS: [Channel; 3] = [Channel::Reliable, Channel::Lossy, Channel::DataTrack];
const TYPE_ACK: u8 = 0x02;
const TYPE_OPEN: u8 = 0x03;
const UNORDERED: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_write_we_read() {
        for channel in ALL_CHANNELS {
            let open = Open::ours(channel);
            assert_eq!(Message::parse(&open.encode()), Some(Message::Open(open)));
        }
        assert_eq!(Message::parse(&ACK), Some(Message::Ack));
    }

    #[test]
    fn an_open_of_a_browser_is_read() {
        // {ordered: false, maxRetransmits: 1, label: "_lossy", protocol: "p"}
        let bytes = b"\x03\x81\x01\x00\x00\x00\x00\x01\x00\x06\x00\x01_lossyp";
        let open =
            Open { channel: Some(Channel::Lossy), unordered: true, reliability: Reliability::Retransmissions(1) };
        assert_eq!(Message::parse(bytes), Some(Message::Open(open)));
        let bytes = b"\x03\x02\x01\x00\x00\x00\x01\x00\x00\x04\x00\x00chat";
        let open = Open { channel: None, unordered: false, reliability: Reliability::LifetimeMs(256) };
        assert_eq!(Message::parse(bytes), Some(Message::Open(open)));
    }

    #[test]
    fn lies_about_lengths_and_kinds_are_refused() {
        let good = Open::ours(Channel::Reliable).encode();
        for length in 0..good.len() {
            assert_eq!(Message::parse(&good[..length]), None, "{length} bytes");
        }
        for (at, value) in [(0, 9), (1, 3), (1, 0x7f), (9, 10), (9, 8), (8, 1), (11, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(Message::parse(&bad), None, "byte {at} = {value}");
        }
    }
}
