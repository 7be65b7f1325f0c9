//! Signs of life of a program, over the socket of sd_notify(3): what works under systemd works here.
//!
//! A program that finds `NOTIFY_SOCKET` and `WATCHDOG_USEC` in its environment may send `WATCHDOG=1`. From the
//! first one on it is watched; one that never sends any is not. Other messages are ignored.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixDatagram;

use crate::driver::leadership::Leadership;

/// The socket's name in the data dir.
pub const NOTIFY_SOCKET: &str = "notify.sock";
/// The longest message that is read; systemd's own limit is the page size.
const MESSAGE_MAX: usize = 4096;
/// The message that counts.
const ALIVE: &[u8] = b"WATCHDOG=1";

/// Where a program says that it lives, and how often it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    /// The socket's path.
    pub socket: PathBuf,
    /// How long it may be silent.
    pub timeout: Duration,
}

// === impl Watchdog ===

impl Watchdog {
    /// What the program must know.
    pub(super) fn env(&self) -> [(&'static str, String); 2] {
        [
            (
                "NOTIFY_SOCKET",
                std::path::absolute(&self.socket).unwrap_or(self.socket.clone()).display().to_string(),
            ),
            ("WATCHDOG_USEC", self.timeout.as_micros().to_string()),
        ]
    }

    /// Opens the socket. Without it the program runs all the same, unwatched, and the log says so.
    pub(super) fn listen(&self) -> Option<UnixDatagram> {
        let path = std::path::absolute(&self.socket).unwrap_or(self.socket.clone());
        bind(&path)
            .inspect_err(|e| {
                tracing::warn!(path = %path.display(), error = %e, "a program that hangs will not be noticed: \
                    cannot listen for its signs of life");
            })
            .ok()
    }
}

/// The lock on the data dir makes a socket that is already there a dead process's.
fn bind(path: &Path) -> io::Result<UnixDatagram> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let socket = UnixDatagram::bind(path)?;
    // A program that drops its privileges must still be able to say that it lives.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(socket)
}

/// Passes signs of life on; never ends.
pub(super) async fn hear(socket: Option<UnixDatagram>, leadership: &Leadership) -> Infallible {
    let Some(socket) = socket else { return std::future::pending().await };
    let mut message = [0; MESSAGE_MAX];
    loop {
        let Ok(length) = socket.recv(&mut message).await else { return std::future::pending().await };
        if message[..length].split(|b| *b == b'\n').any(|line| line == ALIVE) {
            leadership.heartbeat();
        }
    }
}
