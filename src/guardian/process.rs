//! The guardian's own process: one loop over three descriptors, and at the end the revoke.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::channel::{Channel, FromGuardian, Program, Refused, ToGuardian};
use super::horizon::Horizon;
use super::keeper::LEASES_MAX;
use super::obituary::{LAST_PATIENCE, Obituary, WRITE_PATIENCE, Writing};
use super::{FDS_VARIABLE, program, tree};
use crate::clock::{Clock, Instant, OsClock, wall_clock_ms};
use crate::config::Config;
use crate::election::lease::LeaseId;
use crate::store::open;
use crate::store::{Request, Store};

/// How long after H we are killed, if the fuse has not done it.
const KILL_AFTER_FUSE: Duration = Duration::from_millis(20);
/// How long the revoke is tried.
const REVOKE_PATIENCE: Duration = Duration::from_secs(3600);
/// The pause between two tries; doubles up to the second one.
const REVOKE_PAUSE: Duration = Duration::from_millis(20);
const REVOKE_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often dead children are looked for while the program runs.
const REAP_EVERY: Duration = Duration::from_millis(10);

struct Process {
    channel: Channel,
    /// The process that we watch.
    ward: OwnedFd,
    horizon: Horizon,
    timer: OwnedFd,
    config: Option<Config>,
    leases: Vec<LeaseId>,
    program: Option<Pid>,
    /// Which run of the program this is, or was.
    run: u64,
    /// The program's own exit code, once it has ended.
    code: Option<i32>,
    dismissed: bool,
    /// The ward is dead: nothing is started any more.
    is_orphan: bool,
    /// We have killed the ward.
    killed: bool,
}

/// If this process was started to be a guardian, becomes one and never returns. To be called first of all.
pub fn run_if_asked() {
    let Ok(numbers) = std::env::var(FDS_VARIABLE) else { return };
    let fds: Vec<i32> = numbers.split(',').filter_map(|n| n.parse().ok()).collect();
    let code = match <[i32; 4]>::try_from(fds) {
        Ok(fds) => run(fds).map_or(74, |()| 0),
        Err(_) => 64,
    };
    std::process::exit(code);
}

fn run([socket, ward, page, lock]: [i32; 4]) -> io::Result<()> {
    ignore_signals();
    tree::become_subreaper()?;
    // SAFETY: whoever started us left these descriptors open for us, and told nobody else.
    let [socket, ward, page, lock] = unsafe { [socket, ward, page, lock].map(|fd| OwnedFd::from_raw_fd(fd)) };
    for fd in [&socket, &ward, &page, &lock] {
        // The program must not inherit them.
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    }
    let timer = rustix::time::timerfd_create(
        TimerfdClockId::Boottime,
        TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
    )?;
    let mut process = Process {
        channel: Channel::from_fd(socket),
        ward,
        horizon: Horizon::open(page)?,
        timer,
        config: None,
        leases: Vec::new(),
        program: None,
        run: 0,
        code: None,
        dismissed: false,
        is_orphan: false,
        killed: false,
    };
    process.watch()?;
    // The ward is dead, or has dismissed us. Kill first, revoke after.
    let obituary = process.write_obituary();
    tree::kill_children();
    let freeing = free_data_dir(lock, obituary);
    if !process.dismissed {
        process.revoke();
    }
    if let Ok(freeing) = freeing {
        let _ = freeing.join(); // it has nothing to say
    }
    Ok(())
}

/// Now the next start may take the record over. It need not wait for the store as well, nor the revoke for a disk that
/// hangs with the obituary.
fn free_data_dir(lock: OwnedFd, obituary: Option<Writing>) -> io::Result<std::thread::JoinHandle<()>> {
    let free = move || {
        obituary.iter().for_each(|o| o.wait(WRITE_PATIENCE));
        drop(lock);
        // A thread that had to wait for a CPU must not be ended before it has written.
        obituary.iter().for_each(|o| o.wait(LAST_PATIENCE));
    };
    std::thread::Builder::new().name("free-data-dir".into()).spawn(free)
}

