//! The pipe by which a program that stands by learns that it leads: one line, and no end before we are dead.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::DupFlags;
use rustix::pipe::PipeFlags;

use super::channel::Refused;

/// Where the program finds the number of its end.
pub(super) const PROMOTE_FD: &str = "METAD_PROMOTE_FD";
/// What a program is that has to wait there, and for what it is said.
pub(super) const ROLE: &str = "METAD_ROLE";
pub(super) const STANDBY: &str = "standby";
/// The lowest number: the standard streams are below.
const NUMBER_MIN: i32 = 3;

/// A descriptor whose number is the one of the program's end: taken first of all, and so a small one. A shell reads from no
/// number above 9.
#[derive(Debug)]
pub(super) struct NumberKept(OwnedFd);

/// The program's end, for as long as it is being started. Afterwards nobody but the program may have it, or we would not
/// notice that it has closed it.
#[derive(Debug)]
pub(super) struct TheirEnd<'a>(&'a mut NumberKept);

/// Nothing was started, or promoted.
pub(super) fn refused(why: &str) -> Refused {
    Refused { why: why.into(), code: None, may_pass: false }
}

/// Writes the line, at once: it fits into an empty pipe, and comes as a whole.
pub(super) fn write(pipe: &OwnedFd, line: &str) -> Result<(), Refused> {
    let failed = |why: io::Error| refused(&format!("cannot write to {PROMOTE_FD} of the program: {why}"));
    let written = rustix::io::write(pipe, line.as_bytes()).map_err(|e| failed(e.into()))?;
    if written == line.len() { Ok(()) } else { Err(failed(io::ErrorKind::WriteZero.into())) }
}

// === impl NumberKept ===

impl NumberKept {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(rustix::io::fcntl_dupfd_cloexec(io::stdin(), NUMBER_MIN)?))
    }

    /// A new pipe: our end, and the program's, with the number that was kept for it.
    pub(super) fn pipe(&mut self) -> Result<(OwnedFd, TheirEnd<'_>), Refused> {
        let mut made = || -> rustix::io::Result<_> {
            let (theirs, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK)?; // nothing may hold us up
            rustix::io::dup3(&theirs, &mut self.0, DupFlags::CLOEXEC)?;
            Ok(ours)
        };
        let passing = |e: rustix::io::Errno| Refused {
            why: format!("cannot make a pipe: {}", io::Error::from(e)),
            code: None,
            may_pass: true,
        };
        let ours = made().map_err(passing)?;
        Ok((ours, TheirEnd(self)))
    }
}

// === impl TheirEnd ===

impl TheirEnd<'_> {
    pub(super) fn end(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

impl Drop for TheirEnd<'_> {
    fn drop(&mut self) {
        let _ = rustix::io::dup3(io::stdin(), &mut self.0.0, DupFlags::CLOEXEC); // the number stays ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_arrives_whole_and_an_end_that_is_closed_is_noticed() {
        let mut number = NumberKept::new().expect("a descriptor");
        let (ours, theirs) = number.pipe().expect("a pipe");
        let reader = theirs.end().try_clone_to_owned().expect("a descriptor");
        drop(theirs);
        write(&ours, "{\"token\":7}\n").expect("there is room");
        let mut read = [0; 64];
        let length = rustix::io::read(&reader, &mut read).expect("a line");
        assert_eq!(&read[..length], b"{\"token\":7}\n");
        drop(reader);
        let refused = write(&ours, "x\n").expect_err("nobody reads");
        assert!(refused.why.contains("METAD_PROMOTE_FD") && !refused.may_pass, "{refused}");
    }
}
