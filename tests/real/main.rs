//! The real binary, real stores, a real browser. Most of these tests wait most of the time, so several run at once.

#![allow(clippy::disallowed_methods, reason = "tests time what they wait for, not a lease")]

#[path = "../support/lib.rs"]
mod support;

mod access;
mod advise;
mod bad_input;
mod client;
mod cluster;
mod containers;
mod data_dir;
mod deadline;
mod doctor;
mod documents_run;
mod election_etcd;
mod endpoint;
mod etcd_leader;
mod etcd_role;
mod exhaustion;
mod fence;
mod freeze;
mod guardian;
mod hang;
mod history;
mod idle;
mod init;
mod leader_hook;
mod output;
mod oversized;
mod package;
mod page;
mod partition;
mod payload;
mod priority;
mod probe;
mod process;
mod prometheus;
mod readme;
mod reclaim;
mod reload;
mod renewal;
mod restored_etcd;
mod risingwave;
mod rpc_bad_input;
mod schema;
mod several_members;
mod sidecar;
mod soak;
mod sqlite;
mod standby;
mod stopped;
mod store_conformance;
mod strangers;
mod stray_cluster;
mod truth;
mod unprivileged;
mod upgrade;
