//! The server's half of connectivity: ICE-lite (RFC 8445 section 2.5).
//!
//! A lite agent waits to be checked. Everything here happens after a check was authenticated, and an authenticated check
//! is always answered; it never sends a check of its own, so it has no use for the client's credentials. The client
//! nominates, and the path it nominated last carries what we send; where it sends media from comes before that, once the
//! nominated path is silent. Nothing here reads or writes anything but STUN.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::time::{Duration, Instant};

use aws_lc_rs::hmac;

use crate::api::{DropReason, IceCredentials, Path};
use crate::demux::PATHS_PER_PEER_MAX;
use crate::stun;

#[derive(Debug)]
pub(crate) struct Ice {
    current: Local,
    /// Credentials from before a restart, until the new ones were used to nominate (RFC 8445 section 9).
    previous: Option<Local>,
    /// Paths from which a check was authenticated, the one heard last at the end.
    paths: Vec<Heard>,
    selected: Option<Path>,
    /// The last authentic datagram on any path, also one that is gone.
    last_heard: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    path: Path,
    at: Instant,
}

struct Local {
    credentials: IceCredentials,
    key: hmac::Key,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.credentials.fmt(f)
    }
}

impl Ice {
    pub fn new(credentials: IceCredentials) -> Self {
        Self { current: Local::new(credentials), previous: None, paths: Vec::new(), selected: None, last_heard: None }
    }

    pub fn credentials(&self) -> &IceCredentials {
        &self.current.credentials
    }

    /// New credentials; the old ones keep working until the client nominates with the new.
    pub fn restart(&mut self, credentials: IceCredentials) {
        self.previous = Some(std::mem::replace(&mut self.current, Local::new(credentials)));
    }

    /// One STUN datagram: the answer to send back where it came from, or why there is none.
    pub fn receive(&mut self, now: Instant, path: Path, bytes: &[u8]) -> Result<Vec<u8>, DropReason> {
        let message = stun::Message::parse(bytes).map_err(|_| DropReason::StunMalformed)?;
        let ufrag = message.local_ufrag().filter(|_| message.is_binding_request()).ok_or(DropReason::StunMalformed)?;
        let is_current = self.current.credentials.ufrag == ufrag;
        let local = if is_current { Some(&self.current) } else { self.previous.as_ref() };
        let local = local
            .filter(|local| local.credentials.ufrag == ufrag && message.is_authentic(&local.key))
            .ok_or(DropReason::StunNotAuthenticated)?;

        let refused = message.unknown().map(|unknown| message.refuse_unknown(unknown, &local.key));
        let answer = refused.clone().unwrap_or_else(|| message.success(path.remote, &local.key));
        // An authenticated flood from a spoofed address must not grow on its way.
        if answer.len().saturating_mul(2) > bytes.len().saturating_mul(3) {
            return Err(DropReason::StunMalformed);
        }
        if refused.is_none() {
            self.checked(now, path, message.nominates());
            if is_current && message.nominates() {
                self.previous = None;
            }
        }
        Ok(answer)
    }

    /// Where to send.
    pub fn selected(&self) -> Option<Path> {
        self.selected
    }

    /// Whether a check from this path was ever authenticated.
    pub fn is_validated(&self, path: Path) -> bool {
        self.selected == Some(path) || self.paths.iter().any(|heard| heard.path == path)
    }

    /// Something authentic other than a check arrived, which shows as well that the path lives. Clients send media only
    /// where they have chosen to: one whose network went away does so seconds before its next check nominates.
    pub fn heard(&mut self, now: Instant, path: Path) {
        let Some(heard) = self.paths.iter_mut().rev().find(|heard| heard.path == path) else { return };
        heard.at = now;
        self.last_heard = Some(now);
        if !self.selected_was_heard_within(now, SELECTED_QUIET) {
            self.selected = Some(path);
        }
    }

    pub fn path_closed(&mut self, path: Path) {
        self.paths.retain(|heard| heard.path != path);
        if self.selected == Some(path) {
            self.selected = self.paths.iter().max_by_key(|heard| heard.at).map(|heard| heard.path);
        }
    }

    /// When silence on every path ends the transport. `None` before the first authenticated check.
    pub fn silent_at(&self) -> Option<Instant> {
        self.last_heard?.checked_add(DISCONNECTED_AFTER)?.checked_add(FAILED_AFTER)
    }

