//! What needs no other process: rules about the code and the documents, transcripts of the elector, the decoders.

mod decoders;
mod documents;
mod tidy;
mod transcripts;
