//! What the integration tests share: real etcd clusters, real metad processes, and faults between them.
//!
//! A test target includes this file with `#[path = "../support/lib.rs"] mod support;`.
//!
//! - [`etcd`] starts etcd clusters and pauses, kills and restarts their members;
//! - [`disaster`] gives a cluster another past: an older state, or none;
//! - [`proxy`] puts a TCP proxy with switchable faults between a node and an etcd member;
//! - [`node`] starts metad itself and collects its events;
//! - [`network`] puts nodes and members on machines of their own, and cuts those off from each other;
//! - [`history`] decides from those events whether two main loops ever ran at once; [`crew`] asks it;
//! - [`family`] is a program for `metad run` that leaves evidence of when it lived;
//! - [`traces`] plays the elector of every process again, and compares those of one election;
//! - [`witness`] measures how long processes had to wait for a CPU; [`sudo`] runs a test as root, and [`sealed`] in a
//!   world of its own, with a Docker daemon of its own;
//! - [`fenced`] decides from etcd's history whether a write ever landed under an old token;
//! - the others are what these are made of.
//!
//! A test that needs something (etcd, openssl, iproute2, libfaketime) and finds none fails, it never skips.
//! Nothing waits for less than a minute before it gives up: a busy machine is no fault of metad's.
//! Nothing here uses metad's own library, because the tests must not share a bug with what they test; only [`traces`]
//! does, which plays its elector again.

#![allow(dead_code)] // each test target uses a part of it

pub mod crew;
pub mod disaster;
pub mod etcd;
pub mod etcdctl;
pub mod family;
pub mod fenced;
pub mod history;
pub mod hogs;
pub mod http;
pub mod install;
pub mod login;
pub mod member;
pub mod network;
pub mod node;
pub mod ourselves;
pub mod output;
pub mod papers;
pub mod poll;
pub mod ports;
pub mod proxy;
pub mod sealed;
pub mod slow_disk;
pub mod spawn;
pub mod stall;
pub mod sudo;
pub mod tls;
pub mod traces;
pub mod usage;
pub mod wire;
pub mod witness;
