//! What the integration tests share: real etcd clusters, real metad processes, and faults between them.
//!
//! A test target includes this file with `#[path = "support/lib.rs"] mod support;`.
//!
//! - [`etcd`] starts etcd clusters and pauses, kills and restarts their members;
//! - [`proxy`] puts a TCP proxy with switchable faults between a node and an etcd member;
//! - [`node`] starts metad itself and collects its events;
//! - [`history`] decides from those events whether two main loops ever ran at once;
//! - [`fenced`] decides from etcd's history whether a write ever landed under an old token;
//! - the others are what these are made of.
//!
//! A test that needs etcd or openssl and finds none fails, it never skips. Nothing here uses metad's own
//! library: the tests must not share a bug with what they test.

#![allow(dead_code)] // each test target uses a part of it

pub mod etcd;
pub mod etcdctl;
pub mod fenced;
pub mod history;
pub mod http;
pub mod install;
pub mod member;
pub mod node;
pub mod output;
pub mod poll;
pub mod ports;
pub mod proxy;
pub mod spawn;
pub mod tls;
