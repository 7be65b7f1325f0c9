//! Where a program reads its deadline: a page of memory behind `METAD_DEADLINE_FD`, which metad moves at each renewal.
//!
//! Eight bytes, written by one store into our own mapping. No message that somebody would have to read, no lock and no
//! system call: a program that never looks, or hangs while it looks, cannot hold us up. A load of the eight bytes (from a
//! mapping, or by `pread`, where the kernel makes it) finds the old deadline or the new one. Nobody else can write: the
//! program's descriptor is for reading, and the seal keeps whoever opens the file anew from writing too.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::clock::Instant;
use crate::driver::observer::Observer;
use crate::election::lease::LeaseTiming;
use crate::election::status::Status;

/// Where the number of the program's descriptor is.
pub(super) const VARIABLE: &str = "METAD_DEADLINE_FD";
/// No deadline: there is no leadership.
const NONE: u64 = 0;
const NS_PER_MS: u64 = 1_000_000;

/// The page. Clones share it.
#[derive(Clone, Debug)]
pub struct DeadlinePage(Arc<Mapped>);

#[derive(Debug)]
struct Mapped {
    deadline_ms: NonNull<AtomicU64>,
    /// What the program gets.
    reader: OwnedFd,
}

// SAFETY: the page holds one atomic and is unmapped only when the last owner drops it.
unsafe impl Send for Mapped {}
// SAFETY: as above; every access is atomic.
unsafe impl Sync for Mapped {}

// === impl DeadlinePage ===

impl DeadlinePage {
    /// A new page, without a deadline.
    ///
    /// # Errors
    /// The system has no memory to give, or no `/proc`.
    pub fn create() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let page = rustix::fs::memfd_create("metad-deadline", flags)?;
        rustix::fs::ftruncate(&page, size_of::<AtomicU64>() as u64)?; // zeroes
        let (size, access) = (size_of::<AtomicU64>(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a fresh shared mapping of a file that is this long; no address is asked for.
        let mapped = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), size, access, MapFlags::SHARED, page.as_fd(), 0)?
        };
        let deadline_ms = NonNull::new(mapped.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        // Only now: the mapping that is there may go on writing.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&page, seals)?;
        let again = format!("/proc/self/fd/{}", page.as_raw_fd());
        let reader = rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self(Arc::new(Mapped { deadline_ms, reader })))
    }

    /// What the program gets.
    pub(super) fn reader(&self) -> BorrowedFd<'_> {
        self.0.reader.as_fd()
    }

    /// Milliseconds on `CLOCK_BOOTTIME`, rounded down: never later than the deadline.
    fn set(&self, deadline: Option<Instant>) {
        let ms = deadline.map_or(NONE, |at| at.boot_ns() / NS_PER_MS);
        // SAFETY: mapped for as long as `self` lives, aligned as a page is, and valid for any bits.
        unsafe { self.0.deadline_ms.as_ref() }.store(ms, Ordering::Release);
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `create` with this very size, and nobody can hold a reference any more.
        let _ = unsafe { rustix::mm::munmap(self.deadline_ms.as_ptr().cast(), size_of::<AtomicU64>()) };
    }
}

impl Observer for DeadlinePage {
    /// A snapshot is published before what follows from it is done: the page is filled before the program starts.
    fn changed(&mut self, _now: Instant, _old: &Status, new: &Status) {
        let lease = new.holds_until.zip(new.ttl).filter(|_| new.token.is_some());
        self.set(lease.map(|(h, ttl)| h - LeaseTiming::new(ttl).stop_budget()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(page: &DeadlinePage) -> u64 {
        let mut bytes = [0; 8];
        assert_eq!(rustix::io::pread(page.reader(), &mut bytes, 0), Ok(8));
        u64::from_ne_bytes(bytes)
    }

    #[test]
    fn a_deadline_is_read_rounded_down_and_none_is_zero() {
        let page = DeadlinePage::create().unwrap();
        assert_eq!(read(&page), NONE);
        page.set(Some(Instant::from_nanos(12_999_999, 0)));
        assert_eq!(read(&page), 12);
        page.set(None);
        assert_eq!(read(&page), NONE);
    }

    #[test]
    fn nobody_who_has_the_descriptor_can_write_or_change_the_size() {
        let page = DeadlinePage::create().unwrap();
        let name = format!("/proc/self/fd/{}", page.reader().as_raw_fd());
        assert!(rustix::io::pwrite(page.reader(), &[1], 0).is_err(), "it is for reading");
        // One who opens it anew for writing gets no further: the seal does not ask who it is.
        if let Ok(other) = rustix::fs::open(name, OFlags::RDWR, Mode::empty()) {
            assert!(rustix::io::pwrite(&other, &[1], 0).is_err());
            assert!(rustix::fs::ftruncate(&other, 0).is_err() && rustix::fs::ftruncate(&other, 9).is_err());
        }
        page.set(Some(Instant::from_millis(7)));
        assert_eq!(read(&page), 7, "twin: we can");
    }

    #[test]
    fn a_reader_sees_the_old_deadline_or_the_new_one_and_never_a_mix() {
        let page = DeadlinePage::create().unwrap();
        let values = [0xFFFF_FFFF_u64, 0xFFF_0000_0000];
        let (writes, done) = (page.clone(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
        page.set(Some(Instant::from_millis(values[0])));
        let until = done.clone();
        let writer = std::thread::spawn(move || {
            for i in 0.. {
                writes.set(Some(Instant::from_millis(values[i % 2])));
                if until.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let mut changes = 0;
        let mut last = 0;
        for _ in 0..400_000 {
            let seen = read(&page);
            assert!(values.contains(&seen), "{seen:x}");
            changes += usize::from(seen != last);
            last = seen;
        }
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        assert!(changes > 10, "twin: it moved {changes} times");
    }
}
