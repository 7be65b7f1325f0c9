//! Servers that are not what one looks for: silent, of another kind, or an etcd with a strange metrics page.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// How much an endless page holds, unless its reader goes away before.
const ENDLESS_BYTES: usize = 100 << 20;

/// What is served instead of etcd's metrics.
#[derive(Clone, Copy, Debug)]
pub enum Page {
    /// 100 MB of it.
    Endless,
    /// Bytes without a meaning.
    Garbage,
    /// Nothing, and the connection stays open.
    Silence,
    /// An error.
    Refusal,
}

/// A server on a port of its own, until the process ends.
#[derive(Debug)]
pub struct Impostor(SocketAddr);

impl Impostor {
    /// Accepts connections and says nothing.
    pub fn silent() -> Self {
        Self::serve(|stream| {
            thread::sleep(Duration::from_secs(120));
            drop(stream);
        })
    }

    /// Answers everything as a web server would.
    pub fn other_server() -> Self {
        Self::serve(|mut stream| {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nServer: other\r\nContent-Length: 0\r\n\r\n");
        })
    }

    /// An etcd, but for its pages.
    pub fn before(etcd: SocketAddr, page: Page) -> Self {
        Self::serve(move |stream| {
            let mut first = [0; 4];
            match stream.peek(&mut first) {
                Ok(n) if first[..n].starts_with(b"GET") => answer(stream, page),
                _ => relay(stream, etcd),
            }
        })
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        self.0.to_string()
    }

    fn serve(each: impl Fn(TcpStream) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let each = each.clone();
                thread::spawn(move || each(stream));
            }
        });
        Self(address)
    }
}

fn answer(mut stream: TcpStream, page: Page) {
    let _ = stream.read(&mut [0; 1024]);
    match page {
        Page::Silence => thread::sleep(Duration::from_secs(120)),
        Page::Refusal => {
            let _ = stream.write_all(b"HTTP/1.0 503 Service Unavailable\r\n\r\n");
        }
        Page::Garbage => {
            let bytes: Vec<u8> =
                (0..50_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").and_then(|()| stream.write_all(&bytes));
        }
        Page::Endless => {
            let line = b"etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 1\n".repeat(1000);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
            let mut left = ENDLESS_BYTES / line.len();
            while left > 0 && stream.write_all(&line).is_ok() {
                left -= 1;
            }
        }
    }
}

/// Copies in both directions until one side has had enough.
fn relay(client: TcpStream, to: SocketAddr) {
    let Ok(server) = TcpStream::connect(to) else { return };
    let halves = client.try_clone().and_then(|c| Ok((c, server.try_clone()?)));
    let Ok((mut from_client, mut to_server)) = halves else { return };
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(std::net::Shutdown::Both);
    });
    let (mut from_server, mut to_client) = (server, client);
    let _ = std::io::copy(&mut from_server, &mut to_client);
    let _ = to_client.shutdown(std::net::Shutdown::Both);
}
