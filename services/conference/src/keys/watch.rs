//! Reads the keys again when a file changes or somebody says so. What cannot be used changes nothing but the log.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::Notify, time::timeout};

use super::KeyRing;
use crate::{
    config::KeySource,
    events::{KeysNotReloaded, KeysReloaded},
};

/// Never ends. `now` asks for reading at once, whether or not a file seems to have changed.
pub async fn watch(source: KeySource, files: Vec<PathBuf>, ring: Arc<KeyRing>, now: Arc<Notify>) {
    let mut watched = Watched::new(files);
    loop {
        let asked = timeout(LOOK_EVERY, now.notified()).await.is_ok();
        let looked = tokio::task::spawn_blocking(move || {
            let changed = watched.changed();
            (watched, changed)
        });
        // Reading files does not panic; a runtime that is ending cancels.
        let Ok((seen, changed)) = looked.await else { return };
        watched = seen;
        if asked || changed {
            // What changes while it is read has not been read.
            watched.loaded.clone_from(&watched.last_seen);
            let files = reload(&source, watched.files.clone(), &ring).await;
            if files != watched.files {
                watched = Watched::new(files);
            }
        }
    }
}

/// Gives back what to watch from now on.
async fn reload(source: &KeySource, files: Vec<PathBuf>, ring: &Arc<KeyRing>) -> Vec<PathBuf> {
    let source = source.clone();
    let Ok(loaded) = tokio::task::spawn_blocking(move || source.load()).await else { return files };
    let settings = match loaded {
        Ok(settings) => settings,
        Err(error) => {
            KeysNotReloaded { error: &error }.emit();
            return files;
        }
    };
    let (keys, issuers) = (settings.keys.ids().count(), settings.keys.issuers().count());
    let files = settings.files.clone();
    match ring.replace(settings) {
        Ok(()) => KeysReloaded { keys, issuers }.emit(),
        Err(error) => KeysNotReloaded { error: &error }.emit(),
    }
    files
}

/// The files as they were when last read and when last looked at. Metadata, since files may be mounted from anywhere,
/// where there is nothing to be notified by; followed through links, since that is how secrets are mounted.
#[derive(Debug)]
pub struct Watched {
    files: Vec<PathBuf>,
    loaded: Vec<Option<Trace>>,
    last_seen: Vec<Option<Trace>>,
}

/// What a write or a replacement changes.
type Trace = (Option<SystemTime>, u64, u64, u64);

impl Watched {
    pub fn new(files: Vec<PathBuf>) -> Self {
        let seen: Vec<_> = files.iter().map(|path| trace(path)).collect();
        Self { files, loaded: seen.clone(), last_seen: seen }
    }

    /// Whether there is something new that has stood still since the last look: half a file is not read.
    pub fn changed(&mut self) -> bool {
        let seen = self.seen();
        let still = seen == self.last_seen;
        self.last_seen = seen;
        let changed = still && self.last_seen != self.loaded;
        if changed {
            self.loaded.clone_from(&self.last_seen);
        }
        changed
    }

    fn seen(&self) -> Vec<Option<Trace>> {
        self.files.iter().map(|path| trace(path)).collect()
    }
}

fn trace(path: &Path) -> Option<Trace> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok(), found.len(), found.ino(), found.dev()))
}

/// A change is read after one to two of these.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_stands_still() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, "a").unwrap();
        let mut watched = Watched::new(vec![path.clone()]);
        assert!(!watched.changed());
        std::fs::write(&path, "ab").unwrap();
        assert!(!watched.changed(), "it may still be written");
        std::fs::write(&path, "abc").unwrap();
        assert!(!watched.changed());
        assert!(watched.changed());
        assert!(!watched.changed(), "once");
        std::fs::remove_file(&path).unwrap();
        assert!(!watched.changed());
        assert!(watched.changed(), "gone is a change too");
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("one"), "same").unwrap();
        std::fs::write(at("two"), "same").unwrap();
        std::os::unix::fs::symlink(at("one"), at("keys")).unwrap();
        let mut watched = Watched::new(vec![at("keys")]);
        std::os::unix::fs::symlink(at("two"), at("new")).unwrap();
        std::fs::rename(at("new"), at("keys")).unwrap();
        assert!(!watched.changed());
        assert!(watched.changed());
    }
}
