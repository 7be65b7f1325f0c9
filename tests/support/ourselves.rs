//! This test program, run again for one of its functions: as the program that a node runs, or as another user.

use std::process::Command;

/// What the test harness calls this function.
pub fn name_of<T>(_function: T) -> &'static str {
    std::any::type_name::<T>().split_once("::").expect("a function of a crate").1
}

/// This program's path, as a word of a command line.
pub fn path() -> String {
    let path = std::env::current_exe().expect("this test's own program");
    path.into_os_string().into_string().expect("a path of text")
}

/// The command line that calls only this function, which is marked `#[ignore]` because it is no test.
pub fn calling<T>(function: T) -> [String; 5] {
    let option = str::to_owned;
    [path(), option("--exact"), option(name_of(function)), option("--ignored"), option("--nocapture")]
}

/// Like [`calling`], for a function whose standard output matters: with two threads the harness writes no name before
/// the first line of the test.
pub fn command<T>(function: T) -> Command {
    let [path, args @ ..] = calling(function);
    let mut command = Command::new(path);
    command.args(args).args(["--test-threads", "2"]);
    command
}
