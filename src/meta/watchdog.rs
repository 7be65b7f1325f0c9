//! Signs of life of a program, over the socket of sd_notify(3): what works under systemd works here.
//!
//! A program that finds `NOTIFY_SOCKET` and `WATCHDOG_USEC` in its environment may send `WATCHDOG=1`. From the
//! first one on it is watched; one that never sends any is not. Other messages are ignored.
//!
//! The socket has a name, but no file: nobody can delete it, and a program that drops its privileges still reaches it.
//! Since everybody else on this machine does as well, only what the program's own processes send counts, or what this
//! user or root does.

use std::convert::Infallible;
use std::io::{self, IoSliceMut};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, UCred};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::driver::leadership::Leadership;

/// The longest message that is read; systemd's own limit is the page size.
const MESSAGE_MAX: usize = 4096;
/// The message that counts.
const ALIVE: &[u8] = b"WATCHDOG=1";

/// How many generations of processes are looked through.
const GENERATIONS_MAX: usize = 256;

/// Where a program says that it lives, and how often it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchdogSocket {
    /// The socket's name, in the namespace of names without files.
    name: String,
    /// How long it may be silent.
    timeout: Duration,
}

// === impl WatchdogSocket ===

impl WatchdogSocket {
    /// One that bites after so long, with a name of its own.
    pub fn new(timeout: Duration) -> Self {
        Self { name: format!("metad/{}", uuid::Uuid::new_v4().simple()), timeout }
    }

    /// What the program must know.
    pub(super) fn env(&self) -> [(&'static str, String); 2] {
        [
            ("NOTIFY_SOCKET", format!("@{}", self.name)),
            ("WATCHDOG_USEC", self.timeout.as_micros().to_string()),
        ]
    }

    /// Opens the socket. Without it the program runs all the same, unwatched, and the log says so.
    pub(super) fn listen(&self) -> Option<UnixDatagram> {
        bind(&self.name)
            .inspect_err(|e| {
                tracing::warn!(name = self.name, error = %e, "heartbeats of the program cannot be received: \
                    a hang will not be noticed");
            })
            .ok()
    }
}

fn bind(name: &str) -> io::Result<UnixDatagram> {
    let socket = std::os::unix::net::UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    rustix::net::sockopt::set_socket_passcred(&socket, true)?;
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)
}

/// Passes signs of life on that come from what `guardian` looks after; never ends.
pub(super) async fn hear(socket: Option<UnixDatagram>, guardian: u32, leadership: &Leadership) -> Infallible {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        let received = socket.async_io(Interest::READABLE, || receive(&socket)).await;
        let Ok((message, sender)) = received else { return std::future::pending().await };
        let is_alive = message.split(|b| *b == b'\n').any(|line| line == ALIVE);
        if is_alive && sender.is_some_and(|sender| counts(sender, guardian)) {
            leadership.heartbeat();
        }
    }
}

fn receive(socket: &UnixDatagram) -> io::Result<(Vec<u8>, Option<UCred>)> {
    let mut message = vec![0; MESSAGE_MAX];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut message)];
    let length = rustix::net::recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let sender = ancillary.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmCredentials(sender) => Some(sender),
        _ => None,
    });
    message.truncate(length);
    Ok((message, sender))
}

fn counts(sender: UCred, guardian: u32) -> bool {
    let is_ours = sender.uid.is_root() || sender.uid == rustix::process::geteuid();
    is_ours || descends(sender.pid.as_raw_nonzero().get().cast_unsigned(), guardian)
}

/// Every process of the program has the guardian among its ancestors: it adopts those whose parent has ended.
fn descends(pid: u32, guardian: u32) -> bool {
    let mut ancestors = std::iter::successors(Some(pid), |pid| parent_of(*pid)).take(GENERATIONS_MAX);
    ancestors.any(|pid| pid == guardian)
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_speak_for_the_program_is_known_by_its_ancestors() {
        let us = std::process::id();
        let child = std::process::Command::new("sleep").arg("60").spawn();
        let mut child = child.expect("a process");
        assert!(descends(child.id(), us) && descends(us, us));
        assert!(!descends(us, child.id()) && !descends(1, us));
        child.kill().and_then(|()| child.wait()).expect("it ends");
    }
}
