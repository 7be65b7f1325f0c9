//! What ends a node and its guardian in the same instant, so that the guardian cannot help: found out at the start, and
//! said.

use std::fs;
use std::path::Path;

const CGROUPS: &str = "/sys/fs/cgroup";

/// A warning, if an out-of-memory kill would take our whole control group at once (`memory.oom.group`, as Kubernetes
/// sets it with cgroup v2).
pub(super) fn shared() -> Option<String> {
    let ours = fs::read_to_string("/proc/self/cgroup").ok()?;
    killed_whole(&ours, Path::new(CGROUPS)).then(|| {
        "the control group of this process is killed as a whole when it runs out of memory (memory.oom.group \
         is 1), and the guardian with it; such a crash is noticed only when the lease ends"
            .to_owned()
    })
}

/// Our group or one above it: the kernel ends all of the uppermost that asks for it.
fn killed_whole(cgroup: &str, root: &Path) -> bool {
    let Some(group) = cgroup.lines().find_map(|line| line.strip_prefix("0::/")) else { return false };
    let asks = |dir: &Path| fs::read_to_string(dir.join("memory.oom.group")).is_ok_and(|v| v.trim() == "1");
    Path::new(group).ancestors().any(|above| asks(&root.join(above)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_killed_as_a_whole_is_noticed() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let group = root.path().join("pods/one/metad");
        fs::create_dir_all(&group).expect("a directory");
        let ours = "12:cpu:/\n0::/pods/one/metad\n";
        assert!(!killed_whole(ours, root.path()), "no such file");
        fs::write(group.join("memory.oom.group"), "0\n").expect("a file");
        assert!(!killed_whole(ours, root.path()));
        fs::write(root.path().join("pods/one/memory.oom.group"), "1\n").expect("a file");
        assert!(killed_whole(ours, root.path()), "the group above");
        assert!(!killed_whole("0::/\n", root.path()), "the root has no such file");
        assert!(!killed_whole("4:memory:/pods/one\n", root.path()), "version 1 has no such thing");
    }
}
