//! The kinds of store, and all that is asked of a kind before one is opened (`store::open` does that).

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StoreConfig;

/// The kinds of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// An embedded file: elects among the processes of one machine.
    Sqlite,
    /// An etcd cluster: elects among machines.
    Etcd,
}

// === impl StoreKind ===

impl StoreKind {
    /// All of them.
    pub const ALL: [StoreKind; 2] = [StoreKind::Sqlite, StoreKind::Etcd];
    /// What `store.kind` may be.
    pub(super) const NAMES: &[&str] = &[StoreKind::Sqlite.as_str(), StoreKind::Etcd.as_str()];

    /// Its name, as `store.kind` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            StoreKind::Sqlite => "sqlite",
            StoreKind::Etcd => "etcd",
        }
    }

    /// The key that says where such a store is, if there is one and it says something.
    pub(super) fn place(self, config: &StoreConfig) -> Option<&'static str> {
        match self {
            StoreKind::Sqlite => Some("store.sqlite.path"),
            StoreKind::Etcd => (!config.etcd.endpoints.is_empty()).then_some("store.etcd.endpoints"),
        }
    }
}

/// As people write it.
impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreKind::Sqlite => "SQLite",
            StoreKind::Etcd => "etcd",
        })
    }
}

// === impl StoreConfig ===

impl StoreConfig {
    /// Is it etcd, which has members, a login, and much that can be looked at?
    pub fn is_etcd(&self) -> bool {
        self.kind == StoreKind::Etcd
    }

    /// The file that it is, if it is one: a look at it must not make it.
    pub fn file(&self) -> Option<&Path> {
        match self.kind {
            StoreKind::Sqlite => Some(&self.sqlite.path),
            StoreKind::Etcd => None,
        }
    }

    /// The key that says how long an answer is waited for, and its value in milliseconds.
    pub(super) fn timeout(&self) -> (&'static str, u64) {
        match self.kind {
            StoreKind::Sqlite => ("store.sqlite.busy_timeout_ms", self.sqlite.busy_timeout_ms),
            StoreKind::Etcd => ("store.etcd.request_timeout_ms", self.etcd.request_timeout_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_written_as_it_is_read() {
        for kind in StoreKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert!(StoreKind::NAMES.contains(&kind.as_str()), "store.kind cannot be {kind}");
        }
    }
}
