//! The pages for operators and readers of the design, as they stand in `src/docs/`.

#[doc = include_str!("docs/checks.md")]
pub mod checks {}

#[doc = include_str!("docs/cluster.md")]
pub mod cluster {}

#[doc = include_str!("docs/deploy.md")]
pub mod deploy {}

#[doc = include_str!("docs/failures.md")]
pub mod failures {}

#[doc = include_str!("docs/guardian.md")]
pub mod guardian {}

#[doc = include_str!("docs/history.md")]
pub mod history {}

#[doc = include_str!("docs/http.md")]
pub mod http {}

#[doc = include_str!("docs/install.md")]
pub mod install {}

#[doc = include_str!("docs/lease.md")]
pub mod lease {}

#[doc = include_str!("docs/limits.md")]
pub mod limits {}

#[doc = include_str!("docs/metrics.md")]
pub mod metrics {}

#[doc = include_str!("docs/monitor.md")]
pub mod monitor {}

#[doc = include_str!("docs/protocol.md")]
pub mod protocol {}

#[doc = include_str!("docs/run.md")]
pub mod run {}

#[doc = include_str!("docs/secure.md")]
pub mod secure {}

#[doc = include_str!("docs/steering.md")]
pub mod steering {}

#[doc = include_str!("docs/store.md")]
pub mod store {}

#[doc = include_str!("docs/troubleshoot.md")]
pub mod troubleshoot {}

#[doc = include_str!("docs/upgrade.md")]
pub mod upgrade {}
