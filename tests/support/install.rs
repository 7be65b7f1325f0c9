//! Finds the etcd to test against.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::spawn;

const ETCD_MISSING: &str = "no etcd found: run `apt-get install etcd-server etcd-client`, \
     or name an etcd in the environment variable METAD_TEST_ETCD";

/// An etcd installation.
#[derive(Clone, Debug)]
pub struct EtcdInstall {
    /// The server.
    pub etcd: PathBuf,
    /// The command line client: the one next to the server, else the one on the path.
    pub etcdctl: PathBuf,
    /// The server's version, such as `3.4.23`.
    pub version: String,
}

impl EtcdInstall {
    /// `METAD_TEST_ETCD`, else the newest in `tests/etcd/bin`, else `etcd` on the path. Panics without any.
    pub fn find() -> Self {
        Self::at(find_etcd())
    }

    /// The newest whose etcdctl can restore snapshots for it: from 3.6 on that is another program's business.
    pub fn that_restores() -> Self {
        let found = Self::find();
        if !found.is_at_least(3, 5) { found } else { Self::at(on_path("etcd").unwrap_or(found.etcd)) }
    }

    fn at(etcd: PathBuf) -> Self {
        let etcdctl = etcd
            .file_name()
            .map(|name| etcd.with_file_name(name.to_string_lossy().replacen("etcd", "etcdctl", 1)))
            .filter(|path| path != &etcd && path.is_file())
            .or_else(|| on_path("etcdctl"))
            .unwrap_or_else(|| panic!("no etcdctl found: run `apt-get install etcd-client`"));
        let version = version_of(&etcd);
        Self { etcd, etcdctl, version }
    }

    /// Is this etcd `major.minor` or newer?
    pub fn is_at_least(&self, major: u32, minor: u32) -> bool {
        let mut numbers = self.version.split('.').map_while(|number| number.parse::<u32>().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
    }
}

/// The program of this name in a directory of `PATH`.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn find_etcd() -> PathBuf {
    if let Some(named) = std::env::var_os("METAD_TEST_ETCD").map(PathBuf::from) {
        assert!(named.is_file(), "METAD_TEST_ETCD names {}, which is no file", named.display());
        return named;
    }
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/etcd/bin");
    ["etcd-3.6", "etcd-3.5"]
        .iter()
        .map(|name| bundled.join(name))
        .find(|file| file.is_file())
        .or_else(|| on_path("etcd"))
        .unwrap_or_else(|| panic!("{ETCD_MISSING}"))
}

fn version_of(etcd: &Path) -> String {
    let mut command = Command::new(etcd);
    command.arg("--version");
    let output = spawn::output(command, Duration::from_secs(60));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.strip_prefix("etcd Version: "))
        .unwrap_or_else(|| panic!("{} --version printed {text:?}", etcd.display()))
        .trim()
        .to_owned()
}

/// Debian's libfaketime, made for programs with threads.
pub fn libfaketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten().map(|entry| entry.path());
    let mut found =
        folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).filter(|file| file.is_file());
    let file = found.next().expect("no libfaketime found: run `apt-get install faketime`");
    file.display().to_string()
}