    /// How long nothing authentic has been heard; none before the first authenticated check.
    pub fn silence(&self, now: Instant) -> Duration {
        self.last_heard.map_or(Duration::ZERO, |heard| now.saturating_duration_since(heard))
    }

    fn checked(&mut self, now: Instant, path: Path, nominates: bool) {
        self.paths.retain(|heard| heard.path != path);
        if self.paths.len() >= PATHS_PER_PEER_MAX {
            let spare = self.paths.iter().position(|heard| Some(heard.path) != self.selected);
            self.paths.remove(spare.unwrap_or_default());
        }
        self.paths.push(Heard { path, at: now });
        self.last_heard = Some(now);
        if nominates || !self.selected_was_heard_within(now, SELECTED_SILENT) {
            self.selected = Some(path);
        }
    }

    fn selected_was_heard_within(&self, now: Instant, time: Duration) -> bool {
        self.selected
            .and_then(|path| self.paths.iter().find(|heard| heard.path == path))
            .is_some_and(|selected| now.saturating_duration_since(selected.at) < time)
    }
}

impl Local {
    fn new(credentials: IceCredentials) -> Self {
        let key = stun::key(&credentials.pwd);
        Self { credentials, key }
    }
}

/// A transport that heard nothing for this long is disconnected: it may still come back.
const DISCONNECTED_AFTER: Duration = Duration::from_secs(10);
/// And after this much more it has failed.
const FAILED_AFTER: Duration = Duration::from_secs(5);
/// A selected path silent for this long gives way to any other that is checked, nominated or not. Clients repeat checks
/// on the path in use every 2 to 6 seconds (RFC 7675 section 5.1).
const SELECTED_SILENT: Duration = Duration::from_secs(7);
/// And silent for this long to another that carries media. Longer than packets of the path before may be late.
const SELECTED_QUIET: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Protocol;
    use crate::stun::testing::{binding_request, nomination, request};

    const ICE_CONTROLLED: u16 = 0x8029;
    const ICE_CONTROLLING: u16 = 0x802a;

    fn ice() -> Ice {
        Ice::new(credentials("ours"))
    }

    fn credentials(ufrag: &str) -> IceCredentials {
        IceCredentials { ufrag: ufrag.into(), pwd: format!("password-of-{ufrag}-22ch") }
    }

    fn check(ufrag: &str) -> Vec<u8> {
        binding_request(&format!("{ufrag}:theirs"), &credentials(ufrag).pwd)
    }

    fn nominate(ufrag: &str) -> Vec<u8> {
        nomination(&format!("{ufrag}:theirs"), &credentials(ufrag).pwd)
    }

    fn path(port: u16) -> Path {
        Path { protocol: Protocol::Udp, remote: ([192, 0, 2, 1], port).into() }
    }

    fn is_success(answer: &[u8]) -> bool {
        answer.starts_with(&[1, 1])
    }

    // The four tests that follow are what ICE-lite got wrong elsewhere.

    #[test]
    fn a_check_is_answered_and_nothing_else_is_sent() {
        let (mut ice, now) = (ice(), Instant::now());
        // `receive` returns one datagram, the answer, and there is no other way out of here: no triggered check.
        let answer = ice.receive(now, path(1), &check("ours")).unwrap();
        assert!(is_success(&answer));
        assert_eq!(ice.selected(), Some(path(1)), "media need not wait for a nomination");
    }

    #[test]
    fn a_first_check_that_nominates_is_answered_and_nominated_at_once() {
        let (mut ice, now) = (ice(), Instant::now());
        let answer = ice.receive(now, path(1), &nominate("ours")).unwrap();
        assert!(is_success(&answer));
        assert_eq!(ice.selected(), Some(path(1)));
    }

    #[test]
    fn a_client_that_moved_and_nominated_gets_media_at_its_new_address() {
        let (mut ice, now) = (ice(), Instant::now());
        ice.receive(now, path(1), &nominate("ours")).unwrap();
        ice.receive(now, path(2), &nominate("ours")).unwrap();
        assert_eq!(ice.selected(), Some(path(2)));
        ice.receive(now, path(1), &nominate("ours")).unwrap();
        assert_eq!(ice.selected(), Some(path(1)), "and back");
    }

    #[test]
    fn a_forged_role_conflict_changes_nothing() {
        let (mut ice, now) = (ice(), Instant::now());
        let role = [0xff; 8];
        for kind in [ICE_CONTROLLED, ICE_CONTROLLING] {
            let forged = request("ours:theirs", "a wrong password", &[(kind, &role)]);
            assert_eq!(ice.receive(now, path(66), &forged), Err(DropReason::StunNotAuthenticated));
            assert!(!ice.is_validated(path(66)));
        }
        // Authenticated, the client's claim to be controlled is no concern of an agent that never controls.
        let claimed = request("ours:theirs", &credentials("ours").pwd, &[(ICE_CONTROLLED, &role)]);
        assert!(is_success(&ice.receive(now, path(1), &claimed).unwrap()));
        assert!(is_success(&ice.receive(now, path(1), &nominate("ours")).unwrap()));
    }

    #[test]
    fn a_plain_check_displaces_only_a_silent_path() {
        let (mut ice, start) = (ice(), Instant::now());
        ice.receive(start, path(1), &nominate("ours")).unwrap();
        ice.receive(start, path(2), &check("ours")).unwrap();
        assert_eq!(ice.selected(), Some(path(1)));
        ice.heard(start + Duration::from_secs(5), path(1));
        ice.receive(start + Duration::from_secs(8), path(2), &check("ours")).unwrap();
        assert_eq!(ice.selected(), Some(path(1)), "media kept it alive");
        ice.receive(start + Duration::from_secs(13), path(2), &check("ours")).unwrap();
        assert_eq!(ice.selected(), Some(path(2)));
    }

    #[test]
    fn media_on_another_checked_path_is_followed_once_the_selected_one_is_silent() {
        let (mut ice, start) = (ice(), Instant::now());
        ice.receive(start, path(2), &check("ours")).unwrap();
        ice.receive(start, path(1), &nominate("ours")).unwrap();
        ice.heard(start + Duration::from_millis(900), path(2));
        assert_eq!(ice.selected(), Some(path(1)), "a packet that was late");
        ice.heard(start + Duration::from_millis(1_100), path(3));
        assert_eq!(ice.selected(), Some(path(1)), "nobody was ever checked there");
        ice.heard(start + Duration::from_millis(1_100), path(2));
        assert_eq!(ice.selected(), Some(path(2)));
        ice.heard(start + Duration::from_millis(1_200), path(1));
        assert_eq!(ice.selected(), Some(path(2)), "and back no sooner");
    }

    #[test]
    fn unauthenticated_messages_change_nothing_and_get_no_answer() {
        let (mut ice, now) = (ice(), Instant::now());
        let password = credentials("ours").pwd;
        let mut no_integrity = check("ours");
        no_integrity.truncate(no_integrity.len() - 32);
        let length = (no_integrity.len() - 20) as u16;
        no_integrity[2..4].copy_from_slice(&length.to_be_bytes());
        let mut wrong_fingerprint = check("ours");
        *wrong_fingerprint.last_mut().unwrap() ^= 1;
        for (what, bytes, reason) in [
            ("no integrity", no_integrity, DropReason::StunNotAuthenticated),
            ("fingerprint", wrong_fingerprint, DropReason::StunNotAuthenticated),
            ("other ufrag", binding_request("other:theirs", &password), DropReason::StunNotAuthenticated),
            ("no colon", binding_request("ours", &password), DropReason::StunMalformed),
            ("not stun", vec![0; 40], DropReason::StunMalformed),
        ] {
            assert_eq!(ice.receive(now, path(1), &bytes), Err(reason), "{what}");
        }
        assert_eq!(ice.selected(), None);
        assert_eq!(ice.silent_at(), None);
    }

    #[test]
    fn unknown_attributes_are_refused_only_if_they_must_be_understood_and_only_to_the_client() {
        let (mut ice, now) = (ice(), Instant::now());
        let password = credentials("ours").pwd;
        let optional = request("ours:theirs", &password, &[(0xc070, &[1; 200]), (0x8fff, &[])]);
        assert!(is_success(&ice.receive(now, path(1), &optional).unwrap()));
        let required = request("ours:theirs", &password, &[(0x7777, &[])]);
        let refusal = ice.receive(now, path(2), &required).unwrap();
        assert!(refusal.starts_with(&[1, 0x11]));
        assert_eq!(&refusal[20..36], &[0, 9, 0, 4, 0, 0, 4, 20, 0, 0x0a, 0, 2, 0x77, 0x77, 0, 0]);
        assert!(!ice.is_validated(path(2)));
        let forged = request("ours:theirs", "a wrong password", &[(0x7777, &[])]);
        assert_eq!(ice.receive(now, path(2), &forged), Err(DropReason::StunNotAuthenticated));
    }

    #[test]
    fn an_answer_is_never_half_as_large_again_as_its_check() {
        let mut ice = Ice::new(IceCredentials { ufrag: "o".into(), pwd: "p".into() });
        let mut small = request("o:", "p", &[]);
        // Without FINGERPRINT and PRIORITY, the least a check can be.
        small = {
            let mut bare = small[..28].to_vec();
            bare[2..4].copy_from_slice(&8u16.to_be_bytes());
            let tag = {
                let mut covered = bare.clone();
                covered[2..4].copy_from_slice(&32u16.to_be_bytes());
                hmac::sign(&stun::key("p"), &covered)
            };
            bare.extend_from_slice(&[0, 8, 0, 20]);
            bare.extend_from_slice(tag.as_ref());
            bare[2..4].copy_from_slice(&32u16.to_be_bytes());
            bare
        };
        let v6 = Path { protocol: Protocol::Udp, remote: "[2001:db8::1]:9".parse().unwrap() };
        for at in [path(1), v6] {
            let answer = ice.receive(Instant::now(), at, &small).unwrap();
            assert!(answer.len() * 2 <= small.len() * 3, "{} for {}", answer.len(), small.len());
        }
        let many: Vec<(u16, &[u8])> = (0..100).map(|n| (0x7000 + n, &[][..])).collect();
        let check = request("o:x", "p", &many);
        assert!(ice.receive(Instant::now(), path(1), &check).unwrap().len() <= check.len());
    }

    #[test]
    fn old_credentials_work_until_the_new_ones_nominate() {
        let (mut ice, now) = (ice(), Instant::now());
        ice.receive(now, path(1), &nominate("ours")).unwrap();
        ice.restart(credentials("fresh"));
        assert_eq!(ice.credentials().ufrag, "fresh");
        assert!(ice.receive(now, path(1), &nominate("ours")).is_ok());
        assert!(ice.receive(now, path(2), &check("fresh")).is_ok());
        assert!(ice.receive(now, path(1), &check("ours")).is_ok(), "a check alone retires nothing");
        ice.receive(now, path(2), &nominate("fresh")).unwrap();
        assert_eq!(ice.selected(), Some(path(2)));
        assert_eq!(ice.receive(now, path(1), &check("ours")), Err(DropReason::StunNotAuthenticated));
    }

    #[test]
    fn a_closed_path_gives_way_to_the_one_heard_last() {
        let (mut ice, start) = (ice(), Instant::now());
        ice.receive(start, path(1), &check("ours")).unwrap();
        ice.receive(start + Duration::from_secs(1), path(2), &check("ours")).unwrap();
        ice.receive(start + Duration::from_secs(2), path(3), &nominate("ours")).unwrap();
        ice.path_closed(path(3));
        assert_eq!(ice.selected(), Some(path(2)));
        ice.path_closed(path(2));
        ice.path_closed(path(1));
        assert_eq!(ice.selected(), None);
        assert_eq!(ice.silent_at(), Some(start + Duration::from_secs(17)), "silence is counted without any path");
    }

    #[test]
    fn paths_are_bounded_and_the_selected_one_stays() {
        let (mut ice, now) = (ice(), Instant::now());
        ice.receive(now, path(1), &nominate("ours")).unwrap();
        for port in 2..200 {
            ice.receive(now, path(port), &check("ours")).unwrap();
        }
        assert_eq!(ice.paths.len(), PATHS_PER_PEER_MAX);
        assert_eq!(ice.selected(), Some(path(1)));
        assert!(ice.is_validated(path(1)) && ice.is_validated(path(199)) && !ice.is_validated(path(2)));
    }
}
