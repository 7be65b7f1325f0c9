//! Loopback ports that stay ours.
//!
//! A port found by binding to port 0 is anyone's again once that socket is closed, and a killed etcd member
//! must get its port back minutes later. So ports come from a range below the kernel's ephemeral ones, which
//! it never hands out by itself, and test processes divide that range among them: whoever uses a port is bound to an
//! abstract Unix address of its name, which needs no file and ends with its process, whoever's that is.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 20_000;
const COUNT: u32 = 10_000;

/// A reserved port, given back on drop.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: UnixListener,
}

impl Port {
    /// Reserves a port that nobody listens on.
    pub fn reserve() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Processes start at different places, so that they rarely try each other's ports.
        let offset = std::process::id().wrapping_mul(97);
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + offset.wrapping_add(step) % COUNT;
            if let Some(port) = Self::try_reserve(number as u16) {
                return port;
            }
        }
        panic!("none of the ports {FIRST}..{} is free", FIRST + COUNT);
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The port on 127.0.0.1.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }

    fn try_reserve(number: u16) -> Option<Self> {
        let name = format!("metad-test-port-{number}");
        let lock =
            UnixListener::bind_addr(&UnixAddr::from_abstract_name(name).expect("short enough")).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self { number, _lock: lock })
    }
}
