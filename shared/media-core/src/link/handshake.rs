//! How two routers come to share keys: Hello and Accept, authenticated with the cluster's key (`link.proto`).
//!
//! Nothing is decoded, and nothing remembered, before the authentication code was found right. Whoever lacks the cluster's
//! key gets no answer.

use aws_lc_rs::{
    agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral},
    hkdf,
    hmac::{self, HMAC_SHA256},
    rand::SystemRandom,
};
use prost::Message;

use super::{
    ACCEPT, HELLO,
    message::{Accept, Hello, RouterName},
    session::{KEY_BYTES, SessionKeys},
};
use crate::{DropReason, RouterId};

/// The cluster's keys: all are good, the first signs.
pub(crate) struct ClusterKeys(Vec<hmac::Key>);

/// A Hello of ours that waits for its answer.
pub(super) struct Opening {
    pub(super) session: u32,
    pub(super) datagram: Vec<u8>,
    key: usize,
    secret: EphemeralPrivateKey,
}

/// A Hello or Accept whose author has the cluster's key.
#[derive(Debug)]
pub(crate) struct Authentic<M> {
    pub(crate) message: M,
    pub(crate) from: RouterId,
    pub(crate) to: RouterId,
    /// Which of the keys.
    key: usize,
}

impl std::fmt::Debug for ClusterKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("session", &self.session).finish_non_exhaustive()
    }
}

impl ClusterKeys {
    pub(crate) fn new(keys: &[Vec<u8>]) -> Self {
        Self(keys.iter().map(|key| hmac::Key::new(HMAC_SHA256, key)).collect())
    }

    pub(crate) fn hello(&self, datagram: &[u8]) -> Result<Authentic<Hello>, DropReason> {
        let (key, message) = self.verify::<Hello>(datagram)?;
        let (from, to) = (named_router(message.from.as_ref())?, named_router(message.to.as_ref())?);
        Ok(Authentic { message, from, to, key })
    }

    pub(crate) fn accept(&self, datagram: &[u8]) -> Result<Authentic<Accept>, DropReason> {
        let (key, message) = self.verify::<Accept>(datagram)?;
        let (from, to) = (named_router(message.from.as_ref())?, named_router(message.to.as_ref())?);
        Ok(Authentic { message, from, to, key })
    }

