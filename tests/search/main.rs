//! Searches for a schedule that breaks a promise: the elector explored by a model checker, and simulated by seeds.
//! They only compute; `make test` gives them the time that the other tests leave, and builds them optimised and without
//! features (`cargo test --no-default-features --features driver --profile search --test search`).

#![allow(clippy::disallowed_methods, reason = "tests time what they wait for, not a lease")]

mod model;
mod simulation;
