//! The socket between a process and its guardian: one JSON message a packet, descriptors beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::config::Config;

/// The largest message: a program's arguments and environment.
const MESSAGE_BYTES_MAX: usize = 192 * 1024;
/// What metad itself adds to the environment, and to a message.
pub(super) const OWN_BYTES_MAX: usize = 4096;
/// Standard input, output, error.
pub(super) const STREAMS: usize = 3;
/// The same, and what else a program may get.
const DESCRIPTORS_MAX: usize = STREAMS + 5;

/// A program to run as the main loop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Which start of it this is; every answer names it.
    pub run: u64,
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Variables added to its environment.
    pub env: Vec<(String, String)>,
    /// Variables for the numbers of its further descriptors, which come in this order after the standard streams.
    pub descriptors: Vec<String>,
    /// It stands by: it gets a pipe, and may act only when a line arrives there.
    pub stands_by: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToGuardian {
    Setup(Box<Config>),
    Lease(i64),
    /// Only the answers of this cluster count.
    Pinned(u64),
    /// The deadlines in the page have moved.
    Moved,
    /// To be answered with its number.
    Ping(u64),
    Run(Program),
    /// This run's program leads from now on: it gets this line.
    Promote {
        run: u64,
        line: String,
    },
    Terminate,
    Kill,
    /// For the program alone, by its number.
    Signal(i32),
    Dismissed,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromGuardian {
    Ready,
    Started {
        run: u64,
        pid: u32,
    },
    Refused {
        run: u64,
        refused: Refused,
    },
    /// The line has been written, or why not.
    Promoted {
        run: u64,
        refused: Option<Refused>,
    },
    Ended {
        run: u64,
        code: Option<i32>,
    },
    /// Something of this run cannot be killed. It is tried on.
    Unkillable {
        run: u64,
        why: String,
    },
    Pong(u64),
}

/// Why a program was not started. Nothing of it runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{why}")]
pub struct Refused {
    /// For a person.
    pub why: String,
    /// What a shell would exit with; `None`: it is not the program's fault.
    pub code: Option<i32>,
    /// The system had no room for it at the moment: the same may work a little later.
    pub may_pass: bool,
}

// === impl Program ===

impl Program {
    /// Does it fit into one message to the guardian? Otherwise how long it is, and how long it may be.
    pub(super) fn fits(command: &[String]) -> Result<(), (usize, usize)> {
        let program =
            Program { run: 0, command: command.to_vec(), env: vec![], descriptors: vec![], stands_by: true };
        let bytes = serde_json::to_vec(&ToGuardian::Run(program)).map_or(usize::MAX, |json| json.len());
        let most = MESSAGE_BYTES_MAX - OWN_BYTES_MAX;
        if bytes <= most { Ok(()) } else { Err((bytes, most)) }
    }
}

/// One end.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// To be waited for on the present runtime.
pub(super) fn registered<T: AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: all that is passed here owns its descriptor, and the `AsyncFd` never gives it away.
    let fd = unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) };
    fd.map_err(|e| io::Error::other(format!("{e:?}")))
}

impl Channel {
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        for end in [&a, &b] {
            rustix::net::sockopt::set_socket_send_buffer_size(end, 2 * MESSAGE_BYTES_MAX)?;
        }
        Ok((Self(a), Self(b)))
    }

    pub(super) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends without waiting: a full socket is an error, so that nobody is ever held up.
    pub(super) fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(io::Error::other("the program's arguments are too long"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        rustix::net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message; `None` when the other end is closed.
    pub(super) fn receive<T: for<'a> Deserialize<'a>>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let received = rustix::net::recvmsg(&self.0, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        if received.bytes == 0 {
            return Ok(None);
        }
        let fds = ancillary
            .drain()
            .filter_map(|m| match m {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, fds)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
