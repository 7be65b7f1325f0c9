//! What a service manager is told (sd_notify(3)): that the node has started, and that it ends.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long it may be busy, as it is while a machine starts.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Tells it, if there is one that wants to know.
pub(super) fn tell(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&socket),
    };
    let told = address.and_then(|address| {
        let datagram = UnixDatagram::unbound()?;
        datagram.set_write_timeout(Some(TIMEOUT))?;
        datagram.send_to_addr(state.as_bytes(), &address)
    });
    if let Err(e) = told {
        tracing::warn!("cannot tell the service manager {state:?}: {e}");
    }
}
