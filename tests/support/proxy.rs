//! A TCP proxy whose faults are switched while it runs.
//!
//! Each switch returns only when it is in force. Bytes that a fault holds back are delivered when it ends, as
//! TCP's retransmission would after a partition; the one exception is [`FaultProxy::drop_replies`].

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc as sync_mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ports::Port;

const CHUNK: usize = 16 * 1024;

/// The proxy, on a thread of its own; dropping it closes everything.
#[derive(Debug)]
pub struct FaultProxy {
    port: Port,
    switches: Option<mpsc::UnboundedSender<Switch>>,
    gate: Arc<Gate>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Pass,
    DelayReplies(Duration),
    DropReplies,
    HoldRequests,
    StopAtRequest(u32),
    StopAtReply(u32),
    StopAtReplyTo(&'static [u8]),
    BlackHole,
    Refuse,
}

/// Counts what passes while the proxy is to stop somewhere.
#[derive(Debug, Default)]
struct Gate {
    passed: AtomicU32,
    /// The request whose reply it waits for has passed.
    was_asked: AtomicBool,
    has_stopped: AtomicBool,
}

/// A change of mode; `reset` closes the connections there are.
#[derive(Debug)]
struct Switch {
    mode: Mode,
    reset: bool,
    done: sync_mpsc::Sender<()>,
}

/// Bytes on their way to the client, and when they may arrive; no bytes stand for the end of the stream.
struct Reply {
    due: Instant,
    bytes: Vec<u8>,
}

// === impl FaultProxy ===

impl FaultProxy {
    /// Listens on a free loopback port and passes everything on to `target`.
    pub fn start(target: SocketAddr) -> Self {
        let port = Port::reserve();
        let addr = port.addr();
        let (switches, inbox) = mpsc::unbounded_channel();
        let (ready, is_ready) = sync_mpsc::channel();
        let gate = Arc::new(Gate::default());
        let counts = gate.clone();
        let thread = thread::Builder::new().name("fault-proxy".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(serve(addr, target, counts, inbox, ready));
        });
        is_ready.recv().expect("the proxy listens");
        Self { port, switches: Some(switches), gate, thread: Some(thread.expect("a thread for the proxy")) }
    }

    /// Where to connect instead of the target.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Ends every fault; what was held back is delivered now.
    pub fn pass(&self) {
        self.switch(Mode::Pass, false);
    }

    /// Delivers everything the target says that much later, in order; requests are not delayed.
    pub fn delay_replies(&self, delay: Duration) {
        self.switch(Mode::DelayReplies(delay), false);
    }

    /// Lets requests through and discards what the target says. A connection that lost bytes is useless and
    /// is closed when this fault ends.
    pub fn drop_replies(&self) {
        self.switch(Mode::DropReplies, false);
    }

    /// Holds requests back; replies still pass.
    pub fn hold_requests(&self) {
        self.switch(Mode::HoldRequests, false);
    }

    /// Delivers the requests that were held back: the same as [`pass`](Self::pass).
    pub fn release(&self) {
        self.pass();
    }

    /// Lets so many pieces of requests pass, as TCP carries them, and none after that; replies still pass. Connections
    /// with something to say then are closed when this fault ends.
    pub fn stop_at_request(&self, piece: u32) {
        self.gate.reset();
        self.switch(Mode::StopAtRequest(piece), false);
    }

    /// The same for what the target says: it gets all requests, and does what they ask.
    pub fn stop_at_reply(&self, piece: u32) {
        self.gate.reset();
        self.switch(Mode::StopAtReply(piece), false);
    }

    /// The same from the first reply on after a request with these bytes in it, whatever that is about.
    pub fn stop_at_reply_to(&self, request: &'static [u8]) {
        self.gate.reset();
        self.switch(Mode::StopAtReplyTo(request), false);
    }

    /// Was there anything to hold back at the point where the proxy was to stop?
    pub fn has_stopped(&self) -> bool {
        self.gate.has_stopped.load(Ordering::SeqCst)
    }