    /// `session` is what the new session will be called in what we receive.
    pub(super) fn open(&self, from: &RouterId, to: &RouterId, session: u32, sequence: u64) -> Option<Opening> {
        let (secret, public_key) = ephemeral()?;
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            from: Some(router_name(from)),
            to: Some(router_name(to)),
            public_key,
            session,
            sequence,
        };
        Some(Opening { session, datagram: self.sign(0, HELLO, &hello.encode_to_vec())?, key: 0, secret })
    }

    /// The answer to a Hello, and the keys that go with it.
    pub(super) fn answer(
        &self,
        hello: &Authentic<Hello>,
        datagram: &[u8],
        session: u32,
    ) -> Result<(Vec<u8>, SessionKeys), DropReason> {
        let Hello { version_min, version_max, public_key: theirs, session: hello_session, .. } = &hello.message;
        let version = VERSION_MAX.min(*version_max);
        if version < VERSION_MIN.max(*version_min) {
            return Err(DropReason::LinkVersion);
        }
        let (secret, public_key) = ephemeral().ok_or(DropReason::LinkMalformed)?;
        let accept = Accept {
            version,
            from: Some(router_name(&hello.to)),
            to: Some(router_name(&hello.from)),
            public_key,
            session,
            hello_session: *hello_session,
        };
        let accept = self.sign(hello.key, ACCEPT, &accept.encode_to_vec()).ok_or(DropReason::LinkMalformed)?;
        let key = self.0.get(hello.key).ok_or(DropReason::LinkMalformed)?;
        let [theirs, ours] = agree(key, secret, theirs, datagram, &accept)?;
        Ok((accept, SessionKeys { version, seal: ours, open: theirs }))
    }

    /// The keys that an answer to our Hello brings.
    pub(super) fn answered(
        &self,
        opening: Opening,
        accept: &Authentic<Accept>,
        datagram: &[u8],
    ) -> Result<SessionKeys, DropReason> {
        let version = accept.message.version;
        if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
            return Err(DropReason::LinkVersion);
        }
        // Answered with the key it was asked with.
        let key = self.0.get(opening.key).filter(|_| accept.key == opening.key).ok_or(DropReason::LinkNotAuthentic)?;
        let [ours, theirs] = agree(key, opening.secret, &accept.message.public_key, &opening.datagram, datagram)?;
        Ok(SessionKeys { version, seal: ours, open: theirs })
    }

    fn verify<M: Message + Default>(&self, datagram: &[u8]) -> Result<(usize, M), DropReason> {
        if datagram.len() > HANDSHAKE_BYTES_MAX {
            return Err(DropReason::LinkMalformed);
        }
        let (kind, rest) = datagram.split_first().ok_or(DropReason::LinkMalformed)?;
        let (code, body) = rest.split_first_chunk::<MAC_BYTES>().ok_or(DropReason::LinkMalformed)?;
        let right = self.0.iter().position(|key| {
            let mut context = hmac::Context::with_key(key);
            context.update(&[*kind]);
            context.update(body);
            // Compared in constant time.
            subtle::ConstantTimeEq::ct_eq(context.sign().as_ref(), code.as_slice()).into()
        });
        let key = right.ok_or(DropReason::LinkNotAuthentic)?;
        Ok((key, M::decode(body).map_err(|_| DropReason::LinkMalformed)?))
    }

    /// The datagram of a kind with this body.
    pub(crate) fn sign(&self, key: usize, kind: u8, body: &[u8]) -> Option<Vec<u8>> {
        let mut context = hmac::Context::with_key(self.0.get(key)?);
        context.update(&[kind]);
        context.update(body);
        Some([&[kind], context.sign().as_ref(), body].concat())
    }
}

/// A key pair that is used once. Its randomness is aws-lc-rs' own.
fn ephemeral() -> Option<(EphemeralPrivateKey, Vec<u8>)> {
    let secret = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).ok()?;
    let public = secret.compute_public_key().ok()?.as_ref().to_vec();
    Some((secret, public))
}

/// The key of who said Hello, and that of who answered.
fn agree(
    key: &hmac::Key,
    secret: EphemeralPrivateKey,
    theirs: &[u8],
    hello: &[u8],
    accept: &[u8],
) -> Result<[[u8; KEY_BYTES]; 2], DropReason> {
    let mut context = hmac::Context::with_key(key);
    context.update(hello);
    context.update(accept);
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, context.sign().as_ref());
    let theirs = UnparsedPublicKey::new(&X25519, theirs);
    agree_ephemeral(secret, theirs, DropReason::LinkMalformed, |secret| {
        let mut keys = [0; 2 * KEY_BYTES];
        let derived = salt.extract(secret);
        let derived = derived.expand(&[b"plenary link 1"], KeysLength);
        derived.and_then(|keying| keying.fill(&mut keys)).map_err(|_| DropReason::LinkMalformed)?;
        let (first, second) = keys.split_at(KEY_BYTES);
        let half = |half: &[u8]| half.try_into().map_err(|_| DropReason::LinkMalformed);
        Ok([half(first)?, half(second)?])
    })
}

struct KeysLength;

impl hkdf::KeyType for KeysLength {
    fn len(&self) -> usize {
        2 * KEY_BYTES
    }
}

pub(crate) fn router_name(router: &RouterId) -> RouterName {
    RouterName { node: router.node.as_str().to_owned(), boot: router.boot, index: router.index.into() }
}

pub(crate) fn named_router(name: Option<&RouterName>) -> Result<RouterId, DropReason> {
    let name = name.ok_or(DropReason::LinkMalformed)?;
    let index = u16::try_from(name.index).map_err(|_| DropReason::LinkMalformed)?;
    Ok(RouterId { node: name.node.as_str().into(), boot: name.boot, index })
}

