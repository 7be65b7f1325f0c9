//! The guardian beside a container: `metad guardian --socket PATH`.
//!
//! When a container is killed, the kernel ends all of it at once, the guardian inside too. One outside, in a container of
//! its own, is handed a pidfd of process 1 and the names of the leases, over a Unix socket on a volume that both have. The
//! pidfd of process 1 of a PID namespace becomes readable only when nothing of that namespace is left (`zap_pid_ns_processes`
//! in Linux' kernel/pid_namespace.c waits for all of it before process 1 is dead to others): then, and only then, it
//! revokes. A connection that breaks means nothing; a sidecar that is restarted is told everything again.
//!
//! Whoever may connect to the socket may have leases revoked: it is for its owner alone (mode 0600), as the volume should be.

mod client;
mod server;

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

pub use client::{CannotWatch, SidecarClient};
pub use server::{CannotServe, serve};

/// Nothing waits, and no program inherits it.
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// What a node tells it. All of it each time, so that the last message is all that has to be known.
#[derive(Debug, Serialize, Deserialize)]
enum ToSidecar {
    /// Revoke these leases when the process has ended whose pidfd comes along.
    Watch(WatchOrder),
    /// Everything is given back.
    Dismissed,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct WatchOrder {
    node: String,
    ttl_secs: u64,
    leases: Vec<i64>,
    /// Only the answers of this cluster count.
    cluster: Option<u64>,
}

/// It has taken what it was told.
#[derive(Debug, Serialize, Deserialize)]
struct Watching;

/// A socket for such messages, not yet bound or connected.
fn socket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)
}

/// The next message; `None`: the other end is closed, or cannot be understood.
async fn receive<T: for<'a> Deserialize<'a>>(
    channel: &AsyncFd<super::channel::Channel>,
) -> Option<(T, Vec<OwnedFd>)> {
    loop {
        let mut ready = channel.readable().await.ok()?;
        match ready.try_io(|c| c.get_ref().receive::<T>()) {
            Ok(received) => return received.ok().flatten(),
            Err(_would_block) => {}
        }
    }
}
