//! Real processes under faults that leave little of a lease, or that take every CPU: they run alone, one after another
//! where they must, because what is to be survived is the fault, not a busy machine.

#![allow(clippy::disallowed_methods, reason = "tests time what they wait for, not a lease")]

#[path = "../support/lib.rs"]
mod support;

mod alone;
mod cpus;
mod faults;
mod starvation;
mod verdict;
