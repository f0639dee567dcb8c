//! Small things that a participant leaves for the others under a key, such as the schemas of its data frames. They last
//! as long as its session.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::notice::BlobAnswer;

#[derive(Debug, Default)]
pub(super) struct Blobs {
    by_key: BTreeMap<Bytes, Bytes>,
    bytes: usize,
}

impl Blobs {
    /// A key is used once: who has read it may rely on what it saw.
    pub(super) fn store(&mut self, key: Bytes, contents: Bytes) -> BlobAnswer {
        if self.by_key.contains_key(&key) {
            return BlobAnswer::Duplicate;
        }
        let bytes = self.bytes.saturating_add(key.len()).saturating_add(contents.len());
        if key.len() > KEY_BYTES_MAX || bytes > BYTES_MAX {
            return BlobAnswer::TooLarge;
        }
        self.bytes = bytes;
        self.by_key.insert(key.clone(), contents);
        BlobAnswer::Stored { key }
    }

    pub(super) fn get(&self, key: &Bytes) -> BlobAnswer {
        match self.by_key.get(key) {
            Some(contents) => BlobAnswer::Found { key: key.clone(), contents: contents.clone() },
            None => BlobAnswer::NotFound,
        }
    }
}

/// livekit-protocol 4.5; keys count too.
const BYTES_MAX: usize = 64_000;
const KEY_BYTES_MAX: usize = 256;
