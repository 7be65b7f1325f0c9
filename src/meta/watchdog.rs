//! What a program says over the socket of sd_notify(3): what works under systemd works here.
//!
//! A program that finds `NOTIFY_SOCKET` and `WATCHDOG_USEC` in its environment may send `WATCHDOG=1`. From the
//! first one on, of those that it sends while it leads, it is watched; one that never sends any is not. A program that
//! stands by says `READY=1` when it is warm. Other messages are ignored.
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
/// The messages that count.
const ALIVE: &[u8] = b"WATCHDOG=1";
const READY: &[u8] = b"READY=1";

/// How many generations of processes are looked through.
const GENERATIONS_MAX: usize = 256;

/// Where a program says that it is warm and that it lives, and how often it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifySocket {
    /// The socket's name, in the namespace of names without files.
    name: String,
    /// How long it may be silent.
    timeout: Option<Duration>,
}

/// A socket that is open, for one run of the program.
#[derive(Debug)]
pub(super) struct Notifications {
    socket: UnixDatagram,
    /// Of what this process looks after.
    guardian: u32,
}

// === impl NotifySocket ===

impl NotifySocket {
    /// One with a name of its own, for a program that may be silent for so long.
    pub fn new(timeout: Option<Duration>) -> Self {
        Self { name: format!("metad/{}", uuid::Uuid::new_v4().simple()), timeout }
    }

    /// What the program must know.
    pub(super) fn env(&self) -> impl Iterator<Item = (&'static str, String)> {
        let socket = ("NOTIFY_SOCKET", format!("@{}", self.name));
        let timeout = self.timeout.map(|timeout| ("WATCHDOG_USEC", timeout.as_micros().to_string()));
        [socket].into_iter().chain(timeout)
    }

    /// Opens the socket, for the program that this guardian looks after.
    pub(super) fn listen(&self, guardian: u32) -> io::Result<Notifications> {
        Ok(Notifications { socket: bind(&self.name)?, guardian })
    }
}

fn bind(name: &str) -> io::Result<UnixDatagram> {
    let socket = std::os::unix::net::UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    rustix::net::sockopt::set_socket_passcred(&socket, true)?;
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)
}

// === impl Notifications ===

impl Notifications {
    /// Passes signs of life on, and never ends.
    pub(super) async fn pass_on_to(self, leadership: &Leadership) -> Infallible {
        loop {
            if says(&self.next().await, ALIVE) {
                leadership.heartbeat();
            }
        }
    }

    /// Waits for the next message; true: the program is warm.
    pub(super) async fn is_ready(&self) -> bool {
        says(&self.next().await, READY)
    }

    /// The next message that counts. A socket that fails says nothing any more.
    async fn next(&self) -> Vec<u8> {
        loop {
            let received = self.socket.async_io(Interest::READABLE, || receive(&self.socket)).await;
            let Ok((message, sender)) = received else { return std::future::pending().await };
            if sender.is_some_and(|sender| counts(sender, self.guardian)) {
                return message;
            }
        }
    }
}

fn says(message: &[u8], wanted: &[u8]) -> bool {
    message.split(|b| *b == b'\n').any(|line| line == wanted)
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
