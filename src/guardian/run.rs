//! One run of the program in its guardian: from its start, or from standing by, until nothing of its tree is left.
//! Nothing here waits.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::channel::{Program, Refused};
use super::program;
use super::promotion::{self, NumberKept};
use super::tree::{self, Pauses, Refusal};

/// A program that runs, or dies.
#[derive(Debug)]
pub(super) struct Run {
    /// Which start of it this is.
    pub(super) number: u64,
    pid: Pid,
    /// The pipe by which it is promoted, if it stands by; open for as long as the program lives, so that its end says that
    /// we are dead.
    promotion: Option<OwnedFd>,
    leads: bool,
    /// Its own exit code, once it has ended.
    code: Option<i32>,
    killing: Option<Killing>,
}

#[derive(Debug)]
struct Killing {
    pauses: Pauses,
    look_again: Duration,
    refusal: Option<Refusal>,
}

// === impl Run ===

impl Run {
    pub(super) fn start(
        program: &Program,
        streams: Vec<OwnedFd>,
        number_kept: &mut NumberKept,
    ) -> Result<Self, Refused> {
        let (pid, promotion) = match program.stands_by {
            false => (program::start(program, streams, None)?, None),
            true => {
                let (ours, theirs) = number_kept.pipe()?;
                (program::start(program, streams, Some(theirs.end()))?, Some(ours))
            }
        };
        let leads = !program.stands_by;
        Ok(Self { number: program.run, pid, promotion, leads, code: None, killing: None })
    }

    /// Does it do nothing yet?
    pub(super) fn stands_by(&self) -> bool {
        !self.leads
    }

    /// Tells it that it leads. What ends it in time must be armed.
    pub(super) fn promote(&mut self, line: &str) -> Result<(), Refused> {
        let pipe = self.promotion.as_ref().ok_or_else(|| promotion::refused("it does not stand by"))?;
        promotion::write(pipe, line)?;
        self.leads = true;
        Ok(())
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// The program's own exit code; `None`: it has not ended, or nobody knows.
    pub(super) fn code(&self) -> Option<i32> {
        self.code
    }

    /// Signals the program alone. Until it is buried its number is its own.
    pub(super) fn signal(&self, signal: Signal) {
        if self.code.is_none() {
            let _ = rustix::process::kill_process(self.pid, signal); // it has just ended: fine
        }
    }

    /// Asks the program and its group to end. One that cannot be asked is killed when its time is over.
    pub(super) fn terminate(&self) {
        if self.code.is_none() {
            let _ = tree::signal_group(self.pid, Signal::TERM);
        }
    }

    /// Begins to kill the tree. [`Run::look`] goes on with it.
    pub(super) fn kill(&mut self) {
        if self.killing.is_some() {
            return;
        }
        let mut pauses = Pauses::new();
        let look_again = pauses.next();
        let group = if self.code.is_none() { tree::signal_group(self.pid, Signal::KILL) } else { None };
        let refusal = tree::kill_all().or(group);
        self.killing = Some(Killing { pauses, look_again, refusal });
    }

    pub(super) fn is_dying(&self) -> bool {
        self.killing.is_some()
    }

    /// When to look again, if nothing is heard of a child before.
    pub(super) fn look_again(&self) -> Option<Duration> {
        self.killing.as_ref().map(|k| k.look_again)
    }

    /// What could not be killed, if that is new.
    pub(super) fn take_refusal(&mut self) -> Option<Refusal> {
        self.killing.as_mut().and_then(|k| k.refusal.take())
    }

    /// Buries the dead. When the program itself has ended, nothing that it started may go on. `false`: nothing is
    /// left of it.
    pub(super) fn look(&mut self) -> bool {
        let (pid, code) = (self.pid, &mut self.code);
        let mut any = false;
        let is_left = tree::bury_all(|buried, status| {
            any = true;
            if buried == pid {
                *code = Some(program::code_of(status));
            }
        });
        if self.code.is_some() {
            self.kill();
        }
        if let Some(killing) = self.killing.as_mut().filter(|_| is_left) {
            tree::kill_all(); // what has become ours since then
            if any {
                killing.pauses = Pauses::new();
            }
            killing.look_again = killing.pauses.next();
        }
        is_left
    }
}