    /// Keeps connections open and accepts new ones, but forwards nothing in either direction.
    pub fn black_hole(&self) {
        self.switch(Mode::BlackHole, false);
    }

    /// Resets all connections; new ones are accepted and then hang.
    pub fn cut(&self) {
        self.switch(Mode::BlackHole, true);
    }

    /// Resets all connections and refuses new ones.
    pub fn refuse(&self) {
        self.switch(Mode::Refuse, true);
    }

    fn switch(&self, mode: Mode, reset: bool) {
        let (done, is_done) = sync_mpsc::channel();
        let switches = self.switches.as_ref().expect("present until dropped");
        switches.send(Switch { mode, reset, done }).expect("the proxy runs");
        is_done.recv().expect("the proxy runs");
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        drop(self.switches.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// === impl Gate ===

impl Gate {
    fn reset(&self) {
        self.passed.store(0, Ordering::SeqCst);
        self.has_stopped.store(false, Ordering::SeqCst);
        self.was_asked.store(false, Ordering::SeqCst);
    }

    /// Notes that this request passes.
    fn hear(&self, mode: Mode, request: &[u8]) {
        if let Mode::StopAtReplyTo(wanted) = mode
            && request.windows(wanted.len()).any(|bytes| bytes == wanted)
        {
            self.was_asked.store(true, Ordering::SeqCst);
        }
    }

    /// Is this a reply after the request that was waited for?
    fn holds_replies(&self, mode: Mode) -> bool {
        let holds = matches!(mode, Mode::StopAtReplyTo(_)) && self.was_asked.load(Ordering::SeqCst);
        self.has_stopped.fetch_or(holds, Ordering::SeqCst);
        holds
    }

    /// May one more piece pass, of so many?
    fn passes(&self, limit: Option<u32>) -> bool {
        let Some(limit) = limit else { return true };
        let passes = self.passed.fetch_add(1, Ordering::SeqCst) < limit;
        self.has_stopped.fetch_or(!passes, Ordering::SeqCst);
        passes
    }
}

// === impl Mode ===

impl Mode {
    fn forwards_requests(self) -> bool {
        !matches!(self, Mode::HoldRequests | Mode::BlackHole | Mode::Refuse)
    }

    fn forwards_replies(self) -> bool {
        !matches!(self, Mode::BlackHole | Mode::Refuse)
    }

    fn keeps_replies(self) -> bool {
        self != Mode::DropReplies
    }

    fn requests(self) -> Option<u32> {
        if let Mode::StopAtRequest(piece) = self { Some(piece) } else { None }
    }

    fn replies(self) -> Option<u32> {
        if let Mode::StopAtReply(piece) = self { Some(piece) } else { None }
    }

    fn delay(self) -> Duration {
        if let Mode::DelayReplies(delay) = self { delay } else { Duration::ZERO }
    }
}

/// On our reserved port. A process that is just being started by another test has all our descriptors, the last listener
/// among them, until it executes its program.
async fn listen(addr: SocketAddr) -> TcpListener {
    for _ in 0..200 {
        match TcpListener::bind(addr).await {
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            bound => return bound.expect("the reserved port can be bound"),
        }
    }
    panic!("the reserved port {addr} is not free");
}

/// Accepts connections and carries out switches, until nobody can switch any more.
async fn serve(
    addr: SocketAddr,
    target: SocketAddr,
    gate: Arc<Gate>,
    mut inbox: mpsc::UnboundedReceiver<Switch>,
    ready: sync_mpsc::Sender<()>,
) {
    let (mode, _) = watch::channel(Mode::Pass);
    let (reset, _) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut listener = Some(listen(addr).await);
    let _ = ready.send(());
    loop {
        tokio::select! {
            biased;
            switch = inbox.recv() => {
                let Some(Switch { mode: next, reset: now, done }) = switch else { break };
                if next == Mode::Refuse {
                    listener = None;
                } else if listener.is_none() {
                    listener = Some(listen(addr).await);
                }
                mode.send_replace(next);
                if now {
                    reset.send_replace(());
                    while connections.join_next().await.is_some() {}
                }
                let _ = done.send(());
            }
            Some(client) = accept(&listener) => {
                connections.spawn(connection(client, target, gate.clone(), mode.subscribe(), reset.subscribe()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The next connection; never one while the proxy refuses them.
async fn accept(listener: &Option<TcpListener>) -> Option<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

async fn connection(
    mut client: TcpStream,
    target: SocketAddr,
    gate: Arc<Gate>,
    mode: watch::Receiver<Mode>,
    mut reset: watch::Receiver<()>,
) {
    let mut server = None;
    let lost = tokio::select! {
        biased;
        _ = reset.changed() => true,
        result = relay(&mut client, &mut server, target, &gate, mode) => result.is_err(),
    };
    if lost {
        // With no time to linger, close sends RST instead of FIN.
        for stream in [Some(client), server].into_iter().flatten() {
            let _ = set_socket_linger(&stream, Some(Duration::ZERO));
        }
    }
}

/// Connects to the target as soon as requests may pass, then copies until both directions have ended.
async fn relay(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    target: SocketAddr,
    gate: &Gate,
    mut mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    until(&mut mode, Mode::forwards_requests).await?;
    let server = server.insert(TcpStream::connect(target).await?);
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (requests, to_client) = client.split();
    let (replies, to_server) = server.split();
    let (queue, queued) = mpsc::unbounded_channel();
    tokio::try_join!(
        forward_requests(requests, to_server, gate, mode.clone()),
        collect_replies(replies, queue, mode.clone()),
        deliver_replies(queued, to_client, gate, mode),
    )?;
    Ok(())
}

async fn forward_requests(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    gate: &Gate,
    mut mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await?;
        until(&mut mode, Mode::forwards_requests).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        let now = *mode.borrow_and_update();
        gate.hear(now, &chunk[..length]);
        let limit = now.requests();
        if !gate.passes(limit) {
            return stop(mode).await;
        }
        to.write_all(&chunk[..length]).await?;
    }
}

async fn collect_replies(
    mut from: ReadHalf<'_>,
    queue: mpsc::UnboundedSender<Reply>,
    mut mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut lossy = false;
    loop {
        let length = tokio::select! {
            biased;
            // What follows lost bytes would make no sense to the client.
            _ = until(&mut mode, Mode::keeps_replies), if lossy => return Err(closed()),
            length = from.read(&mut chunk) => length?,
        };
        let now = *mode.borrow();
        if length > 0 && !now.keeps_replies() {
            lossy = true;
            continue;
        }
        let reply = Reply { due: Instant::now() + now.delay(), bytes: chunk[..length].to_vec() };
        queue.send(reply).map_err(|_| closed())?;
        if length == 0 {
            return Ok(());
        }
    }
}

async fn deliver_replies(
    mut queued: mpsc::UnboundedReceiver<Reply>,
    mut to: WriteHalf<'_>,
    gate: &Gate,
    mut mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    while let Some(reply) = queued.recv().await {
        tokio::time::sleep_until(reply.due).await;
        until(&mut mode, Mode::forwards_replies).await?;
        if reply.bytes.is_empty() {
            return to.shutdown().await;
        }
        let now = *mode.borrow_and_update();
        if gate.holds_replies(now) || !gate.passes(now.replies()) {
            return stop(mode).await;
        }
        to.write_all(&reply.bytes).await?;
    }
    Ok(())
}

/// Holds a connection until the fault ends; what it was about to say is lost.
async fn stop(mut mode: watch::Receiver<Mode>) -> io::Result<()> {
    let _ = mode.changed().await;
    Err(closed())
}

async fn until(mode: &mut watch::Receiver<Mode>, allows: fn(Mode) -> bool) -> io::Result<()> {
    mode.wait_for(|mode| allows(*mode)).await.map(drop).map_err(|_| closed())
}

fn closed() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}
