//! Sees to it that what is asked for is recorded: looks for recordings that nobody has, claims them for this node's recorder, renews
//! what it holds, and writes into the store what the recorder tells.
//!
//! Each recording that is held has a task, which ends when the recording is over, or when somebody else has it. While the store does
//! not answer, recording goes on: a recorder writes files of its own epoch, so the worst is that two nodes have some of the same.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use plenary_cluster::{EgressLease, EgressRefusal, Recorder as Claimant, Store, StoreError, StoredEgress};
use plenary_model::{Egress, EgressFile, EgressId, EgressSource, EgressStatus, NodeId, RoomSnapshot};
use plenary_recording::session_file::Former;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{Recorder, nanoseconds, takes};
use crate::{
    events::{EgressFenced, EgressHeld, RecorderDied},
    ids,
    tokens::unix_ms,
};

/// A recording that this node holds, as its recorder sees it. If all of its clones are dropped before the last word, the recorder
/// has died, and another one goes on.
#[derive(Debug, Clone)]
pub struct Held {
    /// As it was when it was claimed.
    pub egress: Arc<Egress>,
    /// Above those of all who recorded it before.
    pub epoch: u64,
    /// The last of these, once something was recorded.
    pub former: Option<Former>,
    told: watch::Sender<Told>,
}

/// What a recorder has said so far.
#[derive(Debug, Clone, Default)]
struct Told {
    status: Option<EgressStatus>,
    started_at_ns: u64,
    ended_at_ns: u64,
    error: String,
    files: Vec<EgressFile>,
}

impl Told {
    fn is_last(&self) -> bool {
        self.status.is_some_and(EgressStatus::is_over)
    }
}

impl Held {
    /// What is published is being written since then.
    pub fn began(&self, at_ns: u64) {
        self.told.send_modify(|told| (told.status, told.started_at_ns) = (Some(EgressStatus::Active), at_ns));
    }

    /// Nothing more was recorded since then; its files are not there yet.
    pub fn ended(&self, at_ns: u64) {
        self.told.send_modify(|told| (told.status, told.ended_at_ns) = (Some(EgressStatus::Ending), at_ns));
    }

    /// The last word: `Complete`, or with an error `Failed`, `Aborted` or `LimitReached`.
    pub fn over(&self, status: EgressStatus, error: String, files: Vec<EgressFile>) {
        debug_assert!(status.is_over());
        self.told.send_modify(|told| (told.status, told.error, told.files) = (Some(status), error, files));
    }
}

/// See the module.
pub(super) struct Keeper {
    store: Arc<dyn Store>,
    node: NodeId,
    recorder: Arc<dyn Recorder>,
    /// There may be something new to claim.
    look: Notify,
    /// What is held may have been changed.
    changed: watch::Sender<()>,
    leaves: watch::Sender<bool>,
    held: watch::Sender<usize>,
    /// Whose recorders died at this node of late, and when.
    died: Mutex<Vec<(EgressId, Instant)>>,
}

impl Keeper {
    pub(super) fn new(store: Arc<dyn Store>, node: NodeId, recorder: Arc<dyn Recorder>) -> Self {
        let (changed, leaves, held) = (watch::Sender::default(), watch::Sender::default(), watch::Sender::default());
        Self { store, node, recorder, look: Notify::new(), changed, leaves, held, died: Mutex::default() }
    }

    pub(super) fn look(&self) {
        self.look.notify_one();
    }

    pub(super) fn read_again(&self) {
        self.changed.send_replace(());
    }

    pub(super) fn hand_over(&self, leaves: bool) {
        self.leaves.send_replace(leaves);
    }

    /// Once nothing is held any more, or after this time.
    pub(super) async fn finished(&self, within: Duration) {
        let _ = timeout(within, self.held.subscribe().wait_for(|held| *held == 0)).await;
    }

