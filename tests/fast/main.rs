//! What needs no other process: rules about the code and the documents, transcripts of the elector, the advice about
//! the lease, the decoders.

#![allow(clippy::disallowed_methods, reason = "tests time what they wait for, not a lease")]

mod advice;
mod decoders;
mod documents;
mod generated;
mod man;
mod one_place;
mod tidy;
mod transcripts;
