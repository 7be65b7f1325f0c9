//! metad: the meta daemon of a cluster, exactly one of which leads.
//!
//! Every meta node registers in the store (etcd, or a SQLite file on one machine), claims a vacancy, and
//! keeps its lease alive on a thread of its own. The *main loop* runs only while that keep-alive holds; when the
//! lease times out the process exits deliberately, because a meta node can be promoted but never demoted.
//!
//! # Bird's eye
//!
//! ```text
//!            ┌────────────────────── one process ───────────────────────┐
//!  store ◄───┤ driver thread: Elector (pure) ── fuse thread             │
//!    ▲       │        │ starts, stops          (ends the process at H)  │
//!    ├───────┤ main runtime: main loop, holding a Leadership (the token)│
//!    │       │              gRPC, HTTP: read the driver's snapshot      │
//!    │       └──────────────────────────────────────────────────────────┘
//!    └─── guardian: a process of its own; kills, then revokes, when the other is dead or hangs
//! ```
//!
//! # Code map, in the order of imports
//!
//! A module imports only modules further up in this list; `tests/fast/tidy.rs` proves it.
//!
//! - [`clock`]: the only place that reads a clock; an instant is a pair of readings.
//! - [`election`]: the rules, as values: elector, lease arithmetic, records, reasons. No input, no output.
//! - [`config`]: defaults < file < environment < flags, each value with its origin.
//! - [`tls`]: certificates and tokens as files, and the connections that are made with them.
//! - [`telemetry`]: one typed event feeds log, metrics and streams.
//! - [`limits`]: what clients may take: connections, time, requests, bytes, descriptors.
//! - [`proto`]: generated types. [`client`]: calls another member, or finds the leader and calls it.
//! - [`store`]: the contract, and etcd, SQLite, memory behind it.
//! - [`protocol`]: the election in terms of store transactions: what each action of the elector comes to, the join, a
//!   freeze, and the one fenced write. Pure.
//! - [`data_dir`]: what a node remembers from start to start, and the proof that it is alone there. It decides nothing, so it
//!   is below the driver.
//! - [`guardian`]: the process that outlives us, and the parent of a program that runs as the main loop.
//! - [`driver`]: the one loop where elector, store and clock meet, and what decides: the fuse; joining; handing
//!   over. What records or explains implements [`driver::observer::Observer`]:
//! - [`journal`]: who led when and why it ended. [`diagnosis`]: probes etcd's members, says who was at fault, and holds the
//!   checks of `metad doctor`.
//! - [`meta`]: the main loops: built in (workers, barriers), a caller's, a program; and the fenced meta store.
//! - [`api`]: what others see, over gRPC and HTTP. [`node`]: puts it all together. [`cli`]: the command line.
//!
//! # Invariants
//!
//! 1. `election` does no input or output and reads no clock.
//! 2. Only the driver renews, and only it decides that leadership is over.
//! 3. There is no edge from leader to follower; a process leads at most once.
//! 4. Nothing is written under `state/` but through [`driver::leadership::Leadership`], under its token; the
//!    store refuses an older one.
//! 5. Nothing is released in `Drop`: a killed leader looks like a crashed one.
//! 6. `api` never touches the store.
//! 7. The record is given up only after the main loop has completely ended.
//! 8. Every queue, history, retry, message and wait has a written bound.
//!
//! # What breaks when a rule is broken
//!
//! | mutation | caught by |
//! | --- | --- |
//! | a deadline counted from the answer instead of the send ([`election::lease::Lease::extend`]) | `election::lease::tests::the_deadline_counts_from_the_send_and_never_moves_back`; simulation: `belief_ends_before_the_store_expires_the_lease` |
//! | a write without the token's guard ([`protocol::transactions::fenced`]) | store conformance: `a_fenced_write_needs_the_token`; simulation: `no_write_lands_with_a_stale_token` |
//! | the record given up before the main loop has ended | simulation: `release_only_after_main_loop_stopped`; model: `GivenUpWhileRunning` |
//! | a dead process's lease taken over, instead of its record | model: `AdoptedLease` |
//! | the guardian revokes before the program is dead ([`guardian::rules`]) | `guardian::rules::tests::nothing_is_given_back_while_something_lives`; simulation: `a_guardian_revokes_only_after_the_program_is_dead`; model: `RevokeBeforeKill` |
//! | the data dir's lock goes with the process | model: `LockGoesWithProcess` |
//! | a data dir from another machine counts as its own ([`data_dir`]) | simulation: `no_honest_data_dir_is_called_stale`, `at_most_one_main_loop` |
//! | a store that went back in time is not noticed ([`protocol::transactions::went_back`]) | `protocol::transactions::tests::only_a_lower_revision_than_was_seen_shows_that_a_store_went_back`; simulation: `nobody_is_ready_for_another_tenure` |
//! | a write's slot is not compared ([`protocol::writes`]) | simulation: `a_write_happens_once_and_is_told_truly` |
//! | a watch that goes on where the store was read, not where it broke | simulation: `no_view_is_wrong` |
//! | a candidate stands ready for any tenure ([`driver::DriverHandle::prepare`]) | simulation: `nobody_is_ready_for_another_tenure` |
//! | a main loop that goes on after a hand-over of unknown outcome | model: `ResumeAfterHandOver` |
//! | a registration without its compare | model: `UncomparedRegistration` |
//!
//! # A node in your own program
//!
//! ```no_run
//! use metad::{config, node::Node};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let flags = [("node.id", "n1".to_owned()), ("store.etcd.endpoints", "127.0.0.1:2379".to_owned())];
//!     let config = config::load(None, config::process_env(), &flags)?.config;
//!     let node = Node::builder(config)
//!         .main_loop(|leadership| async move {
//!             println!("leading with token {}", leadership.token());
//!             while leadership.check().is_ok() {
//!                 tokio::select! {
//!                     lost = leadership.lost() => println!("{lost}"),
//!                     () = tokio::time::sleep(std::time::Duration::from_secs(1)) => println!("at work"),
//!                 }
//!             }
//!         })
//!         .start()
//!         .await?;
//!     node.stop_on_signals()?;
//!     let (exit, ending) = node.wait().await;
//!     println!("stopped: {}", ending.reason);
//!     std::process::exit(exit.code())
//! }
//! ```

#![deny(missing_docs)]
// They panic where the output cannot be written; `cli::output` is the one place that writes.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

#[cfg(feature = "node")]
pub mod api;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
pub mod clock;
#[cfg(feature = "node")]
pub mod config;
#[cfg(feature = "driver")]
pub mod data_dir;
#[cfg(feature = "node")]
pub mod diagnosis;
#[cfg(feature = "node")]
pub mod docs;
#[cfg(feature = "driver")]
pub mod driver;
pub mod election;
#[cfg(feature = "driver")]
pub mod files;
#[cfg(feature = "driver")]
pub mod guardian;
#[cfg(feature = "node")]
pub mod journal;
#[cfg(feature = "node")]
pub mod limits;
#[cfg(feature = "node")]
pub mod meta;
#[cfg(feature = "node")]
pub mod node;
#[cfg(feature = "client")]
pub mod proto;
pub mod protocol;
pub mod store;
#[cfg(feature = "driver")]
pub mod telemetry;
#[cfg(feature = "client")]
pub mod tls;

/// The README's Rust examples, compiled.
#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../README.md")]
pub struct Readme;
