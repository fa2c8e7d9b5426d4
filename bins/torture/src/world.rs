//! Where a run takes place: a directory, and (as root) a mount namespace with a /dev/shm and a disk for the journal of its
//! own, small enough to be filled, and gone when the last process of the run is.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::posix_fallocate;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;

use crate::Result;

const SHM: &str = "/dev/shm";

/// Name of the file that fills a file system.
const BALLAST: &str = "torture-ballast";

pub(crate) struct World {
    pub(crate) dir: PathBuf,
    /// Whether /dev/shm and the journal's disk are ours to fill.
    pub(crate) is_private: bool,
    pub(crate) bus: String,
}

impl World {
    /// Makes the directory and, if this process may, the namespace. Call it before there are threads.
    pub(crate) fn create(shm_bytes: u64, journal_bytes: u64) -> Result<Self> {
        let pid = std::process::id();
        let dir = std::env::temp_dir().join(format!("bellwire-torture-{pid}"));
        let disk = dir.join("disk");
        DirBuilder::new().mode(0o700).create(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        fs::create_dir(&disk)?;
        let bus = format!("torture-{pid}");
        let is_private = unshare(CloneFlags::CLONE_NEWNS).is_ok();
        if is_private {
            let none = None::<&OsStr>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            for (path, bytes) in [(Path::new(SHM), shm_bytes), (&disk, journal_bytes)] {
                let size = format!("size={bytes},mode=1777");
                mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(&*size))?;
            }
        }
        Ok(Self { dir, is_private, bus })
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.disk().join("journal")
    }

    fn disk(&self) -> PathBuf {
        self.dir.join("disk")
    }

    /// Fills the journal's disk until the ballast is dropped.
    pub(crate) fn fill_journal(&self) -> Result<Ballast> {
        Ballast::fill(&self.disk())
    }

    /// Fills /dev/shm until the ballast is dropped.
    pub(crate) fn fill_shm(&self) -> Result<Ballast> {
        Ballast::fill(Path::new(SHM))
    }

    /// Keeps the journal, which otherwise ends with the namespace, beside the logs.
    pub(crate) fn keep_journal(&self) -> Result<()> {
        let kept = self.dir.join("journal-kept");
        fs::create_dir_all(&kept)?;
        for entry in fs::read_dir(self.journal())? {
            let path = entry?.path();
            if path.is_file() {
                fs::copy(&path, kept.join(path.file_name().unwrap_or_default()))?;
            }
        }
        Ok(())
    }

    /// Removes what the run made.
    pub(crate) fn remove(&self) {
        let _ = bellwire::inspect::remove_unheld(&self.bus);
        if self.is_private {
            let _ = nix::mount::umount2(&self.disk(), nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A file that takes all the room there is.
pub(crate) struct Ballast(PathBuf);

impl Ballast {
    fn fill(dir: &Path) -> Result<Self> {
        let ballast = Self(dir.join(BALLAST));
        let file = File::create(&ballast.0)?;
        let mut len = 0;
        // What is free can change while it is taken.
        for _ in 0..20 {
            let free = statvfs(dir)?;
            let bytes = free.blocks_free() as i64 * free.fragment_size() as i64;
            if bytes == 0 {
                break;
            }
            if posix_fallocate(&file, len, bytes).is_ok() {
                len += bytes;
            }
        }
        Ok(ballast)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
