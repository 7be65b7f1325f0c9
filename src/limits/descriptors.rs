//! File descriptors: as many as the system allows, and some of them for the store alone.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process may reserve for its clients at least, whatever the limit: else nobody could ask anything.
const ROOM_MIN: usize = 48;
/// More connections than anybody wants: a process without a limit.
const ROOM_MAX: usize = 1 << 20;

static INHERITED: OnceLock<Rlimit> = OnceLock::new();

/// Raises this process's soft limit to the hard one. Programs that it starts get the old one back: some of them cannot
/// live with a high one.
pub fn raise() {
    let inherited = *INHERITED.get_or_init(|| getrlimit(Resource::Nofile));
    if inherited.current != inherited.maximum
        && let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: inherited.maximum, ..inherited })
    {
        tracing::warn!(error = %e, "cannot raise the limit of open files to the hard limit; it is unchanged");
    }
}

/// What a child that is about to be executed needs: the limit that this process was started with. Between fork and
/// exec it makes one system call and nothing else.
pub fn restore_in_child() -> impl Fn() -> io::Result<()> + Copy {
    let inherited = INHERITED.get().copied();
    move || match inherited {
        Some(limit) => Ok(setrlimit(Resource::Nofile, limit)?),
        None => Ok(()),
    }
}

/// How many descriptors connections may use, when so many are reserved.
pub fn room(reserved: u64) -> usize {
    let limit =
        getrlimit(Resource::Nofile).current.map_or(ROOM_MAX, |n| usize::try_from(n).unwrap_or(ROOM_MAX));
    let reserved = usize::try_from(reserved).unwrap_or(ROOM_MAX);
    limit.saturating_sub(reserved).clamp(ROOM_MIN, ROOM_MAX)
}

/// Does this error mean that the process, or its machine, has run out of descriptors or of memory for them?
pub fn is_exhausted(error: &io::Error) -> bool {
    let is_one = |errno: rustix::io::Errno| error.raw_os_error() == Some(errno.raw_os_error());
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].into_iter().any(is_one)
}
