//! Requests, keys and values out of random and damaged bytes: nothing panics, whatever is accepted is within its
//! bounds, and what was encoded is decoded as it was. `make fuzz` runs the same checks under a fuzzer.

mod bytes;
mod requests;
mod state_keys;

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use metad::proto::DESCRIPTORS;
use prost::Message;
use prost_types::FileDescriptorSet;
use requests::{KINDS, Kind, Outcome};

/// How many inputs each test makes; `METAD_DECODERS_INPUTS` makes it more.
const INPUTS: u64 = 120_000;
/// The longest random input.
const LENGTH_MAX: usize = 200;

/// A stream of random numbers: xorshift64*.
struct Random(u64);

/// Prints the input that a check has panicked at.
struct Shown<'a>(&'a [u8]);

// === impl Random ===

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next()).unwrap_or(0) % n.max(1)
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..self.below(LENGTH_MAX)).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// Flips, removes, doubles or cuts off a little.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(4) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 => bytes.truncate(at),
                2 => bytes.insert(at, self.next().to_le_bytes()[0]),
                _ => bytes.extend_from_within(at..),
            }
        }
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input: {:?}", self.0);
        }
    }
}

/// The seed of this run, which a failure shows.
fn random() -> Random {
    let given = std::env::var("METAD_DECODERS_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| u64::from(t.subsec_nanos()) | 1)
    });
    println!("METAD_DECODERS_SEED={seed}");
    Random(seed)
}

fn inputs() -> u64 {
    std::env::var("METAD_DECODERS_INPUTS").map_or(INPUTS, |text| text.parse().expect("a number"))
}

#[test]
fn no_request_panics_and_what_is_accepted_is_within_its_bounds() {
    let mut random = random();
    let mut seen = KINDS.map(|_| [0_u64; 3]);
    for i in 0..inputs() {
        let kind = usize::try_from(i).unwrap_or(0) % KINDS.len();
        let mut input = random.bytes();
        if i % 7 > 0 {
            input = (KINDS[kind].sample)(&mut Bytes(&input));
        }
        if i % 3 == 0 {
            random.damage(&mut input);
        }
        input.insert(0, u8::try_from(kind).expect("few kinds"));
        let _shown = Shown(&input);
        seen[kind][requests::check(&input) as usize] += 1;
    }
    // The twins: each kind was accepted, each that has bounds refused, and some were no messages.
    for (Kind { message, has_bounds, .. }, seen) in KINDS.iter().zip(seen) {
        let [no_message, refused, accepted] = seen;
        assert!(no_message > 0 && accepted > 0, "{message}: {seen:?}");
        assert_eq!(refused > 0, *has_bounds, "{message}: {seen:?}");
    }
    assert_eq!(requests::check(&[]), Outcome::NoMessage);
}

#[test]
fn each_request_that_holds_something_is_among_the_kinds() {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("a descriptor set");
    let messages: Vec<_> = set.file.iter().flat_map(|file| &file.message_type).collect();
    let calls = set.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
    let mut found = 0;
    for call in calls {
        let input = call.input_type().rsplit('.').next().unwrap_or_default();
        let is_empty = messages.iter().any(|message| message.name() == input && message.field.is_empty());
        if !is_empty {
            assert!(KINDS.iter().any(|kind| kind.message == input), "{input} is in no row of KINDS");
            found += 1;
        }
    }
    assert!(found >= KINDS.len() - 1, "rows of KINDS that are no requests");
}

#[test]
fn keys_and_rows_survive_any_bytes() {
    let mut random = random();
    let records = [
        r#"{"holderIdentity":"n","leaseDurationSeconds":5,"acquireTime":"2026-01-02T03:04:05.678Z","leaseTransitions":4,"uuid":"00000000-0000-0000-0000-000000000007","incarnation":3,"address":"h:1","nonce":2}"#,
        r#"{"node":"n","uuid":"00000000-0000-0000-0000-000000000007","incarnation":3,"rpc_address":"h:1","http_address":"h:2","priority":1,"version":"1","lease_duration_seconds":5,"lease":"000000000000000a"}"#,
        r#"{"incarnation":3,"lease":"000000000000000a"}"#,
    ];
    for i in 0..inputs() {
        let mut input = random.bytes();
        if i % 8 == 0 {
            // One of our values, a little damaged: the third kind of input.
            input = records[random.below(records.len())].into();
            random.damage(&mut input);
            input.splice(0..0, [2, 0]);
        }
        let _shown = Shown(&input);
        state_keys::check(&input);
    }
}