/// What this version speaks.
const VERSION_MIN: u32 = 1;
const VERSION_MAX: u32 = RELAYS_FROM;
/// Since this version a router pulls for another what is published at a third.
pub(super) const RELAYS_FROM: u32 = 2;
const MAC_BYTES: usize = 32;
/// Room for the longest node names.
const HANDSHAKE_BYTES_MAX: usize = 768;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u16) -> RouterId {
        RouterId { node: "ND_a".into(), boot: 7, index }
    }

    fn keys(secrets: &[&[u8]]) -> ClusterKeys {
        ClusterKeys::new(&secrets.iter().map(|secret| secret.to_vec()).collect::<Vec<_>>())
    }

    /// Whether two routers with these keys come to the same session keys.
    fn agree_over(asks: &ClusterKeys, answers: &ClusterKeys) -> Result<(), DropReason> {
        let opening = asks.open(&id(1), &id(2), 11, 1).unwrap();
        let hello = answers.hello(&opening.datagram)?;
        assert_eq!((&hello.from, &hello.to), (&id(1), &id(2)));
        let (accept, theirs) = answers.answer(&hello, &opening.datagram, 22)?;
        let accepted = asks.accept(&accept)?;
        assert_eq!((accepted.message.session, accepted.message.hello_session), (22, 11));
        let ours = asks.answered(opening, &accepted, &accept)?;
        assert_eq!((ours.seal, ours.open), (theirs.open, theirs.seal));
        assert_ne!(ours.seal, ours.open);
        Ok(())
    }

    #[test]
    fn both_sides_come_to_the_same_keys_also_while_the_clusters_key_changes() {
        let (old, new) = (b"an old secret of the cluster".as_slice(), b"a new secret of the cluster".as_slice());
        for (asks, answers, expected) in [
            (vec![old], vec![old], Ok(())),
            (vec![old, new], vec![old], Ok(())),
            (vec![old], vec![new, old], Ok(())),
            (vec![new, old], vec![old, new], Ok(())),
            (vec![new], vec![old], Err(DropReason::LinkNotAuthentic)),
            (vec![new, old], vec![old], Err(DropReason::LinkNotAuthentic)),
        ] {
            assert_eq!(agree_over(&keys(&asks), &keys(&answers)), expected, "{asks:?} {answers:?}");
        }
    }

    #[test]
    fn a_hello_changed_anywhere_is_not_authentic() {
        let keys = keys(&[b"secret"]);
        let datagram = keys.open(&id(1), &id(2), 11, 1).unwrap().datagram;
        for at in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[at] ^= 1;
            assert_eq!(keys.hello(&changed).err(), Some(DropReason::LinkNotAuthentic), "{at}");
        }
        assert_eq!(keys.hello(&datagram[..20]).err(), Some(DropReason::LinkMalformed));
        assert_eq!(keys.hello(&[HELLO; HANDSHAKE_BYTES_MAX + 1]).err(), Some(DropReason::LinkMalformed));
        assert_eq!(keys.accept(&datagram).err(), Some(DropReason::LinkMalformed), "it has no session that it answers");
    }

    #[test]
    fn both_speak_the_newest_version_that_both_know() {
        let keys = keys(&[b"secret"]);
        for (newest, agreed) in [(VERSION_MIN, VERSION_MIN), (VERSION_MAX, VERSION_MAX), (VERSION_MAX + 5, VERSION_MAX)]
        {
            let opening = keys.open(&id(1), &id(2), 11, 1).unwrap();
            let mut hello = keys.hello(&opening.datagram).unwrap();
            hello.message.version_max = newest;
            let (accept, theirs) = keys.answer(&hello, &opening.datagram, 22).unwrap();
            let ours = keys.answered(opening, &keys.accept(&accept).unwrap(), &accept).unwrap();
            assert_eq!((theirs.version, ours.version), (agreed, agreed));
        }
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let keys = keys(&[b"secret"]);
        let opening = keys.open(&id(1), &id(2), 11, 1).unwrap();
        let mut hello = keys.hello(&opening.datagram).unwrap();
        (hello.message.version_min, hello.message.version_max) = (VERSION_MAX + 1, VERSION_MAX + 3);
        assert_eq!(keys.answer(&hello, &opening.datagram, 1).err(), Some(DropReason::LinkVersion));
    }
}
