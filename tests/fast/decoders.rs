//! Requests, keys and values out of random and damaged bytes: nothing panics, whatever is accepted is within its
//! bounds, and what was encoded is decoded as it was. `make fuzz` runs the same checks under a fuzzer.

mod bytes;
mod requests;
mod state_keys;

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use metad::proto::metad as proto;
use prost::Message;
use requests::{KINDS, Outcome};

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

/// A request of this kind that makes sense, mostly.
fn request(kind: u8, random: &mut Random) -> Vec<u8> {
    let seed = random.bytes();
    let b = &mut Bytes(&seed);
    let expected_revision = Some(b.number()).filter(|n| n % 3 > 0);
    match kind {
        3 => proto::StepDownRequest { to: b.text(), expected_token: expected_revision }.encode_to_vec(),
        4 => proto::PrepareRequest { token: b.number() }.encode_to_vec(),
        5 => {
            let labels = (0..b.byte() % 18).map(|_| (b.text(), b.text())).collect();
            let port = u32::try_from(b.number() % 70_000).unwrap_or(0);
            proto::RegisterRequest { host: b.text(), port, kind: b.text(), labels }.encode_to_vec()
        }
        6 => proto::HeartbeatRequest { worker_id: b.number() }.encode_to_vec(),
        7 => proto::DeregisterRequest { worker_id: b.number() }.encode_to_vec(),
        10 => proto::BarrierCollected { worker_id: b.number() % 3, epoch: b.number() % 3 }.encode_to_vec(),
        11 => proto::GetRequest { key: b.text() }.encode_to_vec(),
        12 => {
            let limit = u32::try_from(b.number() >> 32).unwrap_or(0);
            proto::RangeRequest { prefix: b.text(), after: b.text(), limit }.encode_to_vec()
        }
        13 => {
            proto::PutRequest { key: b.text(), value: b.take(50).into(), expected_revision }.encode_to_vec()
        }
        14 => proto::DeleteRequest { key: b.text(), expected_revision }.encode_to_vec(),
        15 => txn(b).encode_to_vec(),
        16 => proto::StateWatchRequest { prefix: b.text(), start_revision: b.number() }.encode_to_vec(),
        17 => proto::FreezeRequest { reason: b.text(), for_secs: b.number() % 5_000_000, replace: false }
            .encode_to_vec(),
        18 => {
            let priority = u32::try_from(b.number() % 1_500).unwrap_or(0);
            proto::SetPriorityRequest { node: b.text(), priority }.encode_to_vec()
        }
        _ => vec![],
    }
}

fn txn(b: &mut Bytes<'_>) -> proto::TxnRequest {
    use proto::change::Change::{Delete, Put};
    let many =
        |b: &mut Bytes<'_>| if b.byte().is_multiple_of(16) { 95 + b.byte() % 10 } else { b.byte() % 5 };
    let changes = (0..many(b)).map(|i| match b.byte() % 8 {
        0 => None,
        1..3 => Some(Delete(format!("{}{i}", b.text()))),
        3 => Some(Put(proto::Put { key: b.text(), value: vec![0; usize::from(b.byte()) * 4096] })),
        _ => Some(Put(proto::Put { key: format!("{}{i}", b.text()), value: b.take(9).into() })),
    });
    let changes = changes.map(|change| proto::Change { change }).collect();
    let expectations = (0..many(b)).map(|_| proto::Expectation { key: b.text(), mod_revision: b.number() });
    proto::TxnRequest { expectations: expectations.collect(), changes }
}

#[test]
fn no_request_panics_and_what_is_accepted_is_within_its_bounds() {
    let mut random = random();
    let mut seen = vec![[0_u64; 3]; KINDS.into()];
    for i in 0..inputs() {
        let kind = u8::try_from(i % u64::from(KINDS)).expect("few kinds");
        let mut input = if i % 7 == 0 { random.bytes() } else { request(kind, &mut random) };
        if i % 3 == 0 {
            random.damage(&mut input);
        }
        input.insert(0, kind);
        let _shown = Shown(&input);
        seen[usize::from(kind)][requests::check(&input) as usize] += 1;
    }
    // The twins: each kind was accepted, each that has bounds refused, and some were no messages.
    for (kind, seen) in seen.iter().enumerate() {
        let [no_message, refused, accepted] = *seen;
        assert!(no_message > 0 && accepted > 0, "kind {kind}: {seen:?}");
        let has_bounds = [5, 10, 11, 12, 13, 14, 15, 16, 17, 18].contains(&kind);
        assert_eq!(refused > 0, has_bounds, "kind {kind}: {seen:?}");
    }
    assert_eq!(requests::check(&[]), Outcome::NoMessage);
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
