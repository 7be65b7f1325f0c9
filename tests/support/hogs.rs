//! Processes that want the CPU, ended on drop.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::spawn;

/// A shell's way to use a CPU.
const LOOP: &str = "while :; do :; done";

/// So many of them.
pub struct Hogs(Vec<Child>);

impl Hogs {
    /// Several for each CPU; they are as nice as the tests.
    pub fn on_all_cpus(per_cpu: usize) -> Self {
        let cpus = std::thread::available_parallelism().expect("a number of cores").get();
        Self::start(per_cpu * cpus, &["sh", "-c", LOOP])
    }

    /// On the first CPU, before everybody else's turn: nice -20 or near it, however nice the tests are.
    pub fn on_cpu_0(count: usize) -> Self {
        Self::start(count, &["nice", "-n", "-20", "taskset", "-c", "0", "sh", "-c", LOOP])
    }

    fn start(count: usize, program: &[&str]) -> Self {
        let hog = |_| {
            let mut command = Command::new(program[0]);
            command.args(&program[1..]).stdin(Stdio::null());
            spawn::spawn(command).unwrap_or_else(|e| panic!("{program:?}: {e}"))
        };
        Self((0..count).map(hog).collect())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How much they have used together.
    pub fn cpu_time(&self) -> Duration {
        self.0.iter().map(|hog| spawn::cpu_time(hog.id())).sum()
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = hog.kill();
            let _ = hog.wait();
        }
    }
}
