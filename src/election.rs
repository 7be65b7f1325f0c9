//! The election: who may lead, until when, and why it ends. Values and rules only.
//!
//! Nothing here does input or output, reads a clock, logs, or is asynchronous; `now` is an argument. That is
//! why the same elector runs in the daemon, in the golden transcripts and in the simulation.
//!
//! # The table of transitions
//!
//! | from | on | to |
//! | --- | --- | --- |
//! | Joining | registered under a new lease | Follower |
//! | Joining | final refusal | Stopped |
//! | Follower | a vacancy, our rank's turn, lease long enough; not while we are unable to lead, and last while not ready | Claiming |
//! | Follower | record names us, this incarnation, our current lease, new token (reclaim, hand-over) | Starting |
//! | Follower, Claiming | `H` (claiming: `S`) passed, or our registration is gone | Joining (new lease) |
//! | Follower, Claiming | our node id is another data dir's | Stopped |
//! | Joining, Follower, Claiming | asked to stop | Stopped |
//! | Claiming | won, or a view shows the record as ours | Starting |
//! | Claiming | lost, refused, or cancelled: our registration has moved on | Follower |
//! | Starting | `B + ttl/4` of a validated lease left | Leading |
//! | Starting | `start_timeout` | Resigning |
//! | Starting | `S` passed, or the record is gone again | Stopped |
//! | Starting | asked to stop | Resigning |
//! | Leading | `S` passed, record gone or foreign, write fenced | Stopping (forced) |
//! | Leading | asked to stop | Stopping (planned) |
//! | Leading | a member of a higher priority is back and ready | Stopping (planned) |
//! | Leading | its probe has failed, and a healthy member is ready | Stopping (planned) |
//! | Leading | its main loop has not been warm yet, and another member is ready | Stopping (planned) |
//! | Leading | the main loop hangs | Stopping |
//! | Leading | the main loop ended by itself | Choosing |
//! | Stopping | the main loop has ended, and a candidate said that it is ready | HandingOver |
//! | Stopping | the main loop has ended; the candidates have not answered, or too long ago | Choosing |
//! | Stopping | the main loop has ended; planned, but nobody is ready | Resigning |
//! | Stopping | the main loop has ended; forced | Stopped |
//! | Stopping | the main loop does not end even when it is ended the hard way | Stopping (the process ends) |
//! | Choosing | a candidate is ready | HandingOver |
//! | Choosing | nobody is, in 100 ms | Resigning |
//! | HandingOver | the record is the successor's | Stopped |
//! | HandingOver | refused, or nobody knows | Resigning |
//! | Resigning | record deleted under our token, or timeout over | Stopped |
//! | Leading | the store went back in time, or is another one | Stopping (forced) |
//! | any but Leading and Stopping | the store went back in time, or is another one | Stopped |
//!
//! There is no edge from Leading back to Follower: a meta node can be promoted, never demoted.
//!
//! # Acks
//!
//! Every ack, a candidate's too, is validated by a linearizable read that began after it. That is more than a
//! candidate strictly needs; in return there is one rule instead of two, a claim never rests on an unvalidated
//! deadline, so the main loop can start in the very moment the claim is answered, and the read doubles as the
//! backstop for a watch that has gone silent.
//!
//! # What is not guaranteed
//!
//! That nobody else leads while a machine's clocks hide a pause, or run wrong by more than
//! [`lease::CLOCK_RATE_ERROR_PPM`]. There, and only there, the fencing token alone protects what is stored.

pub mod departure;
pub mod elector;
pub mod event;
pub mod exit;
pub mod history;
pub mod lease;
pub mod probe;
pub mod readiness;
pub mod record;
pub mod renewal;
pub mod status;
