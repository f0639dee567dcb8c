//! What people write to everybody, taken out of the data that they send.
//!
//! SDKs send a chat message as a stream of text, and some besides as one packet of an older kind; that one is known by the
//! same id.

use std::collections::VecDeque;

use livekit_protocol::{self as pb, data_packet::Value, data_stream::header::ContentHeader};
use prost::Message as _;

/// Messages that are under way at a time. Beyond, the oldest is forgotten.
const STREAMS_MAX: usize = 256;
/// Of one message. The rest is left out.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Messages that are remembered, so that none is taken twice.
const REMEMBERED_MAX: usize = 256;
/// The topic that SDKs give to what is written in a chat.
const TOPIC: &str = "lk.chat";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub id: String,
    /// Empty for the server's own.
    pub identity: String,
    pub text: String,
}

#[derive(Debug, Default)]
pub(super) struct Chat {
    streams: VecDeque<Stream>,
    said: VecDeque<String>,
}

#[derive(Debug)]
struct Stream {
    id: String,
    identity: String,
    text: Vec<u8>,
}

impl Chat {
    /// A data packet as clients get it. What cannot be read, and all that is no chat, says nothing.
    pub fn hear(&mut self, packet: &[u8]) -> Option<Said> {
        let packet = pb::DataPacket::decode(packet).ok()?;
        let identity = packet.participant_identity;
        match packet.value? {
            Value::ChatMessage(message) if !message.deleted => self.say(message.id, identity, message.message),
            Value::StreamHeader(header) => {
                let is_text = matches!(header.content_header, Some(ContentHeader::TextHeader(_)));
                if header.topic != TOPIC || !is_text {
                    return None;
                }
                match header.inline_content {
                    // The whole of it, if nothing has to be undone to read it.
                    Some(text) if header.compression == 0 => {
                        self.say(header.stream_id, identity, String::from_utf8_lossy(&text).into_owned())
                    }
                    Some(_) => None,
                    None => {
                        if self.streams.len() >= STREAMS_MAX {
                            self.streams.pop_front();
                        }
                        self.streams.push_back(Stream { id: header.stream_id, identity, text: Vec::new() });
                        None
                    }
                }
            }
            Value::StreamChunk(chunk) => {
                let stream =
                    self.streams.iter_mut().find(|one| one.id == chunk.stream_id && one.identity == identity)?;
                let room = TEXT_BYTES_MAX.saturating_sub(stream.text.len());
                stream.text.extend(chunk.content.iter().take(room));
                None
            }
            Value::StreamTrailer(trailer) => {
                let is_it = |one: &Stream| one.id == trailer.stream_id && one.identity == identity;
                let at = self.streams.iter().position(is_it)?;
                let Stream { id, identity, text } = self.streams.remove(at)?;
                self.say(id, identity, String::from_utf8_lossy(&text).into_owned())
            }
            _ => None,
        }
    }

    fn say(&mut self, id: String, identity: String, mut text: String) -> Option<Said> {
        if text.is_empty() || self.said.contains(&id) {
            return None;
        }
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        if self.said.len() >= REMEMBERED_MAX {
            self.said.pop_front();
        }
        self.said.push_back(id.clone());
        Some(Said { id, identity, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(identity: &str, value: Value) -> Vec<u8> {
        pb::DataPacket { participant_identity: identity.into(), value: Some(value), ..Default::default() }
            .encode_to_vec()
    }

    fn header(id: &str, topic: &str) -> Value {
        Value::StreamHeader(pb::data_stream::Header {
            stream_id: id.into(),
            topic: topic.into(),
            content_header: Some(ContentHeader::TextHeader(Default::default())),
            ..Default::default()
        })
    }

    fn chunk(id: &str, content: &[u8]) -> Value {
        let chunk = pb::data_stream::Chunk { stream_id: id.into(), content: content.to_vec(), ..Default::default() };
        Value::StreamChunk(chunk)
    }

    fn trailer(id: &str) -> Value {
        Value::StreamTrailer(pb::data_stream::Trailer { stream_id: id.into(), ..Default::default() })
    }

    fn old(id: &str, text: &str) -> Value {
        Value::ChatMessage(pb::ChatMessage { id: id.into(), message: text.into(), ..Default::default() })
    }

    #[test]
    fn a_stream_of_text_is_one_message_whoever_else_writes_meanwhile() {
        let mut chat = Chat::default();
        let ann = "grüß dich".as_bytes();
        for (who, value) in [
            ("ann", header("1", TOPIC)),
            ("bob", header("1", TOPIC)),
            ("ann", chunk("1", &ann[..3])),
            ("bob", chunk("1", b"hi")),
            ("ann", chunk("1", &ann[3..])),
        ] {
            assert_eq!(chat.hear(&packet(who, value)), None);
        }
        let said = Said { id: "1".into(), identity: "ann".into(), text: "grüß dich".into() };
        assert_eq!(chat.hear(&packet("ann", trailer("1"))), Some(said));
        assert_eq!(chat.hear(&packet("ann", old("1", "grüß dich"))), None, "the same, for older clients");
    }

    #[test]
    fn a_short_message_comes_in_one_packet() {
        let Value::StreamHeader(header) = header("1", TOPIC) else { unreachable!() };
        let inline = pb::data_stream::Header { inline_content: Some(b"hello".to_vec()), ..header };
        let said = Chat::default().hear(&packet("ann", Value::StreamHeader(inline.clone())));
        assert_eq!(said, Some(Said { id: "1".into(), identity: "ann".into(), text: "hello".into() }));
        let squeezed = pb::data_stream::Header { compression: 1, ..inline };
        assert_eq!(Chat::default().hear(&packet("ann", Value::StreamHeader(squeezed))), None);
    }

    #[test]
    fn a_message_of_the_older_kind_is_taken_too() {
        let said = Chat::default().hear(&packet("ann", old("7", "hello")));
        assert_eq!(said, Some(Said { id: "7".into(), identity: "ann".into(), text: "hello".into() }));
    }

    #[test]
    fn what_is_no_chat_says_nothing_and_what_does_not_end_is_bounded() {
        let mut chat = Chat::default();
        assert_eq!(chat.hear(b"\xff\xff"), None);
        assert_eq!(chat.hear(&packet("ann", header("1", "files"))), None);
        assert_eq!(chat.hear(&packet("ann", trailer("1"))), None);
        for n in 0..2 * STREAMS_MAX {
            chat.hear(&packet("ann", header(&n.to_string(), TOPIC)));
        }
        assert_eq!(chat.streams.len(), STREAMS_MAX);
        let last = (2 * STREAMS_MAX - 1).to_string();
        for _ in 0..3 {
            chat.hear(&packet("ann", chunk(&last, &vec![b'x'; TEXT_BYTES_MAX / 2 + 1])));
        }
        assert_eq!(chat.hear(&packet("ann", trailer(&last))).unwrap().text.len(), TEXT_BYTES_MAX);
    }
}
