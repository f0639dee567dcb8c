//! How values of the model stand in JSON: as the text they are elsewhere.

use std::{fmt::Display, str::FromStr};

use plenary_model::{Codec, Source};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

pub(super) mod id {
    use super::*;

    pub(in super::super) fn serialize<T: Display, S: Serializer>(id: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(in super::super) fn deserialize<'de, T: From<String>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        String::deserialize(from).map(T::from)
    }
}

pub(super) mod ids {
    use super::*;

    pub(in super::super) fn serialize<T: Display, S: Serializer>(ids: &[T], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(ids.iter().map(T::to_string))
    }

    pub(in super::super) fn deserialize<'de, T: From<String>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<T>, D::Error> {
        Ok(Vec::<String>::deserialize(from)?.into_iter().map(T::from).collect())
    }
}

/// Of an [`Epoch`](super::Epoch) or a [`TrackFile`](super::TrackFile), which read nothing but the form they have.
pub(super) mod name {
    use super::*;

    pub(in super::super) use super::id::serialize;

    pub(in super::super) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

pub(super) mod codec {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(codec: &Codec, to: S) -> Result<S::Ok, S::Error> {
        codec.name().serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Codec, D::Error> {
        let name = String::deserialize(from)?;
        let codec = Codec::ALL.into_iter().find(|codec| codec.name() == name);
        codec.ok_or_else(|| D::Error::custom("no codec we know"))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Source", rename_all = "snake_case")]
pub(super) enum SourceText {
    Camera,
    Microphone,
    ScreenShare,
    ScreenShareAudio,
    #[serde(other)]
    Unknown,
}
