//! A panic, on whatever thread, ends the process with its own exit code, and its text reaches the log.
//!
//! So does an abort, such as for want of memory: without this it would be SIGABRT, after a core dump that may take
//! minutes. SIGABRT from outside still dumps core.

use std::panic::PanicHookInfo;

use super::output;
use crate::election::exit::Exit;
use crate::node::exit_timer;
use crate::telemetry::log;

/// What the system says when it has no thread or no memory left; then no bug is to blame.
const OWN_LIMITS: [&str; 2] = ["Resource temporarily unavailable", "Cannot allocate memory"];

/// From now on.
pub(super) fn end_the_process() {
    std::panic::set_hook(Box::new(|panic| {
        exit_timer::arm(Exit::Internal.code());
        tell(panic);
        exit_timer::end_now(Exit::Internal.code());
    }));
    // SAFETY: all zeroes is a valid value of this plain structure; the handler does what a handler may do (`write`,
    // `raise` and `_exit`); the pointers are valid for the call.
    unsafe {
        let mut action: libc::sigaction = std::mem::MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = aborted as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_NODEFER;
        libc::sigaction(libc::SIGABRT, &raw const action, std::ptr::null_mut());
    }
}

fn tell(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let formatted = payload.downcast_ref::<String>().map(String::as_str);
    let why = payload.downcast_ref::<&str>().copied().or(formatted).unwrap_or("panic without a message");
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("?").to_owned();
    let fix = match OWN_LIMITS.iter().any(|limit| why.contains(limit)) {
        true => {
            "raise the limit of processes or of memory (ulimit -u, -v, -d; TasksMax= and MemoryMax= of systemd)"
        }
        false => "this is a bug in metad: please report it with this line",
    };
    tracing::error!(panic = why, at, thread, fix, "internal error: exiting");
    if !log::flush() {
        output::say(&format!("internal error: {why}, at {at}, thread {thread}\nfix: {fix}"));
    }
}

extern "C" fn aborted(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    const TEXT: &[u8] =
        b"metad: internal error: aborted; if memory ran out, raise its limit (ulimit -v, -d; MemoryMax=)\n";
    // SAFETY: the kernel passes a valid structure, in which a signal has a sender; all calls may be made in a handler.
    unsafe {
        if (*info).si_pid() != libc::getpid() {
            libc::raise(libc::SIGABRT); // its handler is the default again
            return;
        }
        libc::alarm(1); // in case nobody reads stderr
        libc::write(libc::STDERR_FILENO, TEXT.as_ptr().cast(), TEXT.len());
        libc::_exit(Exit::Internal.code())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::telemetry::log::Format;

    /// Set in the process that is to die.
    const CAUSE: &str = "CAUSE_OF_DEATH";

    /// Runs this very test again, as a process that dies of `cause`.
    fn dies_of(cause: &str) -> (Option<i32>, String) {
        let name = "cli::panics::tests::whatever_goes_wrong_exits_70_with_its_text";
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", name, "--nocapture"]).env(CAUSE, cause);
        let output = test.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn die_of(cause: &str) {
        end_the_process();
        if cause != "panic without a log" {
            log::start("info", Some(Format::Json)).unwrap();
        }
        match cause {
            "no memory" => drop(std::hint::black_box(Vec::<u8>::with_capacity(1 << 60))),
            "abort" => std::process::abort(),
            "signal" => {
                let _ = Command::new("sh").args(["-c", "kill -ABRT $PPID"]).status();
                // Another thread may be the one that gets it, a moment later.
                std::thread::sleep(std::time::Duration::from_secs(60));
            }
            _ => drop(
                std::thread::Builder::new().name("some".into()).spawn(|| panic!("of this")).unwrap().join(),
            ),
        }
        std::process::exit(0)
    }

    #[test]
    fn whatever_goes_wrong_exits_70_with_its_text() {
        if let Ok(cause) = std::env::var(CAUSE) {
            return die_of(&cause);
        }
        let (code, said) = dies_of("panic");
        let log: serde_json::Value = serde_json::from_str(said.trim()).expect("one line, of the log");
        assert_eq!((code, &log["panic"], &log["thread"]), (Some(70), &"of this".into(), &"some".into()));
        let (code, said) = dies_of("panic without a log");
        assert!(code == Some(70) && said.contains("internal error: of this, at src/cli/panics.rs"), "{said}");
        let (code, said) = dies_of("no memory");
        assert!(
            code == Some(70) && said.contains("memory allocation") && said.contains("raise its limit"),
            "{said}"
        );
        assert_eq!(dies_of("abort").0, Some(70));
        assert_eq!(dies_of("signal").0, None, "who wants a core dump gets one");
    }
}
