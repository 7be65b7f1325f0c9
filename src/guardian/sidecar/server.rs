//! The sidecar itself: one task and one connection to the store for each node.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SocketAddrUnix;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

use super::super::channel::{Channel, registered};
use super::super::revoke::Revoker;
use super::super::rules::LEASES_MAX;
use super::{FLAGS, ToSidecar, WatchOrder, Watching, receive, socket};
use crate::config::Config;
use crate::election::lease::LeaseId;
use crate::telemetry::terminal::plain;

/// The most nodes at a time; each has a thread and a connection.
const NODES_MAX: usize = 64;
/// The pause after one that could not be taken, for want of descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
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
    order: WatchOrder,
    revoker: Revoker,
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
        let accepted = ready.try_io(|fd| Ok(rustix::net::accept_with(fd.get_ref(), FLAGS)?));
        let connection = match accepted {
            Ok(Ok(connection)) => connection,
            Ok(Err(e)) => {
                tracing::warn!("cannot take a connection: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
            Err(_would_block) => continue,
        };
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
    let (mut channel, mut watched) = (Some(channel), None::<WatchedContainer>);
    loop {
        tokio::select! {
            // What the node said last counts.
            biased;
            message = hear(channel.as_ref()), if channel.is_some() => match message {
                Some((ToSidecar::Watch(order), fds)) => {
                    let is_taken = WatchedContainer::take(&mut watched, order, fds, &config).is_some();
                    match channel.as_ref().filter(|_| is_taken) {
                        Some(open) => drop(open.get_ref().send(&Watching, &[])), // it has gone: the pidfd tells
                        None => channel = None,
                    }
                }
                Some((ToSidecar::Dismissed, _)) => watched = None,
                // A connection that breaks means nothing: only the pidfd counts. It is closed, so that a node whose words
                // were not understood looks for another guardian.
                None => channel = None,
            },
            () = ended(watched.as_ref()), if watched.is_some() => break,
        }
        if channel.is_none() && watched.is_none() {
            return;
        }
    }
    let Some(WatchedContainer { order, revoker, .. }) = watched else { return };
    tracing::warn!("the container of {} has ended; revoking its lease", plain(&order.node));
    let revoking = revoker.revoke(order.leases.into_iter().map(LeaseId).collect(), order.cluster);
    let _ = tokio::task::spawn_blocking(move || revoking.join()).await; // it has nothing to say
}

async fn hear(channel: Option<&AsyncFd<Channel>>) -> Option<(ToSidecar, Vec<OwnedFd>)> {
    receive::<ToSidecar>(channel?).await
}

/// A lease may live for as long as the node said.
fn with_lease(config: &Config, order: &WatchOrder) -> Config {
    let mut config = config.clone();
    config.meta.meta_leader_lease_secs = order.ttl_secs;
    config
}

async fn ended(watched: Option<&WatchedContainer>) {
    match watched {
        Some(container) => drop(container.process_1.readable().await),
        None => std::future::pending().await,
    }
}

// === impl WatchedContainer ===

impl WatchedContainer {
    /// What is watched from now on. `None`, and all stays as it was: there is no pidfd, there are too many leases, or the
    /// system has no room for a revoker. A process that is dead already is what we are here for: it may have died before its
    /// message was read.
    fn take(watched: &mut Option<Self>, order: WatchOrder, fds: Vec<OwnedFd>, config: &Config) -> Option<()> {
        let process_1 = registered(fds.into_iter().next()?).ok()?;
        if order.leases.len() > LEASES_MAX {
            return None;
        }
        if let Some(present) = watched {
            (present.process_1, present.order) = (process_1, order);
            return Some(());
        }
        let node = plain(&order.node).into_owned();
        let started = Revoker::start(with_lease(config, &order));
        let revoker =
            started.inspect_err(|e| tracing::warn!("cannot watch the container of {node}: {e}")).ok()?;
        tracing::info!("watching the container of {node}");
        *watched = Some(Self { process_1, order, revoker });
        Some(())
    }
}
