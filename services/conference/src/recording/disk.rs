//! What a recording asks of its disk, so that tests can have one that is full, slow or broken.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    time::SystemTime,
};

use plenary_recording::Storage;

pub(crate) trait Disk: Send + 'static {
    type File: Storage + Send;

    /// With all above it. One that is there already is good too.
    fn create_directory(&mut self, path: &Path) -> io::Result<()>;
    /// A file that is not there yet.
    fn create(&mut self, path: &Path) -> io::Result<Self::File>;
    /// The same, and nobody else has its lock until it is closed, however this process ends.
    fn create_locked(&mut self, path: &Path) -> io::Result<Self::File>;
    /// As if it had been written now.
    fn touch(&mut self, file: &Self::File) -> io::Result<()>;
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Returns when the names in it would survive a loss of power.
    fn sync_directory(&mut self, path: &Path) -> io::Result<()>;
    /// What is left to us of the file system that this is on.
    fn free_bytes(&mut self, path: &Path) -> io::Result<u64>;
}

/// Any file system that this machine has mounted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LocalDisk;

impl Disk for LocalDisk {
    type File = File;

    fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn create(&mut self, path: &Path) -> io::Result<File> {
        // A symbolic link in its place is refused too (open(2), O_EXCL).
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
    }

    fn create_locked(&mut self, path: &Path) -> io::Result<File> {
        let file = self.create(path)?;
        // Whoever looks at what there is may have it for a moment.
        file.lock()?;
        Ok(file)
    }

    fn touch(&mut self, file: &File) -> io::Result<()> {
        file.set_modified(SystemTime::now())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn free_bytes(&mut self, path: &Path) -> io::Result<u64> {
        let system = rustix::fs::statvfs(path)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }
}
