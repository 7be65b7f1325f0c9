//! A headless Chromium with the page open, steered through `browser.mjs`.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::install::on_path;
use crate::support::spawn;

/// For whatever the browser is asked, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An open page; its browser ends with it.
pub struct Browser {
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<String>,
}

// === impl Browser ===

impl Browser {
    /// Opens the page of the node that listens there. Panics when something that it needs is not installed.
    #[track_caller]
    pub fn open(node: SocketAddr) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/page");
        for (there, needed) in [
            (on_path("node").is_some(), "Node.js"),
            (Path::new("/usr/bin/chromium").is_file(), "Chromium"),
            (folder.join("node_modules/playwright-core").is_dir(), "what tests/real/page/package.json names"),
        ] {
            assert!(there, "this test needs {needed}: run `sh config/setup.sh test`");
        }
        let mut command = Command::new("node");
        command.arg(folder.join("browser.mjs")).arg(format!("http://{node}/"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn::spawn(command).expect("node starts");
        let answers = follow(child.stdout.take().expect("piped"));
        let browser = Self { stdin: child.stdin.take(), child, answers };
        browser.answer("open");
        browser
    }

    /// Asks for a step of `steps.mjs`.
    #[track_caller]
    pub fn ask(&mut self, step: &str, args: Value) -> Value {
        let stdin = self.stdin.as_mut().expect("open until it is dropped");
        let sent = writeln!(stdin, "{}", json!({ "step": step, "args": args })).and_then(|()| stdin.flush());
        sent.unwrap_or_else(|e| panic!("{step}: the browser is gone: {e}"));
        self.answer(step)
    }

    /// Everything that a person would read.
    #[track_caller]
    pub fn texts(&mut self) -> Value {
        self.ask("texts", Value::Null)
    }

    /// Waits until the element holds this text.
    #[track_caller]
    pub fn wait(&mut self, selector: &str, text: &str) -> String {
        let timeout_ms = u64::try_from(PATIENCE.as_millis()).expect("a minute");
        let found = self.ask("wait", json!({ "selector": selector, "text": text, "timeout_ms": timeout_ms }));
        found.as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn answer(&self, step: &str) -> Value {
        let line = self.answers.recv_timeout(PATIENCE * 2);
        let line = line.unwrap_or_else(|e| panic!("{step}: the browser has not answered: {e}"));
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{step}: {line}: {e}"));
        assert!(answer["error"].is_null(), "{}", answer["error"].as_str().unwrap_or_default());
        answer["ok"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.stdin.take()); // then it closes its browser
        let pid = self.child.id();
        let (done, ended) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| done.send(self.child.wait()));
            if ended.recv_timeout(Duration::from_secs(10)).is_err() {
                spawn::signal(pid, crate::support::node::Signal::KILL);
            }
        });
    }
}

fn follow(stdout: ChildStdout) -> Receiver<String> {
    let (say, answers) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if say.send(line).is_err() {
                return;
            }
        }
    });
    answers
}
