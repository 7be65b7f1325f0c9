//! The node's end: keeps a sidecar told, through its restarts.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::net::SocketAddrUnix;
use rustix::process::{Pid, PidfdFlags};
use tokio::io::unix::AsyncFd;

use super::super::Guardianship;
use super::super::channel::{Channel, registered};
use super::super::{init, rules};
use super::{ToSidecar, WatchOrder, Watching, receive, socket};
use crate::election::lease::LeaseId;

/// The pause before a sidecar that is not there is looked for again; doubles.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// The longest such pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Why a sidecar would be of no use.
#[derive(Debug, thiserror::Error)]
pub enum CannotWatch {
    /// This node is no child of process 1.
    #[error(
        "node.guardian_socket is for a container whose process 1 is metad: here process 1 is another program, whose end says \
         nothing about this node\nfix: let metad be the container's entry point, or leave node.guardian_socket out"
    )]
    NotInContainer,
    /// Its pidfd cannot be had.
    #[error(
        "cannot watch process 1 for node.guardian_socket: {0}\nfix: pidfd needs Linux 5.3, and a seccomp filter must allow it"
    )]
    NoPidfd(io::Error),
}

/// Our end of a sidecar, whether it is there at the moment or not.
#[derive(Debug)]
pub struct SidecarClient {
    shared: Arc<WatchedNode>,
}

#[derive(Debug)]
struct WatchedNode {
    socket: PathBuf,
    process_1: OwnedFd,
    state: Mutex<TellState>,
}

#[derive(Debug, Default)]
struct TellState {
    watch: WatchOrder,
    dismissed: bool,
    channel: Option<Arc<AsyncFd<Channel>>>,
}

// === impl SidecarClient ===

impl SidecarClient {
    /// Looks for a sidecar at this socket, and looks again whenever it goes away. Must be called on a runtime.
    ///
    /// # Errors
    /// See [`CannotWatch`].
    pub fn start(socket: &Path, node: &str, ttl: Duration) -> Result<Self, CannotWatch> {
        if !init::is_node() || rustix::process::getppid() != Some(Pid::INIT) {
            return Err(CannotWatch::NotInContainer);
        }
        let process_1 = rustix::process::pidfd_open(Pid::INIT, PidfdFlags::empty())
            .map_err(|e| CannotWatch::NoPidfd(e.into()))?;
        let watch = WatchOrder { node: node.to_owned(), ttl_secs: ttl.as_secs(), ..WatchOrder::default() };
        let state = Mutex::new(TellState { watch, ..TellState::default() });
        let shared = Arc::new(WatchedNode { socket: socket.to_owned(), process_1, state });
        tokio::spawn(shared.clone().keep_told());
        Ok(Self { shared })
    }

    fn change(&self, change: impl FnOnce(&mut WatchOrder)) {
        let mut state = self.shared.state();
        change(&mut state.watch);
        self.shared.tell(&state);
    }
}

// === impl WatchedNode ===

impl WatchedNode {
    async fn keep_told(self: Arc<Self>) {
        let (mut pause, mut complained) = (RETRY_PAUSE, false);
        loop {
            match self.connect() {
                Ok(channel) => {
                    let was_watched = self.follow(channel).await;
                    if self.state().dismissed {
                        return;
                    }
                    if was_watched || !complained {
                        tracing::warn!(
                            "the guardian at {} does not watch this container; while it does not, a container that is killed \
                             costs its lease",
                            self.socket.display()
                        );
                    }
                    complained = true;
                    if was_watched {
                        pause = RETRY_PAUSE;
                    }
                }
                Err(e) if !complained => {
                    complained = true;
                    tracing::warn!(
                        "no guardian at {}: {e}; while it is missing, a container that is killed costs its lease",
                        self.socket.display()
                    );
                }
                Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    fn connect(&self) -> io::Result<Arc<AsyncFd<Channel>>> {
        let socket = socket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(&self.socket)?)?;
        Ok(Arc::new(registered(Channel::from_fd(socket))?))
    }

    /// Until it goes away; whether it has watched us.
    async fn follow(&self, channel: Arc<AsyncFd<Channel>>) -> bool {
        {
            let mut state = self.state();
            state.channel = Some(channel.clone());
            self.tell(&state);
        }
        let mut is_told = false;
        while let Some((Watching, _)) = receive(&channel).await {
            if !std::mem::replace(&mut is_told, true) {
                tracing::info!("the guardian at {} watches this container", self.socket.display());
            }
        }
        self.state().channel = None;
        is_told
    }

    /// Without waiting. What does not get through is told to the next one: the connection ends.
    fn tell(&self, state: &TellState) {
        let Some(channel) = &state.channel else { return };
        let told = match state.dismissed {
            true => channel.get_ref().send(&ToSidecar::Dismissed, &[]),
            false => {
                let watch = ToSidecar::Watch(state.watch.clone());
                channel.get_ref().send(&watch, &[self.process_1.as_fd()])
            }
        };
        if let Err(e) = told {
            tracing::warn!("cannot tell the guardian at {}: {e}", self.socket.display());
            // Then `follow` ends, and the next one is told all of it.
            let _ = rustix::net::shutdown(channel.get_ref(), rustix::net::Shutdown::Both);
        }
    }

    fn state(&self) -> MutexGuard<'_, TellState> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Guardianship for SidecarClient {
    fn tell_lease(&self, lease: LeaseId) {
        self.change(|watch| rules::remember(&mut watch.leases, lease.0));
    }

    fn tell_pinned(&self, cluster: u64) {
        self.change(|watch| watch.cluster = Some(cluster));
    }

    fn tell_moved(&self, _begun: bool) {} // it knows no deadlines

    fn knows_a_lease(&self) -> bool {
        !self.shared.state().watch.leases.is_empty()
    }

    fn dismiss(&self) {
        let mut state = self.shared.state();
        state.dismissed = true;
        self.shared.tell(&state);
    }
}
