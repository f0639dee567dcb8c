//! Data-channel messages: read, addressed and stamped.

use bytes::{BufMut, Bytes, BytesMut};
use livekit_protocol as pb;
use pb::data_packet::Value;
use plenary_model::{Channel, Destination, Identity, Participant, ParticipantSid};
use plenary_room_core::signal::{ClientData, DataKind};
use prost::Message as _;

use super::BadFrame;

/// A data-channel message: checked, addressed, and stamped with who really sent it.
///
/// The client's own bytes are forwarded, so that fields this version does not know survive. The stamp is appended:
/// protobuf readers take the last value of a scalar field, and merge a repeated message field into the first.
pub fn client_data(channel: Channel, message: Bytes, sender: &Participant) -> Result<ClientData, BadFrame> {
    let packet = pb::DataPacket::decode(message.clone()).map_err(|_| BadFrame::MalformedData)?;
    let kind = match &packet.value {
        Some(Value::Transcription(_)) => DataKind::Transcription,
        Some(Value::Metrics(_)) => DataKind::Metrics,
        _ => DataKind::Ordinary,
    };
    let to = destination(&packet);
    let payload = stamp(channel, &message, &packet, sender);
    Ok(ClientData { channel, kind, sequence: packet.sequence, to, payload })
}

/// A message from the server itself to everybody or to those named.
pub fn server_data(
    channel: Channel,
    payload: Vec<u8>,
    topic: Option<String>,
    nonce: Vec<u8>,
    to: &Destination,
) -> Bytes {
    let mut user = pb::UserPacket { payload, topic, nonce, ..pb::UserPacket::default() };
    let mut packet = pb::DataPacket::default();
    name_destinations(&mut user, &mut packet, to);
    set_kind(&mut packet, channel);
    packet.value = Some(Value::User(user));
    packet.encode_to_vec().into()
}

#[allow(deprecated)]
fn destination(packet: &pb::DataPacket) -> Destination {
    let (mut identities, mut sids) = (packet.destination_identities.clone(), Vec::new());
    if let Some(Value::User(user)) = &packet.value {
        if identities.is_empty() {
            identities.clone_from(&user.destination_identities);
        }
        sids.clone_from(&user.destination_sids);
    }
    if !identities.is_empty() {
        // A name nobody can have reaches nobody, which is not the same as everybody.
        Destination::Identities(identities.iter().filter_map(|name| Identity::try_from(name.as_str()).ok()).collect())
    } else if !sids.is_empty() {
        Destination::Sids(sids.into_iter().map(ParticipantSid::from).collect())
    } else {
        Destination::Everybody
    }
}

#[allow(deprecated)]
fn name_destinations(user: &mut pb::UserPacket, packet: &mut pb::DataPacket, to: &Destination) {
    match to {
        Destination::Everybody => {}
        Destination::Identities(identities) => {
            user.destination_identities = identities.iter().map(Identity::to_string).collect();
            packet.destination_identities.clone_from(&user.destination_identities);
        }
        Destination::Sids(sids) => user.destination_sids = sids.iter().map(ParticipantSid::to_string).collect(),
    }
}

#[allow(deprecated)]
fn set_kind(packet: &mut pb::DataPacket, channel: Channel) {
    packet.kind = match channel {
        Channel::Reliable => pb::data_packet::Kind::Reliable,
        Channel::Lossy | Channel::DataTrack => pb::data_packet::Kind::Lossy,
    } as i32;
}

fn stamp(channel: Channel, message: &[u8], packet: &pb::DataPacket, sender: &Participant) -> Bytes {
    // Hidden people speak without a name.
    let hidden = sender.permission.hidden;
    let identity = if hidden { "" } else { sender.identity.as_str() };
    let sid = if hidden { "" } else { sender.sid.as_str() };
    let kind = u64::from(channel != Channel::Reliable);
    let mut out = BytesMut::with_capacity(message.len().saturating_add(STAMP_BYTES_MAX));
    out.extend_from_slice(message);
    put_number(&mut out, tag::KIND, kind);
    put_text(&mut out, tag::PARTICIPANT_IDENTITY, identity);
    put_text(&mut out, tag::PARTICIPANT_SID, sid);
    if matches!(packet.value, Some(Value::User(_))) {
        let mut user = BytesMut::with_capacity(STAMP_BYTES_MAX / 2);
        put_text(&mut user, tag::USER_PARTICIPANT_SID, sid);
        put_text(&mut user, tag::USER_PARTICIPANT_IDENTITY, identity);
        prost::encoding::encode_key(tag::USER, prost::encoding::WireType::LengthDelimited, &mut out);
        prost::encoding::encode_varint(user.len() as u64, &mut out);
        out.extend_from_slice(&user);
    }
    out.freeze()
}

/// Written even when it is the default, because it must override what stands before it.
fn put_text(out: &mut BytesMut, field: u32, text: &str) {
    prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(text.len() as u64, out);
    out.put_slice(text.as_bytes());
}

fn put_number(out: &mut BytesMut, field: u32, value: u64) {
    prost::encoding::encode_key(field, prost::encoding::WireType::Varint, out);
    prost::encoding::encode_varint(value, out);
}

/// Field numbers of `DataPacket` and `UserPacket` that the stamp writes; a test holds them to the generated types.
mod tag {
    pub(super) const KIND: u32 = 1;
    pub(super) const USER: u32 = 2;
    pub(super) const PARTICIPANT_IDENTITY: u32 = 4;
    pub(super) const PARTICIPANT_SID: u32 = 17;
    pub(super) const USER_PARTICIPANT_SID: u32 = 1;
    pub(super) const USER_PARTICIPANT_IDENTITY: u32 = 5;
}

/// Two identities and two sids at their longest, with keys and lengths.
const STAMP_BYTES_MAX: usize = 1024;
