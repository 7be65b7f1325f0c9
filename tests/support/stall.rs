//! A disk that hangs, for one process: its fsync(2) does not return while a file is there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::node::NodeBuilder;

/// Loaded before the C library. It stands still, as a call into a dead disk does, and looks now and then.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static void stall(void) {
    const char *file = getenv("TEST_STALL_FILE");
    while (file && access(file, F_OK) == 0) usleep(10000);
}

int fsync(int fd) {
    stall();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd) {
    stall();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"#;

/// The library, made once.
fn library() -> &'static Path {
    static MADE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = MADE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a folder");
        let (source, library) = (dir.path().join("stall.c"), dir.path().join("stall.so"));
        std::fs::write(&source, SOURCE).expect("a file");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let status = cc.status().expect("no C compiler found: run `apt-get install gcc`");
        assert!(status.success(), "cc: {status}");
        (dir, library)
    });
    library
}

/// Its disk hangs while this file is there.
pub fn while_there(node: NodeBuilder, file: &Path) -> NodeBuilder {
    node.env("LD_PRELOAD", library()).env("TEST_STALL_FILE", file)
}
