//! Every call is answered in time: within the caller's own `grpc-timeout`, and within ours.
//!
//! tonic has deadlines too, but says CANCELLED when one has passed, which means that the caller has gone away.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::Status;
use tonic::codegen::{Service, http};
use tower::Layer;

/// How long a call may take until its answer begins: those that wait for the store wait for this long at most.
const TIMEOUT: Duration = Duration::from_secs(10);
const HEADER: &str = "grpc-timeout";
/// How many digits a timeout may have.
const DIGITS_MAX: usize = 8;

/// Puts a [`Deadline`] around a service.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deadlines;

/// A service that answers in time.
#[derive(Clone, Debug)]
pub(super) struct Deadline<S>(S);

// === impl Deadlines ===

impl<S> Layer<S> for Deadlines {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Deadline(inner)
    }
}

// === impl Deadline ===

impl<S, B, A> Service<http::Request<B>> for Deadline<S>
where
    S: Service<http::Request<B>, Response = http::Response<A>>,
    S::Future: Send + 'static,
    A: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let wanted = request.headers().get(HEADER).and_then(|v| parse(v.to_str().ok()?));
        let timeout = wanted.map_or(TIMEOUT, |wanted| wanted.min(TIMEOUT));
        let answer = tokio::time::timeout(timeout, self.0.call(request));
        Box::pin(async move { answer.await.unwrap_or_else(|_| Ok(too_late(timeout, wanted).into_http())) })
    }
}

fn too_late(timeout: Duration, wanted: Option<Duration>) -> Status {
    let whose = if wanted == Some(timeout) { "the caller's deadline" } else { "the server's limit" };
    Status::deadline_exceeded(format!(
        "no answer within {timeout:?} ({whose}); a requested write may have been done"
    ))
}

/// The value of a `grpc-timeout`: at most eight digits and a unit. `None`: it is not one.
fn parse(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match &text[digits.len()..] {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, is) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("82m", Some(Duration::from_millis(82))),
            ("0u", Some(Duration::ZERO)),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("123456789n", None),
            ("", None),
            ("m", None),
            ("1", None),
            ("1 m", None),
            ("-1m", None),
            ("1ms", None),
            ("é", None),
        ] {
            assert_eq!(parse(text), is, "{text:?}");
        }
    }
}
