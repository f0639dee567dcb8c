//! What routers say to each other besides media, as `proto/plenary/v1/link.proto` describes it.

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct RouterName {
    #[prost(string, tag = "1")]
    pub(crate) node: String,
    #[prost(fixed64, tag = "2")]
    pub(crate) boot: u64,
    #[prost(uint32, tag = "3")]
    pub(crate) index: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(crate) version_min: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) version_max: u32,
    #[prost(message, optional, tag = "3")]
    pub(crate) from: Option<RouterName>,
    #[prost(message, optional, tag = "4")]
    pub(crate) to: Option<RouterName>,
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) public_key: Vec<u8>,
    #[prost(fixed32, tag = "6")]
    pub(crate) session: u32,
    #[prost(uint64, tag = "7")]
    pub(crate) sequence: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Accept {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) from: Option<RouterName>,
    #[prost(message, optional, tag = "3")]
    pub(crate) to: Option<RouterName>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) public_key: Vec<u8>,
    #[prost(fixed32, tag = "5")]
    pub(crate) session: u32,
    #[prost(fixed32, tag = "6")]
    pub(crate) hello_session: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Ack {
    #[prost(fixed64, tag = "1")]
    pub(crate) highest: u64,
    #[prost(fixed64, tag = "2")]
    pub(crate) received_0: u64,
    #[prost(fixed64, tag = "3")]
    pub(crate) received_1: u64,
    #[prost(fixed64, tag = "4")]
    pub(crate) received_2: u64,
    #[prost(fixed64, tag = "5")]
    pub(crate) received_3: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Ping {
    #[prost(uint64, tag = "1")]
    pub(crate) sent_us: u64,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) echo_us: Option<u64>,
    #[prost(uint64, tag = "3")]
    pub(crate) held_us: u64,
    #[prost(uint32, tag = "4")]
    pub(crate) heard_ms: u32,
    #[prost(bool, tag = "5")]
    pub(crate) active: bool,
    #[prost(uint32, tag = "6")]
    pub(crate) queue_ms: u32,
    #[prost(bool, optional, tag = "7")]
    pub(crate) reaches_store: Option<bool>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Want {
    #[prost(uint64, tag = "1")]
    pub(crate) version: u64,
    #[prost(message, repeated, tag = "2")]
    pub(crate) tracks: Vec<WantedTrack>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct WantedTrack {
    #[prost(string, tag = "1")]
    pub(crate) track: String,
    #[prost(uint32, tag = "2")]
    pub(crate) streams: u32,
    #[prost(uint32, optional, tag = "3")]
    pub(crate) top: Option<u32>,
    #[prost(uint64, tag = "4")]
    pub(crate) known_version: u64,
    #[prost(bool, tag = "5")]
    pub(crate) released: bool,
    #[prost(message, optional, tag = "6")]
    pub(crate) origin: Option<RouterName>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct TrackInfo {
    #[prost(string, tag = "1")]
    pub(crate) track: String,
    #[prost(uint64, tag = "2")]
    pub(crate) version: u64,
    #[prost(string, tag = "3")]
    pub(crate) participant: String,
    #[prost(uint32, tag = "4")]
    pub(crate) source: u32,
    #[prost(string, tag = "5")]
    pub(crate) mime: String,
    #[prost(string, tag = "6")]
    pub(crate) fmtp: String,
    #[prost(uint32, optional, tag = "7")]
    pub(crate) red_payload_type: Option<u32>,
    #[prost(uint32, tag = "8")]
    pub(crate) clock_rate: u32,
    #[prost(bool, tag = "9")]
    pub(crate) stereo: bool,
    #[prost(bool, tag = "10")]
    pub(crate) muted: bool,
    #[prost(bool, tag = "11")]
    pub(crate) svc: bool,
    #[prost(uint32, tag = "12")]
    pub(crate) audio_level_id: u32,
    #[prost(uint32, tag = "14")]
    pub(crate) dependency_id: u32,
    #[prost(message, repeated, tag = "15")]
    pub(crate) layers: Vec<LayerInfo>,
    #[prost(uint32, repeated, tag = "16")]
    pub(crate) streams: Vec<u32>,
    #[prost(bool, tag = "17")]
    pub(crate) trailers: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct LayerInfo {
    #[prost(string, tag = "1")]
    pub(crate) rid: String,
    #[prost(uint32, tag = "2")]
    pub(crate) width: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) height: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) bitrate_bps: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Gone {
    #[prost(string, tag = "1")]
    pub(crate) track: String,
    #[prost(bool, tag = "2")]
    pub(crate) unreachable: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Report {
    #[prost(message, repeated, tag = "1")]
    pub(crate) streams: Vec<StreamReport>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct StreamReport {
    #[prost(uint32, tag = "1")]
    pub(crate) stream: u32,
    #[prost(bool, tag = "2")]
    pub(crate) alive: bool,
    #[prost(uint64, tag = "3")]
    pub(crate) bits_per_second: u64,
    #[prost(fixed64, optional, tag = "4")]
    pub(crate) ntp: Option<u64>,
    #[prost(uint32, tag = "5")]
    pub(crate) rtp: u32,
    #[prost(uint64, tag = "6")]
    pub(crate) age_us: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct KeyRequest {
    #[prost(uint32, tag = "1")]
    pub(crate) stream: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Bye {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct LetterPart {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) part: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) parts: u32,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) contents: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct LetterTold {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
}
