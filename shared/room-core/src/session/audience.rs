//! Whom a publisher lets receive its tracks, and what that means for those who would.

use plenary_model::{Admitted, AdmittedTracks, Audience, Participant, Receiver, TrackSid};

use super::Session;
use crate::{
    notice::Request,
    signal::{About, RequestOutcome, ServerSignal},
};

/// Whether the publisher of this track lets `receiver` have it.
pub(super) fn admits(audience: &Audience, receiver: &Participant, track: &TrackSid) -> bool {
    let Audience::Only(admitted) = audience else { return true };
    admitted.iter().any(|Admitted { who, tracks }| {
        let meant = match who {
            Receiver::Identity(identity) => *identity == receiver.identity,
            Receiver::Sid(sid) => *sid == receiver.sid,
        };
        meant
            && match tracks {
                AdmittedTracks::All => true,
                AdmittedTracks::These(tracks) => tracks.contains(track),
            }
    })
}

impl Session {
    /// Our client says who may receive what it publishes; those concerned find it in its record.
    pub(super) fn on_audience(&mut self, audience: Audience) {
        if entries(&audience) > AUDIENCE_ENTRIES_MAX {
            let message = "too many subscription permissions";
            self.respond(0, RequestOutcome::LimitExceeded, message, About::Other);
            return;
        }
        self.outputs.push_back(crate::session::Output::Ask(Request::UpdateAudience { audience }));
    }

    /// Tells the client which tracks it would receive and may not, where that changed since it was told.
    pub(super) fn tell_permissions(&mut self) {
        if !self.link.is_live() {
            return;
        }
        for (publisher, track, allowed) in self.subscriptions.permissions_changed(&self.own) {
            self.send(ServerSignal::SubscriptionPermission { publisher, track, allowed });
        }
    }
}

/// How much there is to keep and to search.
fn entries(audience: &Audience) -> usize {
    let Audience::Only(admitted) = audience else { return 0 };
    let tracks = |one: &Admitted| match &one.tracks {
        AdmittedTracks::All => 1,
        AdmittedTracks::These(tracks) => tracks.len().max(1),
    };
    admitted.iter().map(tracks).fold(0, usize::saturating_add)
}

/// People and tracks that one publisher may name; more is refused, and what was said before stays in force.
const AUDIENCE_ENTRIES_MAX: usize = 1_024;
