//! Where a start runs, and what that proves about the starts before it.
//!
//! A start may take back the record of an earlier one only if that one is dead for certain. The lock on the data dir
//! proves it for the same boot of the same machine. After a reboot everything that ran before is dead. A folder that
//! turns up on another machine proves nothing: the process that used it there may live on.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where this start runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `/etc/machine-id`; empty where there is none.
    pub machine: String,
    /// The folder's inode: a copy has another.
    pub inode: u64,
    /// The kernel's name for this boot; empty if it does not say.
    pub boot: String,
}

/// What is known of the process that used the data dir before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// It is dead.
    Dead,
    /// This folder is a copy of the one that it used, and may use still.
    Copied,
    /// It ran on another machine, or this machine has got another name since.
    Elsewhere,
}

impl Place {
    /// Looks.
    pub(super) fn of(folder: &Path) -> std::io::Result<Self> {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let inode = std::fs::metadata(folder)?.ino();
        Ok(Self { machine: read("/etc/machine-id"), inode, boot: read("/proc/sys/kernel/random/boot_id") })
    }

    /// What the data dir keeps of it, besides the boot: machine and inode.
    pub(super) fn binding(&self) -> String {
        format!("{}:{}", self.machine, self.inode)
    }

    /// What is proven about the last start, which left this binding and ran in this boot (empty: not known). `exclusive`:
    /// the operator says that the platform gives the data dir to one process at most.
    pub(super) fn judge(&self, binding: &str, boot: &str, exclusive: bool) -> Past {
        let (machine, inode) = binding.rsplit_once(':').unwrap_or((binding, ""));
        let same_machine = !machine.is_empty() && machine == self.machine;
        let same_boot = !boot.is_empty() && boot == self.boot;
        match () {
            () if inode != self.inode.to_string() => Past::Copied,
            () if exclusive || same_boot || same_machine => Past::Dead,
            () => Past::Elsewhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(machine: &str, boot: &str) -> Place {
        Place { machine: machine.into(), inode: 2, boot: boot.into() }
    }

    #[test]
    fn only_what_is_proven_dead_is_dead() {
        let here = place("m1", "b1");
        for (binding, boot, past) in [
            ("m1:2", "b1", Past::Dead),      // the same boot: the lock proves it
            ("m1:2", "b0", Past::Dead),      // the machine was rebooted
            ("m1:2", "", Past::Dead),        // left by a version that did not note the boot
            ("m0:2", "b1", Past::Dead),      // another name for the machine, in the same boot
            ("m0:2", "b0", Past::Elsewhere), // a volume that was attached elsewhere, or a new machine-id
            (":2", "b0", Past::Elsewhere),
            ("m1:3", "b1", Past::Copied),
        ] {
            assert_eq!(here.judge(binding, boot, false), past, "{binding} {boot}");
        }
        assert_eq!(here.judge("m0:2", "b0", true), Past::Dead, "the operator's word");
        assert_eq!(here.judge("m0:3", "b0", true), Past::Copied, "says nothing about a copy");
        assert_eq!(place("", "b1").judge(":2", "b0", false), Past::Elsewhere, "no name is no proof");
        assert_eq!(place("", "b1").judge(":2", "b1", false), Past::Dead);
    }
}
