//! What nodes say to each other is sealed with the cluster's key, so that who can write to Redis cannot pass for a node.

use std::sync::Arc;

use aws_lc_rs::hmac;
use prost::Message;

use super::wire::{self, Envelope};

#[derive(Debug, Clone)]
pub(super) struct Seal(Arc<Keys>);

#[derive(Debug)]
struct Keys {
    /// Seals and opens.
    first: hmac::Key,
    /// Open only: while nodes change keys.
    others: Vec<hmac::Key>,
}

impl Seal {
    /// None without a key.
    pub(super) fn new(keys: &[Vec<u8>]) -> Option<Self> {
        let mut keys = keys.iter().map(|key| hmac::Key::new(hmac::HMAC_SHA256, key));
        Some(Self(Arc::new(Keys { first: keys.next()?, others: keys.collect() })))
    }

    pub(super) fn close(&self, channel: &str, message: &impl Message) -> Vec<u8> {
        let message = message.encode_to_vec();
        let mut context = hmac::Context::with_key(&self.0.first);
        context.update(channel.as_bytes());
        context.update(&[0]);
        context.update(&message);
        Envelope { message: message.into(), mac: context.sign().as_ref().to_vec().into() }.encode_to_vec()
    }

    pub(super) fn open<T: Message + Default>(&self, channel: &str, bytes: &[u8]) -> wire::Read<T> {
        let Envelope { message, mac } = wire::decode(bytes)?;
        let sealed = [channel.as_bytes(), &[0], &message].concat();
        let opens = |key: &hmac::Key| hmac::verify(key, &sealed, &mac).is_ok();
        if !opens(&self.0.first) && !self.0.others.iter().any(opens) {
            return Err(wire::Unreadable);
        }
        wire::decode(&message)
    }
}
