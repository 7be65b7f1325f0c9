//! Searches for a schedule that breaks a promise: the elector explored by a model checker, and simulated by seeds.
//! They only compute; `make test` gives them the time that the other tests leave.

mod model;
mod simulation;