    pub(super) async fn run(self: Arc<Self>) {
        let mut holding = JoinSet::new();
        let mut left = HashMap::new();
        let mut tick = interval(LOOK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.look.notified() => {}
                _ = tick.tick() => {}
                Some(_) = holding.join_next() => {}
            }
            while holding.try_join_next().is_some() {}
            if !*self.leaves.borrow() {
                self.claim(&mut left, &mut holding).await;
            }
            self.held.send_replace(holding.len());
        }
    }

    /// `left`: what was left to other nodes, and since when.
    async fn claim(self: &Arc<Self>, left: &mut HashMap<EgressId, Instant>, holding: &mut JoinSet<()>) {
        let most = HELD_MAX.saturating_sub(holding.len());
        let unheld = match most {
            0 => Vec::new(),
            _ => self.store.unheld_egresses(most).await.unwrap_or_default(),
        };
        left.retain(|id, _| unheld.iter().any(|one| one.egress.id == *id));
        for StoredEgress { egress, epoch, recorder, .. } in unheld {
            let room = match self.store.snapshot(egress.room.clone()).await {
                Ok(snapshot) => Some(snapshot).filter(|snapshot| snapshot.room.sid == egress.room_sid),
                Err(StoreError::NoSuchRoom) => None,
                Err(_) => continue,
            };
            // What somebody has recorded has a gap until it goes on, wherever that is.
            let is_others =
                epoch == 0 && room.as_ref().is_some_and(|room| !is_nearest(&self.node, &egress.source, room));
            let is_given_up = self.deaths(&egress.id) >= DEATHS_MAX;
            let may_wait = is_others || is_given_up;
            if may_wait && left.entry(egress.id.clone()).or_insert_with(Instant::now).elapsed() < PATIENCE {
                continue;
            }
            // A life of its own for each claim: what this node wrote under an earlier one it knows no more.
            let by = Claimant { node: self.node.clone(), life: ids::seed(), known_epoch: epoch };
            let claim = self.store.claim_egress(egress.room.clone(), egress.id.clone(), by.clone()).await;
            // Somebody else was quicker, or it is looked for again.
            let Ok((lease, egress)) = claim else { continue };
            EgressHeld { egress: &egress.id, room: &egress.room, epoch: lease.epoch, status: egress.status }.emit();
            let by = Claimant { known_epoch: lease.epoch, ..by };
            let has_begun = egress.status == EgressStatus::Active;
            let former = recorder.filter(|_| has_begun).map(|node| Former { epoch, node });
            let holding_of = Holding { keeper: self.clone(), lease, by, stored: egress, former };
            holding.spawn(holding_of.run(room.is_some(), is_given_up));
        }
    }

    /// Recorders of it that died here of late.
    fn deaths(&self, id: &EgressId) -> usize {
        let mut died = self.died.lock().unwrap_or_else(PoisonError::into_inner);
        died.retain(|(_, at)| at.elapsed() < DEATHS_COUNTED_FOR);
        died.iter().filter(|(one, _)| one == id).count()
    }

    fn recorder_died(&self, id: &EgressId, epoch: u64) {
        RecorderDied { egress: id, epoch }.emit();
        self.died.lock().unwrap_or_else(PoisonError::into_inner).push((id.clone(), Instant::now()));
    }
}

/// A recording while this node holds it.
struct Holding {
    keeper: Arc<Keeper>,
    lease: EgressLease,
    /// With its epoch.
    by: Claimant,
    /// As far as is known.
    stored: Arc<Egress>,
    former: Option<Former>,
}

/// Why it is held no longer.
enum End {
    Over,
    Fenced,
}

impl Holding {
    async fn run(mut self, room_goes_on: bool, is_given_up: bool) {
        if is_given_up {
            self.end(EgressStatus::Failed, RECORDERS_DIED).await;
        } else if !room_goes_on {
            self.room_is_gone().await;
        }
        if self.stored.status.is_over() {
            return;
        }
        let mut changed = self.keeper.changed.subscribe();
        let mut leaves = self.keeper.leaves.subscribe();
        let (told, mut tells) = watch::channel(Told::default());
        let (egress, epoch, former) = (self.stored.clone(), self.lease.epoch, self.former.take());
        self.keeper.recorder.start(Held { egress, epoch, former, told });
        let mut said = Told::default();
        let mut tick = interval(RENEW_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = changed.changed() => {}
                more = tells.changed(), if !said.is_last() => {
                    said = tells.borrow_and_update().clone();
                    if more.is_err() && !said.is_last() {
                        return self.begin_anew(&said).await;
                    }
                }
                () = gone(&mut leaves) => {
                    self.give_back().await;
                    sleep(OVERLAP).await;
                    return self.fenced();
                }
            }
            match self.turn(&said).await {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(End::Over) => return,
                ControlFlow::Break(End::Fenced) => return self.fenced(),
            }
        }
    }

    /// The recorder died: whoever looks next, this node first, goes on under another epoch.
    async fn begin_anew(mut self, said: &Told) {
        self.keeper.recorder_died(&self.lease.id, self.lease.epoch);
        // What it said last is not to be lost with it.
        let _ = self.turn(said).await;
        self.give_back().await;
    }

    /// If this fails the lease runs out.
    async fn give_back(&self) {
        let _ = self.keeper.store.release_egress(self.lease.clone()).await;
    }

    fn fenced(&self) {
        EgressFenced { egress: &self.lease.id, epoch: self.lease.epoch }.emit();
        self.keeper.recorder.fenced(&self.lease.id, self.lease.epoch);
    }

    /// Nobody can be recorded any more.
    async fn room_is_gone(&mut self) {
        let (status, error) = match self.stored.status {
            EgressStatus::Starting => (EgressStatus::Aborted, "the room ended before it began"),
            EgressStatus::Active => (EgressStatus::Ending, ""),
            _ => return,
        };
        self.end(status, error).await;
    }

    /// Without a recorder. What does not come through now comes with the words of one.
    async fn end(&mut self, status: EgressStatus, error: &str) {
        let now_ns = nanoseconds(unix_ms());
        let said = Told { status: Some(status), error: error.to_owned(), ended_at_ns: now_ns, ..Told::default() };
        let _ = self.say(&said).await;
    }

    /// Renews the lease, hears what others changed, and writes what the recorder said.
    async fn turn(&mut self, said: &Told) -> ControlFlow<End> {
        match self.keeper.store.renew_egress(self.lease.clone()).await {
            Ok(now) => self.hear(now, said),
            Err(StoreError::Superseded) => return ControlFlow::Break(End::Fenced),
            Err(StoreError::Egress(EgressRefusal::NotThere)) => {
                let restored = self.keeper.store.restore_egress((*self.stored).clone(), self.by.clone()).await;
                if matches!(restored, Err(StoreError::Egress(_))) && said.is_last() {
                    return ControlFlow::Break(End::Over);
                }
            }
            Err(_) => return ControlFlow::Continue(()),
        }
        self.say(said).await
    }

    fn hear(&mut self, now: Arc<Egress>, said: &Told) {
        let before = std::mem::replace(&mut self.stored, now);
        let (recorder, now) = (&self.keeper.recorder, &self.stored);
        let is_recorded = |status| matches!(status, EgressStatus::Starting | EgressStatus::Active);
        // What it has said itself may have been written without an answer.
        let has_stopped = !said.status.is_none_or(is_recorded);
        if is_recorded(before.status) && !is_recorded(now.status) && !has_stopped {
            recorder.stop(now);
        } else if before.source != now.source {
            recorder.update_layout(now);
        }
    }

    async fn say(&mut self, said: &Told) -> ControlFlow<End> {
        while let Some(next) = next(&self.stored, said) {
            match self.keeper.store.put_egress(next.clone(), Some(self.lease.clone())).await {
                Ok(()) => self.stored = Arc::new(next),
                Err(StoreError::Superseded) => return ControlFlow::Break(End::Fenced),
                // Also if somebody changed it: what came of that is heard first.
                Err(_) => break,
            }
        }
        if self.stored.status.is_over() { ControlFlow::Break(End::Over) } else { ControlFlow::Continue(()) }
    }
}

