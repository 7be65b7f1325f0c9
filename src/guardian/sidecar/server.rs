//! The sidecar itself: one task and one connection to the store for each node.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

use super::super::channel::Channel;
use super::super::revoke::Revoker;
use super::super::rules::LEASES_MAX;
use super::{ToSidecar, WatchOrder, Watching, receive, registered};
use crate::config::Config;
use crate::election::lease::LeaseId;
use crate::telemetry::terminal::plain;

/// The most nodes at a time; each has a thread and a connection.
const NODES_MAX: usize = 64;
/// Connections that wait to be taken.
const BACKLOG: i32 = 64;

/// Why there is no sidecar.
#[derive(Debug, thiserror::Error)]
pub enum CannotServe {
    /// Another one answers there.
    #[error("another guardian listens at {0}\nfix: stop it, or give this one another --socket")]
    InUse(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen at {path}: {why}\nfix: name a path in a folder that this user may write to")]
    Socket {
        /// The path.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
}

/// What is to be done when a process has ended.
struct WatchedContainer {
    process_1: AsyncFd<OwnedFd>,
    watch: WatchOrder,
}

/// Watches every node that connects to this socket, until the process is ended.
///
/// # Errors
/// See [`CannotServe`].
pub async fn serve(config: Config, socket: &Path) -> Result<std::convert::Infallible, CannotServe> {
    let listener = listen(socket)?;
    tracing::info!("watching whoever connects to {}", socket.display());
    let places = Arc::new(Semaphore::new(NODES_MAX));
    loop {
        let failed = |why: io::Error| CannotServe::Socket { path: socket.to_owned(), why };
        let mut ready = listener.readable().await.map_err(failed)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = ready.try_io(|fd| Ok(rustix::net::accept_with(fd.get_ref(), flags)?));
        let Ok(Ok(connection)) = accepted else { continue };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!("{NODES_MAX} nodes are watched already; another one is refused");
            continue;
        };
        let Ok(channel) = registered(Channel::from_fd(connection)) else { continue };
        let config = config.clone();
        tokio::spawn(async move {
            look_after(channel, config).await;
            drop(place);
        });
    }
}

/// A socket for this user alone. One that nobody listens at any more is replaced.
fn listen(path: &Path) -> Result<AsyncFd<OwnedFd>, CannotServe> {
    let failed = |why: io::Error| CannotServe::Socket { path: path.to_owned(), why };
    let errno = |e: rustix::io::Errno| failed(e.into());
    let address = SocketAddrUnix::new(path).map_err(errno)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = || rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    match rustix::net::connect(socket().map_err(errno)?, &address) {
        Ok(()) | Err(rustix::io::Errno::AGAIN) => return Err(CannotServe::InUse(path.to_owned())),
        // What is no socket refuses too, and is not ours to take away: binding says that it is in the way.
        Err(rustix::io::Errno::CONNREFUSED) if is_socket(path) => {
            std::fs::remove_file(path).map_err(failed)?
        }
        Err(_) => {} // there is none, or binding says what is wrong
    }
    let listener = socket().map_err(errno)?;
    // Before anybody could connect: the mask is the process's, which does nothing else yet.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&listener, &address);
    rustix::process::umask(mask);
    bound.map_err(errno)?;
    rustix::net::listen(&listener, BACKLOG).map_err(errno)?;
    registered(listener).map_err(failed)
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

/// One node, until its container has ended, or it has given everything back.
async fn look_after(channel: AsyncFd<Channel>, config: Config) {
    let (mut held, mut revoker, mut is_open) = (None::<WatchedContainer>, None, true);
    loop {
        tokio::select! {
            // What the node said last counts.
            biased;
            message = receive::<ToSidecar>(&channel), if is_open => match message {
                Some((ToSidecar::Watch(watch), fds)) => {
                    let Some(next) = WatchedContainer::new(watch, fds) else { return };
                    if held.is_none() {
                        tracing::info!("watching the container of {}", plain(&next.watch.node));
                        revoker = Revoker::start(with_lease(&config, &next.watch)).ok();
                    }
                    held = Some(next);
                    let _ = channel.get_ref().send(&Watching, &[]); // it has gone: the pidfd tells
                }
                Some((ToSidecar::Dismissed, _)) => held = None,
                // A connection that breaks means nothing: only the pidfd counts.
                None => is_open = false,
            },
            () = ended(held.as_ref()), if held.is_some() => break,
        }
        if !is_open && held.is_none() {
            return;
        }
    }
    let (Some(WatchedContainer { watch, .. }), Some(revoker)) = (held, revoker) else { return };
    tracing::warn!("the container of {} has ended; revoking its lease", plain(&watch.node));
    let revoking = revoker.revoke(watch.leases.into_iter().map(LeaseId).collect(), watch.cluster);
    let _ = tokio::task::spawn_blocking(move || revoking.join()).await; // it has nothing to say
}

/// A lease may live for as long as the node said.
fn with_lease(config: &Config, watch: &WatchOrder) -> Config {
    let mut config = config.clone();
    config.meta.meta_leader_lease_secs = watch.ttl_secs;
    config
}

async fn ended(held: Option<&WatchedContainer>) {
    match held {
        Some(held) => drop(held.process_1.readable().await),
        None => std::future::pending().await,
    }
}

// === impl WatchedContainer ===

impl WatchedContainer {
    /// `None`: there is no pidfd, or its process is dead already, which nobody has an interest in but to have leases of
    /// others revoked; or there are too many leases.
    fn new(watch: WatchOrder, fds: Vec<OwnedFd>) -> Option<Self> {
        let process_1 = fds.into_iter().next()?;
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut polled = [PollFd::new(&process_1, PollFlags::IN)];
        let is_alive = rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|ready| ready == 0);
        let process_1 = registered(process_1).ok()?;
        (is_alive && watch.leases.len() <= LEASES_MAX).then_some(Self { process_1, watch })
    }
}
