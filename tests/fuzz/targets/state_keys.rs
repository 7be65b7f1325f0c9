//! Any bytes as keys and values of the store, see `tests/fast/decoders/state_keys.rs`.
#![no_main]

#[path = "../../fast/decoders/bytes.rs"]
mod bytes;
#[path = "../../fast/decoders/state_keys.rs"]
mod state_keys;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    state_keys::check(data);
});
