//! What people write to everybody, taken out of the data that they send.
//!
//! SDKs send a chat message as a stream of text, and some besides as one packet of an older kind; that one is known by the
//! same id. Where everybody says that they can undo it, a stream is deflated as a whole, whether it comes in one packet or
//! in chunks.

use std::collections::VecDeque;

use livekit_protocol::{
    self as pb,
    data_packet::Value,
    data_stream::{CompressionType, header::ContentHeader},
};
use miniz_oxide::inflate::{DecompressError, TINFLStatus, decompress_to_vec_with_limit};
use prost::Message as _;

/// Messages that are under way at a time. Beyond, the oldest is forgotten.
const STREAMS_MAX: usize = 256;
/// Of one message. The rest is left out.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Of one message as it was sent: text that cannot be deflated gets a little longer by it.
const SENT_BYTES_MAX: usize = TEXT_BYTES_MAX + 1024;
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
    compression: CompressionType,
    sent: Vec<u8>,
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
                let compression = CompressionType::try_from(header.compression).ok()?;
                let is_whole = header.inline_content.is_some();
                let sent = header.inline_content.unwrap_or_default();
                let stream = Stream { id: header.stream_id, identity, compression, sent };
                if is_whole {
                    return self.end(stream);
                }
                if self.streams.len() >= STREAMS_MAX {
                    self.streams.pop_front();
                }
                self.streams.push_back(stream);
                None
            }
            Value::StreamChunk(chunk) => {
                let stream =
                    self.streams.iter_mut().find(|one| one.id == chunk.stream_id && one.identity == identity)?;
                let room = SENT_BYTES_MAX.saturating_sub(stream.sent.len());
                stream.sent.extend(chunk.content.iter().take(room));
                None
            }
            Value::StreamTrailer(trailer) => {
                let is_it = |one: &Stream| one.id == trailer.stream_id && one.identity == identity;
                let at = self.streams.iter().position(is_it)?;
                let stream = self.streams.remove(at)?;
                self.end(stream)
            }
            _ => None,
        }
    }

    fn end(&mut self, stream: Stream) -> Option<Said> {
        let Stream { id, identity, compression, sent } = stream;
        let text = match compression {
            CompressionType::None => sent,
            CompressionType::DeflateRaw => inflated(&sent)?,
        };
        self.say(id, identity, String::from_utf8_lossy(&text).into_owned())
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

/// None of what is damaged or ends too early, as nobody else can read that either.
fn inflated(sent: &[u8]) -> Option<Vec<u8>> {
    match decompress_to_vec_with_limit(sent, TEXT_BYTES_MAX) {
        Ok(text) | Err(DecompressError { status: TINFLStatus::HasMoreOutput, output: text }) => Some(text),
        Err(_) => None,
    }
}

/// The fuzz target of what is said: data packets as clients get them, each behind a length of two bytes.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(input: &[u8]) {
    let mut chat = Chat::default();
    let mut rest = input;
    while let Some((&length, after)) = rest.split_first_chunk::<2>() {
        let (packet, after) = after.split_at(usize::from(u16::from_be_bytes(length)).min(after.len()));
        rest = after;
        if let Some(said) = chat.hear(packet) {
            assert!(!said.text.is_empty() && said.text.len() <= TEXT_BYTES_MAX);
        }
        assert!(chat.streams.len() <= STREAMS_MAX && chat.said.len() <= REMEMBERED_MAX);
        assert!(chat.streams.iter().all(|stream| stream.sent.len() <= SENT_BYTES_MAX));
    }
}

#[cfg(test)]
mod tests {
    use miniz_oxide::deflate::compress_to_vec;

    use super::*;

    const SENTENCE: &str =
        "The minutes of the last meeting are in the folder of the meeting before the last meeting, as ever.";
    /// [`SENTENCE`] by `CompressionStream("deflate-raw")`, and from zlib with codes that were agreed on beforehand.
    const DEFLATED: [&str; 2] = [
        "65cbd10980300c45d155de00e2345d20e28b2db40d24d1f905a15ffe5ece2d95186ddec98029b2125d2231c86cf38238d1e6d7d5fa495f6a81836a\
         cedfb841027ce8fb0b",
        "0bc94855c8cdcc2b2d492d56c84f5328017273128b4b147253534b32f3d215128b521532f3c0e269f93929a9453055300549a969f94035e81a7514\
         128b1552cb528bf400",
    ];

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
        let novel = pb::data_stream::Header { compression: 2, ..inline };
        assert_eq!(Chat::default().hear(&packet("ann", Value::StreamHeader(novel))), None);
    }

    /// The text that is written of what was sent so: in one packet, and in chunks of so many bytes.
    fn deflated(sent: &[u8], chunk_bytes: usize) -> [Option<String>; 2] {
        let Value::StreamHeader(header) = header("1", TOPIC) else { unreachable!() };
        let header = pb::data_stream::Header { compression: CompressionType::DeflateRaw.into(), ..header };
        let inline = pb::data_stream::Header { inline_content: Some(sent.to_vec()), ..header.clone() };
        let at_once = Chat::default().hear(&packet("ann", Value::StreamHeader(inline)));
        let mut chat = Chat::default();
        for value in
            [Value::StreamHeader(header)].into_iter().chain(sent.chunks(chunk_bytes).map(|one| chunk("1", one)))
        {
            assert_eq!(chat.hear(&packet("ann", value)), None);
        }
        let in_chunks = chat.hear(&packet("ann", trailer("1")));
        [at_once, in_chunks].map(|said| said.map(|said| said.text))
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn a_deflated_message_is_read_in_one_packet_and_in_chunks() {
        let long: String = (0..10_000).map(|n| format!("{n:x} ")).collect();
        for (sent, text) in [
            (bytes(DEFLATED[0]), SENTENCE),
            (bytes(DEFLATED[1]), SENTENCE),
            (compress_to_vec(long.as_bytes(), 6), &long),
            // What does not get shorter is sent as it is, with a few bytes in front.
            (compress_to_vec(long.as_bytes(), 0), &long),
        ] {
            for chunk_bytes in [7, 15_000] {
                assert_eq!(deflated(&sent, chunk_bytes), [Some(text.to_owned()), Some(text.to_owned())]);
            }
        }
    }

    #[test]
    fn a_deflated_message_that_is_too_long_is_cut_and_a_damaged_one_is_none() {
        let bomb = compress_to_vec(&vec![b'x'; 64 << 20], 9);
        assert!(bomb.len() < SENT_BYTES_MAX, "{}", bomb.len());
        assert_eq!(deflated(&bomb, 15_000), [Some("x".repeat(TEXT_BYTES_MAX)), Some("x".repeat(TEXT_BYTES_MAX))]);
        let stored = compress_to_vec(&vec![b'x'; 2 * SENT_BYTES_MAX], 0);
        assert_eq!(deflated(&stored, 15_000)[1].as_ref().unwrap().len(), TEXT_BYTES_MAX, "cut before it is inflated");
        let whole = bytes(DEFLATED[0]);
        for cut in 0..whole.len() {
            assert_eq!(deflated(&whole[..cut], 7), [None, None], "cut at {cut}");
        }
        for garbage in [&b"hello"[..], &[0xff; 100], SENTENCE.as_bytes()] {
            assert_eq!(deflated(garbage, 7), [None, None]);
        }
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
            chat.hear(&packet("ann", chunk(&last, &vec![b'x'; SENT_BYTES_MAX / 2 + 1])));
        }
        assert_eq!(chat.hear(&packet("ann", trailer(&last))).unwrap().text.len(), TEXT_BYTES_MAX);
    }
}
