//! Any bytes as a request of `metad.v1`, see `tests/fast/decoders/requests.rs`.
#![no_main]

#[path = "../../fast/decoders/bytes.rs"]
mod bytes;
#[path = "../../fast/decoders/requests.rs"]
mod requests;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    requests::check(data);
});
