//! Our side of the talk with a guardian: what it has said so far, and whether it still answers.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::channel::{Channel, FromGuardian, Refused, ToGuardian, registered};

/// How often it is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How long it may be silent, at least and at most; between them half of a lease.
const SILENCE_MIN: Duration = Duration::from_secs(2);
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Sends to it.
#[derive(Debug)]
pub(super) struct Link(Arc<AsyncFd<Channel>>);

/// What the guardian has told us so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) ready: bool,
    /// The last run of the program that was started, or could not be.
    pub(super) started: Option<(u64, Result<u32, Refused>)>,
    /// The last run of a program that was promoted, or could not be.
    pub(super) promoted: Option<(u64, Result<(), Refused>)>,
    /// The last run of which nothing is left, with the program's own exit code.
    pub(super) ended: Option<(u64, Option<i32>)>,
    /// It is of no use any more, because it did this.
    pub(super) lost: Option<&'static str>,
}

/// The pings that are under way. Silence counts only while we ourselves run: a tick adds the time of one tick, however
/// late it comes.
#[derive(Debug)]
struct Pings {
    sent: u64,
    answered: u64,
    silent: Duration,
    timeout: Duration,
}

// === impl Link ===

impl Link {
    /// Begins to listen, on a task that ends when the guardian is lost.
    pub(super) fn start(channel: Channel, ttl: Duration) -> io::Result<(Self, watch::Receiver<Said>)> {
        let channel = Arc::new(registered(channel)?);
        let (tell, said) = watch::channel(Said::default());
        tokio::spawn(listen(channel.clone(), tell, Pings::new(ttl)));
        Ok((Self(channel), said))
    }

    pub(super) fn send(&self, message: &ToGuardian) -> io::Result<()> {
        self.send_with(message, &[])
    }

    pub(super) fn send_with(&self, message: &ToGuardian, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.get_ref().send(message, fds)
    }
}

async fn listen(channel: Arc<AsyncFd<Channel>>, tell: watch::Sender<Said>, mut pings: Pings) {
    let mut ticks = tokio::time::interval(PING_EVERY);
    ticks.reset(); // the first one not at once
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let lost = loop {
        tokio::select! {
            // What it has said first: after a stall of ours an answer and a tick are there together.
            biased;
            open = hear(&channel, &tell, &mut pings) => if !open { break "died" },
            _ = ticks.tick() => match pings.next() {
                // A full socket: it has not read for long, and the silence counts.
                Some(number) => drop(channel.get_ref().send(&ToGuardian::Ping(number), &[])),
                None => break "does not answer",
            },
        }
    };
    tell.send_modify(|s| s.lost = Some(lost));
}

/// Takes one message; `false`: the other end is closed, or cannot be understood.
async fn hear(channel: &AsyncFd<Channel>, tell: &watch::Sender<Said>, pings: &mut Pings) -> bool {
    let Ok(mut ready) = channel.readable().await else { return false };
    let message = match ready.try_io(|c| c.get_ref().receive::<FromGuardian>()) {
        Ok(Ok(Some((message, _)))) => message,
        Ok(Ok(None) | Err(_)) => return false,
        Err(_would_block) => return true,
    };
    let said = |change: &dyn Fn(&mut Said)| tell.send_modify(|s| change(s));
    match message {
        FromGuardian::Pong(number) => pings.answered = number,
        FromGuardian::Unkillable { run, why } => {
            tracing::error!(
                run,
                "processes of the program are still alive: {why}; retrying; neither the record is given up nor the \
                 lease revoked before they are gone"
            );
        }
        FromGuardian::Ready => said(&|s| s.ready = true),
        FromGuardian::Started { run, pid } => said(&|s| s.started = Some((run, Ok(pid)))),
        FromGuardian::Refused { run, refused } => said(&|s| s.started = Some((run, Err(refused.clone())))),
        FromGuardian::Promoted { run, refused } => {
            said(&|s| s.promoted = Some((run, refused.clone().map_or(Ok(()), Err))));
        }
        FromGuardian::Ended { run, code } => said(&|s| s.ended = Some((run, code))),
    }
    true
}

// === impl Pings ===

impl Pings {
    fn new(ttl: Duration) -> Self {
        let timeout = (ttl / 2).clamp(SILENCE_MIN, SILENCE_MAX);
        Self { sent: 0, answered: 0, silent: Duration::ZERO, timeout }
    }

    /// The next one to send; `None`: it has been silent for too long.
    fn next(&mut self) -> Option<u64> {
        self.silent = if self.answered == self.sent { Duration::ZERO } else { self.silent + PING_EVERY };
        if self.silent >= self.timeout {
            return None;
        }
        self.sent += 1;
        Some(self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guardian_is_lost_after_so_much_silence_and_not_before() {
        for (ttl, ticks) in [(3, 3), (5, 4), (15, 6), (86_400, 6)] {
            let mut pings = Pings::new(Duration::from_secs(ttl));
            let sent = std::iter::from_fn(|| pings.next()).count();
            assert_eq!(sent, ticks - 1, "lease {ttl} s");
        }
        let mut pings = Pings::new(Duration::from_secs(5));
        for _ in 0..100 {
            assert!(pings.next().is_some() && pings.next().is_some(), "one answer late");
            pings.answered = pings.sent;
        }
    }
}
