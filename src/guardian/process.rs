//! The guardian's own process: one loop over four descriptors, and at the end the revoke. Nothing in the loop waits
//! for anything but them.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::channel::{Channel, FromGuardian, Program, ToGuardian};
use super::child::FDS_VARIABLE;
use super::exit_report::{ExitReport, LAST_TIMEOUT, WRITE_TIMEOUT, Writing};
use super::horizon::Horizon;
use super::kernel_timer::KernelTimer;
use super::promotion::{self, NumberKept};
use super::revoke::Revoker;
use super::rules::{self, GuardianRules, KILLING_MAY_TAKE, Last, Timer};
use super::run::Run;
use super::{program, signals, tree};
use crate::clock::{Clock, Instant, OsClock, wall_clock_ms};
use crate::config::Config;
use crate::election::exit::Exit;
use crate::election::lease::LeaseId;

/// The name in `top`: the longest that the kernel keeps.
const NAME: &std::ffi::CStr = c"metad: guardian";
/// The same once all that it still does is to revoke a lease.
const NAME_REVOKING: &std::ffi::CStr = c"metad: revoking";
/// For how long it then ignores signals all the same.
const UNDISTURBED: Duration = Duration::from_secs(5);

struct Process {
    channel: Channel,
    /// The process that we watch.
    main_process: OwnedFd,
    horizon: Horizon,
    timer: OwnedFd,
    /// Tells of children that have ended.
    children: OwnedFd,
    /// Armed while the program runs: it ends us, and the program with us, if we stand still.
    kernel_timer: KernelTimer,
    config: Option<Config>,
    revoker: Option<Revoker>,
    rules: GuardianRules,
    run: Option<Run>,
    number_kept: NumberKept,
    /// We have killed the main process.
    killed: bool,
}

/// If this process was started to be a guardian, becomes one and never returns. To be called first of all.
pub fn run_if_asked() {
    let Ok(numbers) = std::env::var(FDS_VARIABLE) else { return };
    let fds: Vec<i32> = numbers.split(',').filter_map(|n| n.parse().ok()).collect();
    let code = match <[i32; 4]>::try_from(fds) {
        Ok(fds) => run(fds).map_or(Exit::Io.code(), |()| 0),
        Err(_) => Exit::Usage.code(),
    };
    std::process::exit(code);
}

fn run([socket, main_process, page, lock]: [i32; 4]) -> io::Result<()> {
    rustix::thread::set_name(NAME)?;
    let number_kept = NumberKept::new()?; // before anything else is opened
    ignore_signals();
    tree::become_subreaper()?;
    // SAFETY: whoever started us left these descriptors open for us, and told nobody else.
    let [socket, main_process, page, lock] =
        unsafe { [socket, main_process, page, lock].map(|fd| OwnedFd::from_raw_fd(fd)) };
    for fd in [&socket, &main_process, &page, &lock] {
        // The program must not inherit them.
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    }
    let timer = rustix::time::timerfd_create(
        TimerfdClockId::Boottime,
        TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
    )?;
    let mut process = Process {
        channel: Channel::from_fd(socket),
        main_process,
        horizon: Horizon::open(page)?,
        timer,
        children: signals::by_descriptor([libc::SIGCHLD])?,
        kernel_timer: KernelTimer::create()?,
        config: None,
        revoker: None,
        rules: GuardianRules::default(),
        run: None,
        number_kept,
        killed: false,
    };
    process.watch()?;
    let exit_report = process.exit_report();
    let revoking = process.last_work();
    let freeing = free_data_dir(lock, exit_report.map(|(exit_report, data_dir)| exit_report.write(data_dir)));
    if let Some(revoking) = revoking {
        let _ = rustix::thread::set_name(NAME_REVOKING); // it is only a name
        let _ = std::thread::Builder::new().name("undisturbed".into()).spawn(may_be_ended_later);
        let _ = revoking.join(); // it has nothing to say
    }
    if let Ok(freeing) = freeing {
        let _ = freeing.join(); // it has nothing to say
    }
    Ok(())
}

/// Now the next start may take the record over. It need not wait for the store as well, nor the revoke for a disk that
/// hangs with the exit report.
fn free_data_dir(lock: OwnedFd, exit_report: Option<Writing>) -> io::Result<JoinHandle<()>> {
    let free = move || {
        exit_report.iter().for_each(|o| o.wait(WRITE_TIMEOUT));
        drop(lock);
        // A thread that had to wait for a CPU must not be ended before it has written.
        exit_report.iter().for_each(|o| o.wait(LAST_TIMEOUT));
    };
    std::thread::Builder::new().name("free-data-dir".into()).spawn(free)
}