async fn gone(leaves: &mut watch::Receiver<bool>) {
    let _ = leaves.wait_for(|leaves| *leaves).await;
}

/// The next version on the way to what the recorder said. None if it said nothing that leads on.
fn next(stored: &Egress, said: &Told) -> Option<Egress> {
    let now_ns = nanoseconds(unix_ms());
    let status = match (stored.status, said.status?) {
        (EgressStatus::Starting, EgressStatus::Ending | EgressStatus::Complete | EgressStatus::LimitReached) => {
            EgressStatus::Active
        }
        (EgressStatus::Active, EgressStatus::Complete) => EgressStatus::Ending,
        (from, to) if from != to && from.may_become(to) => to,
        _ => return None,
    };
    let mut next =
        Egress { status, version: stored.version.saturating_add(1), updated_at_ns: now_ns, ..stored.clone() };
    // Whoever recorded before has said when it began.
    if next.started_at_ns == 0 {
        next.started_at_ns = said.started_at_ns;
    }
    if !matches!(status, EgressStatus::Starting | EgressStatus::Active) && next.ended_at_ns == 0 {
        next.ended_at_ns = if said.ended_at_ns == 0 { now_ns } else { said.ended_at_ns };
    }
    if status.is_over() {
        (next.error, next.files) = (said.error.clone(), said.files.clone());
    }
    Some(next)
}

/// Whether no other node has more of what is recorded: whatever others have has to be fetched from them.
fn is_nearest(node: &NodeId, source: &EgressSource, room: &RoomSnapshot) -> bool {
    let mut tracks = BTreeMap::<_, usize>::new();
    for record in &room.records {
        let person = &record.participant;
        let of_source = person.tracks.iter().filter(|track| takes(source, person, track)).count();
        let all = tracks.entry(&record.node).or_default();
        *all = all.saturating_add(of_source);
    }
    let own = tracks.get(node).copied().unwrap_or_default();
    tracks.values().all(|others| *others <= own)
}

/// Two renewals may be lost before a lease runs out.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// What other nodes left is found so soon.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Nodes that are to be preferred get this long to claim a recording. They may be about to leave, or record nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Somebody else begins before whoever leaves stops.
const OVERLAP: Duration = Duration::from_secs(2);

/// Recordings that a node holds at once. More wait for another, or until one of these is over.
const HELD_MAX: usize = 128;

/// Recorders of one recording that may die at a node within [`DEATHS_COUNTED_FOR`]. Then other nodes get [`PATIENCE`] to try, and
/// if none does it has failed. Each node counts its own: it is first to look for what its recorder left.
const DEATHS_MAX: usize = 3;
const DEATHS_COUNTED_FOR: Duration = Duration::from_secs(60);

const RECORDERS_DIED: &str = "its recorders died of errors of this server, one after the other";
