//! One call in several attempts: to the leader, until it is done, refused, unclear, or too late.

use std::time::Duration;

use tonic::{Code, ConnectError, Response, Status};

use super::error::{ClientError, Said};
use super::verdict::{self, ErrorMeaning};
use super::{MetaClient, Target};
use crate::clock::{Clock, Instant, OsClock};
use crate::tls::client::Authorized;

/// How long one attempt may take; as long as the server gives a request.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for one that may be repeated: a leader that stands still may have a successor already.
const REPEATABLE_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
/// The first pause between two attempts; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How many are remembered that were asked.
const SAID_MAX: usize = 64;

/// May a call be repeated when nobody knows whether it was done?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It does no harm.
    Harmless,
    /// Only when it was certainly not done.
    IfNotDone,
}

/// The attempts of one call: its deadline, its pauses, and what everybody said.
pub(super) struct Attempts {
    what: &'static str,
    until: Instant,
    limit: Duration,
    pause: Duration,
    said: Vec<Said>,
}

/// What one attempt has come to.
enum AfterAttempt<T> {
    Done(T),
    /// Look for the leader again at once: somebody has named it.
    AtOnce,
    AfterPause,
}

// === impl Attempts ===

impl Attempts {
    /// Waits a little longer than the last time, by a random half.
    ///
    /// # Errors
    /// It is too late.
    pub(super) async fn pause(&mut self) -> Result<(), ClientError> {
        let half = self.pause / 2;
        let random = uuid::Uuid::new_v4().as_u128() as u32;
        let pause = half + half.mul_f64(f64::from(random) / f64::from(u32::MAX));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        if self.left() <= pause {
            tokio::time::sleep(self.left()).await;
            return Err(self.give_up());
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// The last word of everybody counts.
    pub(super) fn note(&mut self, address: &str, why: String) {
        match self.said.iter().position(|said| said.address == address) {
            Some(i) => self.said[i].why = why,
            None if self.said.len() < SAID_MAX => self.said.push(Said { address: address.to_owned(), why }),
            None => {}
        }
    }

    fn give_up(&mut self) -> ClientError {
        ClientError::GaveUp { what: self.what, waited: self.limit, said: std::mem::take(&mut self.said) }
    }

    /// How long is left until the deadline.
    pub(super) fn left(&self) -> Duration {
        OsClock.now().until(self.until)
    }
}

// === impl MetaClient: attempts ===

impl MetaClient {
    /// What a call has to bring along: `what` is the beginning of its errors, such as "cannot put".
    pub(super) fn attempts(&self, what: &'static str) -> Attempts {
        let until = OsClock.now() + self.deadline;
        Attempts { what, until, limit: self.deadline, pause: PAUSE_MIN, said: Vec::new() }
    }

    /// Asks the leader, whoever that is by now, until the deadline.
    pub(super) async fn ask<T, F, Fut>(
        &self,
        what: &'static str,
        repeat: Repeat,
        call: F,
    ) -> Result<T, ClientError>
    where
        F: Fn(Authorized) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.ask_whom(what, repeat, call).await.map(|(answer, _)| answer.into_inner())
    }

    /// The same, and says who has answered.
    pub(super) async fn ask_whom<T, F, Fut>(
        &self,
        what: &'static str,
        repeat: Repeat,
        call: F,
    ) -> Result<(Response<T>, Target), ClientError>
    where
        F: Fn(Authorized) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let mut attempts = self.attempts(what);
        loop {
            let known = self.known().leader.clone();
            let target = match known {
                Some(target) => Some(target),
                None => self.look(&mut attempts).await.target,
            };
            let Some(target) = target else {
                attempts.pause().await?;
                continue;
            };
            match self.attempt(&mut attempts, &target, repeat, &call).await? {
                AfterAttempt::Done(answer) => return Ok((answer, target)),
                AfterAttempt::AtOnce => {}
                AfterAttempt::AfterPause => attempts.pause().await?,
            }
        }
    }

    async fn attempt<T, F, Fut>(
        &self,
        attempts: &mut Attempts,
        target: &Target,
        repeat: Repeat,
        call: &F,
    ) -> Result<AfterAttempt<Response<T>>, ClientError>
    where
        F: Fn(Authorized) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let address = &target.address;
        let status = match self.send(attempts.left(), address, repeat, call).await {
            Ok(answer) => return Ok(AfterAttempt::Done(answer)),
            Err(status) => status,
        };
        attempts.note(address, verdict::words(&status));
        match verdict::judge(&status) {
            ErrorMeaning::Refused => Err(refusal(attempts.what, address, &status)),
            ErrorMeaning::Later => Ok(AfterAttempt::AfterPause),
            ErrorMeaning::Elsewhere(hint) => {
                self.forget(target);
                Ok(if self.follow(target, hint) { AfterAttempt::AtOnce } else { AfterAttempt::AfterPause })
            }
            ErrorMeaning::Unreached => {
                self.forget(target);
                Ok(AfterAttempt::AfterPause)
            }
            ErrorMeaning::Unclear => {
                self.forget(target);
                self.disconnect(address);
                if repeat == Repeat::Harmless {
                    return Ok(AfterAttempt::AfterPause);
                }
                let (what, why) = (attempts.what, verdict::words(&status));
                Err(ClientError::Unknown { what, address: address.clone(), why })
            }
        }
    }

    async fn send<T, F, Fut>(
        &self,
        left: Duration,
        address: &str,
        repeat: Repeat,
        call: &F,
    ) -> Result<Response<T>, Status>
    where
        F: Fn(Authorized) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let channel =
            self.channel(address).map_err(|e| Status::from_error(Box::new(ConnectError(e.why.into()))))?;
        let limit = left.min(match repeat {
            Repeat::Harmless => REPEATABLE_ATTEMPT_TIMEOUT,
            Repeat::IfNotDone => ATTEMPT_TIMEOUT,
        });
        let late = |_| Status::deadline_exceeded(format!("no answer within {limit:.1?}"));
        tokio::time::timeout(limit, call(channel)).await.map_err(late)?
    }
}

/// A refusal on the merits, as an error.
pub(super) fn refusal(what: &'static str, address: &str, status: &Status) -> ClientError {
    let (address, why) = (address.to_owned(), status.message().to_owned());
    match status.code() {
        Code::Aborted => ClientError::Conflict { what, address, why },
        Code::NotFound => ClientError::NotFound { what, address, why },
        code => ClientError::Refused { what, address, code, why },
    }
}