/// A supervisor that signals our whole group means the main process; we end when our task is done.
fn ignore_signals() {
    for signal in program::IGNORED_BY_GUARDIAN {
        // SAFETY: sets a disposition; there is no other thread yet.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Nothing is left to kill, and a store that is away may keep us for as long as the lease lives: after a while a signal ends
/// us, and the lease ends by itself. Not at once: a service manager whose main process has crashed sends SIGTERM to all the
/// others in the same moment. We have no stderr to say so, because who reads the node's log would wait for ours to close too.
fn may_be_ended_later() {
    std::thread::sleep(UNDISTURBED);
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: sets a disposition, of signals whose default it is to end the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

// === impl Process ===

impl Process {
    /// Until the main process is dead or has dismissed us.
    fn watch(&mut self) -> io::Result<()> {
        let mut channel_open = true;
        loop {
            self.set_timer()?;
            let socket_flags = if channel_open { PollFlags::IN } else { PollFlags::empty() };
            let mut fds = [
                PollFd::new(&self.main_process, PollFlags::IN),
                PollFd::from_borrowed_fd(self.channel.as_fd(), socket_flags),
                PollFd::new(&self.timer, PollFlags::IN),
                PollFd::new(&self.children, PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            if !fds[0].revents().is_empty() {
                // What it said last counts: that everything is given back, or the name of a lease.
                self.rules.main_died();
                self.take_messages();
                return Ok(());
            }
            if channel_open {
                channel_open = self.take_messages();
            }
            if self.rules.is_dismissed() {
                return Ok(());
            }
            self.act_on_deadlines();
            self.look_at_program();
        }
    }

    /// Wakes us at the next deadline of the page, which may have moved on by then, and moves the kernel timer.
    fn set_timer(&self) -> io::Result<()> {
        let now = OsClock.now();
        self.set_kernel_timer(now);
        let deadline = self.rules.next_due(&self.horizon, self.program()).map(|at| now.until(at));
        let again = self.run.as_ref().and_then(Run::look_again);
        let sleep = [deadline, again].into_iter().flatten().min();
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

    fn program(&self) -> rules::ProgramState {
        match &self.run {
            None => rules::ProgramState::None,
            Some(run) if run.is_dying() => rules::ProgramState::Dies,
            Some(run) if run.stands_by() => rules::ProgramState::Waits,
            Some(_) => rules::ProgramState::Runs,
        }
    }

    fn set_kernel_timer(&self, now: Instant) {
        match self.rules.timer(now, &self.horizon, self.program()) {
            Timer::Off => self.kernel_timer.disarm(),
            Timer::At(at) => self.kernel_timer.arm(now, at),
            Timer::AsItIs => {}
        }
    }

    fn act_on_deadlines(&mut self) {
        let due = self.rules.due(OsClock.now(), &self.horizon);
        if due.kill_program {
            self.kill_program();
        }
        if due.kill_main {
            self.killed = true;
            let _ = rustix::process::pidfd_send_signal(&self.main_process, Signal::KILL);
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
                // Without the thread the leases end by themselves.
                self.revoker = Revoker::start((*config).clone()).ok();
                self.config = Some(*config);
                self.say(&FromGuardian::Ready);
            }
            ToGuardian::Lease(lease) => self.rules.add_lease(LeaseId(lease)),
            ToGuardian::Pinned(cluster) => self.rules.pin(cluster),
            ToGuardian::Moved => {} // the timers are set anew after every message
            ToGuardian::Ping(number) => self.say(&FromGuardian::Pong(number)),
            ToGuardian::Run(program) => self.start(&program, streams),
            ToGuardian::Promote { run, line } => self.promote(run, &line),
            ToGuardian::Signal(number) => {
                if let (Some(run), Some(signal)) = (&self.run, Signal::from_named_raw(number)) {
                    run.signal(signal);
                }
            }
            ToGuardian::Terminate => self.run.iter().for_each(Run::terminate),
            ToGuardian::Kill => self.kill_program(),
            ToGuardian::Dismissed => self.rules.dismiss(),
        }
    }

    /// Starts the program, unless its time is over already: the message may be older than a pause of the machine. The
    /// kernel timer first: nothing runs that it does not end.
    fn start(&mut self, program: &Program, streams: Vec<OwnedFd>) {
        let (now, state) = (OsClock.now(), self.program());
        let may_start = match program.stands_by {
            true => self.rules.may_stand_by(state).map(|()| None),
            false => self.rules.may_start(now, &self.horizon, state).map(Some),
        };
        let started = may_start.map_err(promotion::refused).and_then(|until| {
            until.iter().for_each(|until| self.kernel_timer.arm(now, *until));
            Run::start(program, streams, &mut self.number_kept)
        });
        match started {
            Ok(run) => {
                self.say(&FromGuardian::Started { run: run.number, pid: run.pid() });
                self.run = Some(run);
            }
            Err(refused) => self.say(&FromGuardian::Refused { run: program.run, refused }),
        }
    }

    /// Tells a program that stands by that it leads, unless its time is over already. As at a start, the kernel timer comes
    /// first: the program may act as soon as it reads the line.
    fn promote(&mut self, number: u64, line: &str) {
        let now = OsClock.now();
        let may_promote = self.rules.may_promote(now, &self.horizon, self.program());
        let run = self.run.as_mut().filter(|run| run.number == number);
        let promoted = match (may_promote, run) {
            (Ok(until), Some(run)) => {
                self.kernel_timer.arm(now, until);
                run.promote(line)
            }
            (Err(why), _) => Err(promotion::refused(why)),
            (Ok(_), None) => Err(promotion::refused("this run has ended")),
        };
        self.say(&FromGuardian::Promoted { run: number, refused: promoted.err() });
    }

    fn say(&self, message: &FromGuardian) {
        let _ = self.channel.send(message, &[]); // the main process is dead or hangs: the loop sees to that
    }

    fn kill_program(&mut self) {
        if let Some(run) = &mut self.run {
            run.kill();
        }
    }

    /// Says what has become of the program. Without one, buries whatever has become our child.
    fn look_at_program(&mut self) {
        // One signal stands for any number of children, so all of them are looked for each time.
        while signals::next(&self.children).is_some() {}
        let Some(run) = &mut self.run else {
            tree::bury_all(|_, _| {});
            return;
        };
        let (number, is_left) = (run.number, run.look());
        let refusal = run.take_refusal().filter(|_| is_left);
        let code = run.code();
        if let Some(refusal) = refusal {
            self.say(&FromGuardian::Unkillable { run: number, why: refusal.to_string() });
        }
        if !is_left {
            self.run = None;
            self.say(&FromGuardian::Ended { run: number, code });
        }
    }

    /// The main process is dead, or has dismissed us.
    fn last_work(&mut self) -> Option<JoinHandle<()>> {
        loop {
            match self.rules.last(self.remains()) {
                Last::Kill => self.end_tree(),
                Last::Revoke(leases, cluster) => {
                    return self.revoker.take().map(|r| r.revoke(leases, cluster));
                }
                Last::Nothing => return None,
            }
        }
    }

    /// What is left of the program, or has escaped from one that was here earlier.
    fn remains(&self) -> rules::ProgramState {
        match self.program() {
            rules::ProgramState::None if tree::bury_all(|_, _| {}) => rules::ProgramState::Dies,
            program => program,
        }
    }

    /// Kills all that is left, for as long as something is.
    fn end_tree(&mut self) {
        self.kill_program();
        let (moving, had_program) = (&self.kernel_timer, self.run.is_some());
        tree::kill_children(
            || {
                if had_program {
                    let now = OsClock.now();
                    moving.arm(now, now + KILLING_MAY_TAKE);
                }
            },
            |_| {}, // there is nobody to tell
        );
        self.run = None;
        self.kernel_timer.disarm();
    }

    /// What the main process's next start is told about the death of a leader, and where.
    fn exit_report(&self) -> Option<(ExitReport, PathBuf)> {
        let h = self.horizon.fuse().filter(|_| !self.rules.is_dismissed())?;
        let data_dir = self.config.as_ref()?.node.data_dir.clone();
        let (now, burnt) = (OsClock.now(), self.horizon.is_burnt());
        Some((ExitReport::of(now, h, burnt, self.killed, wall_clock_ms()), data_dir))
    }
}
