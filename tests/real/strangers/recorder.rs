//! A place that leads somewhere else and writes down what passes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// How much is written down.
const BYTES_MAX: usize = 4 << 20;

/// Listens until the process ends.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    to: Option<SocketAddr>,
    calls: usize,
    heard: Vec<u8>,
}

// === impl Recorder ===

impl Recorder {
    /// Listens, and leads nowhere yet.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let notes: Arc<Mutex<Notes>> = Arc::default();
        let noted = notes.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let notes = noted.clone();
                thread::spawn(move || relay(client, &notes));
            }
        });
        Self { address, notes }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads there from now on.
    pub fn lead_to(&self, to: SocketAddr) {
        self.notes().to = Some(to);
    }

    /// How many connections there were.
    pub fn calls(&self) -> usize {
        self.notes().calls
    }

    /// Has a client sent this?
    pub fn has_heard(&self, text: &str) -> bool {
        self.notes().heard.windows(text.len()).any(|w| w == text.as_bytes())
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn relay(mut client: TcpStream, notes: &Mutex<Notes>) {
    let lock = || notes.lock().unwrap_or_else(PoisonError::into_inner);
    let to = {
        let mut notes = lock();
        notes.calls += 1;
        notes.to
    };
    let Some(mut server) = to.and_then(|to| TcpStream::connect(to).ok()) else { return };
    let halves = client.try_clone().and_then(|c| Ok((c, server.try_clone()?)));
    let Ok((mut to_client, mut from_server)) = halves else { return };
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let mut bytes = [0; 16 * 1024];
    while let Ok(n @ 1..) = client.read(&mut bytes) {
        let mut notes = lock();
        if notes.heard.len() < BYTES_MAX {
            notes.heard.extend_from_slice(&bytes[..n]);
        }
        drop(notes);
        if server.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}
