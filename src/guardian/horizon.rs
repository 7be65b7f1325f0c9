//! The deadlines of the present tenure, in a page of memory that the guardian shares.
//!
//! Readable from any thread and from the guardian without a lock or a message. A reader may see the two clocks
//! of an instant from two different moments. That does no harm: each only moves forward during a tenure, and an
//! instant has passed as soon as it has passed on one clock.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

use crate::clock::Instant;

/// How long after the fuse the kernel timer is due: the fuse's exit code says more.
pub(super) const KERNEL_TIMER_AFTER_FUSE: Duration = Duration::from_millis(20);
/// Means: no deadline.
const NEVER: u64 = u64::MAX;

/// The page.
#[derive(Debug)]
pub struct Horizon {
    page: OwnedFd,
    deadlines: NonNull<Deadlines>,
}

/// What lies in the page.
#[derive(Debug)]
#[repr(C)]
struct Deadlines {
    stop: Pair,
    kill: Pair,
    guardian: Pair,
    fuse: Pair,
    /// Not 0: the fuse has ended the process.
    burnt: AtomicU64,
}

#[derive(Debug)]
#[repr(C)]
struct Pair {
    boot: AtomicU64,
    raw: AtomicU64,
}

/// The instants of a tenure's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// S: the main loop is told to stop.
    pub stop: Instant,
    /// H − B/4: the program's tree is killed.
    pub kill: Instant,
    /// H − B/8: a guardian that stands still is killed, and the program with it.
    pub guardian: Instant,
    /// H: the process is ended.
    pub fuse: Instant,
}

/// What becomes of the deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// They are where they were.
    None,
    /// They have just begun to count.
    Begun,
    /// They have moved.
    Moved,
    /// There are none any more.
    Ended,
}

// SAFETY: the page holds atomics only and is unmapped only when the last owner drops it.
unsafe impl Send for Horizon {}
// SAFETY: as above; every access is atomic.
unsafe impl Sync for Horizon {}

// === impl Horizon ===

impl Horizon {
    /// A new page, without deadlines.
    ///
    /// # Errors
    /// The system has no memory to give.
    pub fn create() -> io::Result<Self> {
        let page = rustix::fs::memfd_create("metad-horizon", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&page, size_of::<Deadlines>() as u64)?;
        let horizon = Self::open(page)?;
        horizon.set(None); // and the file is all zeroes: nothing has burnt
        Ok(horizon)
    }

    /// Maps a page that somebody else made.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn open(page: OwnedFd) -> io::Result<Self> {
        let (size, access) = (size_of::<Deadlines>(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a fresh shared mapping of a file that is at least this long; no address is asked for.
        let mapped = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), size, access, MapFlags::SHARED, page.as_fd(), 0)?
        };
        let deadlines = NonNull::new(mapped.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { page, deadlines })
    }

    /// The page's descriptor, for the guardian.
    pub fn page(&self) -> &OwnedFd {
        &self.page
    }

    /// Moves the deadlines; `None`: there are none.
    pub fn set(&self, end: Option<End>) {
        let d = self.deadlines();
        d.stop.set(end.map(|e| e.stop));
        d.kill.set(end.map(|e| e.kill));
        d.guardian.set(end.map(|e| e.guardian));
        d.fuse.set(end.map(|e| e.fuse));
    }

    /// What [`Horizon::set`] of these would change.
    pub fn change_to(&self, end: Option<End>) -> Change {
        match (self.fuse(), end.map(|e| e.fuse)) {
            (before, after) if before == after => Change::None,
            (None, _) => Change::Begun,
            (Some(_), Some(_)) => Change::Moved,
            (Some(_), None) => Change::Ended,
        }
    }

    /// S: when the main loop must stop.
    pub fn step_down_at(&self) -> Option<Instant> {
        self.deadlines().stop.get()
    }

    /// H − B/4: when the program's tree must be killed.
    pub fn kill_at(&self) -> Option<Instant> {
        self.deadlines().kill.get()
    }

    /// H − B/8: when a guardian that has not ended the program is itself killed.
    pub fn guardian_until(&self) -> Option<Instant> {
        self.deadlines().guardian.get()
    }

    /// H: when the process must be dead.
    pub fn fuse(&self) -> Option<Instant> {
        self.deadlines().fuse.get()
    }

    /// H + 20 ms: when the kernel timer kills a process that is not dead.
    pub fn killed_at(&self) -> Option<Instant> {
        self.fuse().map(|h| h + KERNEL_TIMER_AFTER_FUSE)
    }

    /// Leaves word that the fuse ends the process now.
    pub fn note_fuse(&self) {
        self.deadlines().burnt.store(1, Ordering::Release);
    }

    /// Has the fuse ended the process?
    pub fn is_burnt(&self) -> bool {
        self.deadlines().burnt.load(Ordering::Acquire) != 0
    }

    fn deadlines(&self) -> &Deadlines {
        // SAFETY: mapped for as long as `self` lives, aligned as a page is, and valid for any bits.
        unsafe { self.deadlines.as_ref() }
    }
}

impl Drop for Horizon {
    fn drop(&mut self) {
        // SAFETY: mapped by `open` with this very size, and nobody can hold a reference any more.
        let _ = unsafe { rustix::mm::munmap(self.deadlines.as_ptr().cast(), size_of::<Deadlines>()) };
    }
}

impl Pair {
    fn set(&self, at: Option<Instant>) {
        self.boot.store(at.map_or(NEVER, Instant::boot_ns), Ordering::Release);
        self.raw.store(at.map_or(NEVER, Instant::raw_ns), Ordering::Release);
    }

    fn get(&self) -> Option<Instant> {
        let (boot, raw) = (self.boot.load(Ordering::Acquire), self.raw.load(Ordering::Acquire));
        (boot != NEVER && raw != NEVER).then(|| Instant::from_nanos(boot, raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_sets_the_other_reads() {
        let ours = Horizon::create().unwrap();
        let theirs = Horizon::open(ours.page().try_clone().unwrap()).unwrap();
        assert_eq!(theirs.fuse(), None);
        let at = Instant::from_millis;
        ours.set(Some(End { stop: at(1), kill: at(2), guardian: at(3), fuse: at(4) }));
        assert_eq!(
            [theirs.step_down_at(), theirs.kill_at(), theirs.guardian_until(), theirs.fuse()],
            [1, 2, 3, 4].map(|ms| Some(at(ms)))
        );
        ours.set(None);
        assert_eq!(theirs.kill_at(), None);
        assert!(!theirs.is_burnt());
        ours.note_fuse();
        assert!(theirs.is_burnt());
    }
}
