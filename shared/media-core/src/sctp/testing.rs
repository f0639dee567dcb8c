//! SCTP written by hand, for peers that misbehave (RFC 9260 section 3).

pub(crate) const INITIAL_TSN: u32 = 0xffff_ff00;

pub(crate) fn data_with(tsn: u32, stream: u16, sequence: u16, flags: u8, protocol: u32, payload: &[u8]) -> Vec<u8> {
    let mut value = tsn.to_be_bytes().to_vec();
    value.extend_from_slice(&stream.to_be_bytes());
    value.extend_from_slice(&sequence.to_be_bytes());
    value.extend_from_slice(&protocol.to_be_bytes());
    value.extend_from_slice(payload);
    chunk(0, flags, &value)
}

pub(crate) fn init(tag: u32) -> Vec<u8> {
    let mut value = tag.to_be_bytes().to_vec();
    value.extend_from_slice(&(1_u32 << 20).to_be_bytes());
    value.extend_from_slice(&[0xff; 4]);
    value.extend_from_slice(&INITIAL_TSN.to_be_bytes());
    value.extend_from_slice(&[0xc0, 0, 0, 4]); // forward TSN supported
    chunk(1, 0, &value)
}

pub(crate) fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, flags];
    out.extend_from_slice(&(value.len() as u16 + 4).to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

pub(crate) fn packet(tag: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut out = 5000_u16.to_be_bytes().to_vec();
    out.extend_from_slice(&5000_u16.to_be_bytes());
    out.extend_from_slice(&tag.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend(chunks.iter().flatten());
    let checksum = crc32c(&out).to_le_bytes();
    out[8..12].copy_from_slice(&checksum);
    out
}

pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// Kind and value of each chunk.
pub(crate) fn chunks(packet: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut rest, mut out) = (&packet[12..], Vec::new());
    while rest.len() >= 4 {
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        out.push((rest[0], rest[4..length].to_vec()));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    out
}

/// The state cookie parameter of an INIT ACK.
pub(crate) fn cookie_of((kind, value): (u8, Vec<u8>)) -> Option<Vec<u8>> {
    let mut rest = value.get(16..).filter(|_| kind == 2)?;
    while rest.len() >= 4 {
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if rest[..2] == [0, 7] {
            return Some(rest[4..length].to_vec());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// Reads a message that opens a channel; what was read can be written again.
pub(crate) fn dcep(message: &[u8]) {
    use super::dcep::Message;
    if let Some(Message::Open(open)) = Message::parse(message) {
        assert_eq!(Message::parse(&open.encode()), Some(Message::Open(open)));
    }
}