/// A supervisor that signals our whole group means the ward; we end when our task is done.
fn ignore_signals() {
    for signal in program::IGNORED_BY_GUARDIAN {
        // SAFETY: sets a disposition; there is no other thread yet.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

// === impl Process ===

impl Process {
    /// Until the ward is dead or has dismissed us.
    fn watch(&mut self) -> io::Result<()> {
        let mut channel_open = true;
        loop {
            self.set_timer()?;
            let socket_flags = if channel_open { PollFlags::IN } else { PollFlags::empty() };
            let mut fds = [
                PollFd::new(&self.ward, PollFlags::IN),
                PollFd::from_borrowed_fd(self.channel.as_fd(), socket_flags),
                PollFd::new(&self.timer, PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            if !fds[0].revents().is_empty() {
                // Its last words count: that everything is given back, or the name of a lease.
                self.is_orphan = true;
                self.take_messages();
                return Ok(());
            }
            if channel_open {
                channel_open = self.take_messages();
            }
            if self.dismissed {
                return Ok(());
            }
            self.act_on_deadlines();
            self.reap();
        }
    }

    /// Wakes us at the next deadline of the page; it may have moved on by then, and we sleep again. While a
    /// program runs we wake more often, to bury the dead.
    fn set_timer(&self) -> io::Result<()> {
        let now = OsClock.now();
        let kill = self.horizon.kill_at().filter(|_| self.program.is_some());
        let fuse = self.horizon.fuse().map(|h| h + KILL_AFTER_FUSE);
        let deadline = [kill, fuse].into_iter().flatten().reduce(Instant::earlier).map(|at| now.until(at));
        let reap = self.program.map(|_| REAP_EVERY);
        let sleep = [deadline, reap].into_iter().flatten().min();
        // Zero would disarm the timer.
        let sleep = sleep.map_or(Duration::ZERO, |s| s.max(Duration::from_micros(100)));
        let value = Timespec {
            tv_sec: i64::try_from(sleep.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(sleep.subsec_nanos()),
        };
        let interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval: interval, it_value: value };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }

    fn act_on_deadlines(&mut self) {
        let now = OsClock.now();
        if self.horizon.kill_at().is_some_and(|at| now.reached(at)) && self.program.is_some() {
            self.kill_program();
        }
        if self.horizon.fuse().is_some_and(|h| now.reached(h + KILL_AFTER_FUSE)) {
            self.killed = true;
            let _ = rustix::process::pidfd_send_signal(&self.ward, Signal::KILL);
        }
    }

    /// All messages that are there; `false` once the other end is closed.
    fn take_messages(&mut self) -> bool {
        loop {
            match self.channel.receive::<ToGuardian>() {
                Ok(Some((message, streams))) => self.take(message, streams),
                Ok(None) => return false,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }

    fn take(&mut self, message: ToGuardian, streams: Vec<OwnedFd>) {
        match message {
            ToGuardian::Setup(config) => {
                self.config = Some(*config);
                self.say(&FromGuardian::Ready);
            }
            ToGuardian::Lease(lease) => {
                if self.leases.len() == LEASES_MAX {
                    self.leases.remove(0);
                }
                self.leases.push(LeaseId(lease));
            }
            ToGuardian::Armed => {} // the timer is set anew after every message
            ToGuardian::Run(_) if self.is_orphan => {}
            ToGuardian::Run(program) => self.run(&program, streams),
            ToGuardian::Signal(number) => {
                // It has not been waited for yet, so the number is still its own.
                if let (Some(program), Some(signal)) = (self.program, Signal::from_named_raw(number)) {
                    let _ = rustix::process::kill_process(program, signal); // it has just ended: fine
                }
            }
            ToGuardian::Terminate => self.program.iter().for_each(|p| tree::signal_group(*p, Signal::TERM)),
            ToGuardian::Kill => self.kill_program(),
            ToGuardian::Dismissed => self.dismissed = true,
        }
    }

    /// Starts the program, unless its time is over already: the message may be older than a pause of the machine.
    fn run(&mut self, program: &Program, streams: Vec<OwnedFd>) {
        self.run = program.run;
        self.code = None;
        let now = OsClock.now();
        let started = match self.horizon.kill_at() {
            Some(at) if !now.reached(at) => program::start(program, streams),
            _ => Err(Refused { why: "leadership was over before it was started".into(), code: None }),
        };
        match started {
            Ok(pid) => {
                self.program = Some(pid);
                let pid = pid.as_raw_nonzero().get().cast_unsigned();
                self.say(&FromGuardian::Started { run: self.run, pid });
            }
            Err(refused) => self.say(&FromGuardian::Refused { run: self.run, refused }),
        }
    }

    fn say(&self, message: &FromGuardian) {
        let _ = self.channel.send(message, &[]); // the ward is dead or hangs: the loop sees to that
    }

    /// Buries the dead; when the program itself has ended, nothing that it started may go on.
    fn reap(&mut self) {
        while let Some((pid, status)) = tree::reap_one() {
            if Some(pid) == self.program {
                self.code = Some(program::code_of(status));
                self.kill_program();
                return;
            }
        }
    }

    fn kill_program(&mut self) {
        let Some(program) = self.program.take() else { return };
        tree::signal_group(program, Signal::KILL);
        if self.code.is_none() {
            let status = rustix::process::waitpid(Some(program), rustix::process::WaitOptions::empty());
            self.code = status.ok().flatten().map(|(_, status)| program::code_of(status));
        }
        tree::kill_children();
        let code = self.code.take();
        self.say(&FromGuardian::Ended { run: self.run, code });
    }

    /// Tells the ward's next start why a leader died. It waits for that a millisecond, or on a disk that hangs
    /// [`WRITE_PATIENCE`].
    fn write_obituary(&self) -> Option<Writing> {
        let deadline = self.horizon.fuse().filter(|_| !self.dismissed)?;
        let data_dir = self.config.as_ref()?.node.data_dir.clone();
        let obituary = Obituary::of(OsClock.now(), deadline, self.killed, wall_clock_ms());
        Some(obituary.write(data_dir))
    }

    /// Revokes every lease that the ward may have held, until the store says that it is gone.
    fn revoke(&self) {
        let Some(config) = &self.config else { return };
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let Ok(store) = open::open(config, Arc::new(OsClock)).await else { return };
            let all =
                futures_util::future::join_all(self.leases.iter().map(|l| revoke_one(store.as_ref(), *l)));
            let _ = tokio::time::timeout(REVOKE_PATIENCE, all).await; // then they end by themselves
        });
    }
}

async fn revoke_one(store: &dyn Store, lease: LeaseId) {
    let mut pause = REVOKE_PAUSE;
    while store.call(Request::Revoke(lease)).await.is_err() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(REVOKE_PAUSE_MAX);
    }
}
