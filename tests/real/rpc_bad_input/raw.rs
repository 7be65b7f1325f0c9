//! gRPC by hand: any path, any headers, any bytes, and no timer of the client's own.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use axum::body::Body;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tonic::codegen::{Body as _, http};
use tonic::{Code, Status};

/// How long an answer may take that takes as long as it likes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to one member.
#[derive(Clone)]
pub struct Raw {
    addr: SocketAddr,
    client: Client<HttpConnector, Body>,
}

/// What came of a call: its end, and when.
#[derive(Debug)]
pub struct End {
    pub code: Code,
    pub message: String,
    pub took: Duration,
}

// === impl Raw ===

impl Raw {
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, client: Client::builder(TokioExecutor::new()).http2_only(true).build_http() }
    }

    /// Sends a body and reads until the end.
    pub async fn call(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> End {
        let begin = Instant::now();
        let status = tokio::time::timeout(PATIENCE, self.end_of(path, headers, body.into())).await;
        let status = status.unwrap_or_else(|_| panic!("{path}: no answer within {PATIENCE:?}"));
        End { code: status.code(), message: status.message().to_owned(), took: begin.elapsed() }
    }

    /// Sends a body, and tells how the answer begins: OK, if there will be one.
    pub async fn begin(&self, path: &str, body: impl Into<Body>) -> Status {
        let answer = tokio::time::timeout(PATIENCE, self.answer(path, &[], body.into())).await;
        let answer = answer.unwrap_or_else(|_| panic!("{path}: no answer within {PATIENCE:?}"));
        Status::from_header_map(answer.headers()).unwrap_or_else(|| Status::new(Code::Ok, ""))
    }

    async fn answer(&self, path: &str, headers: &[(&str, &str)], body: Body) -> http::Response<Body> {
        let mut request = http::Request::post(format!("http://{}/{path}", self.addr))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("a request");
        let answer = self.client.request(request).await.unwrap_or_else(|e| panic!("{path}: {e:?}"));
        assert_eq!(answer.status(), 200, "{path}");
        answer.map(Body::new)
    }

    async fn end_of(&self, path: &str, headers: &[(&str, &str)], body: Body) -> Status {
        let answer = self.answer(path, headers, body).await;
        if let Some(status) = Status::from_header_map(answer.headers()) {
            return status;
        }
        let mut body = answer.into_body();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.unwrap_or_else(|e| panic!("{path}: {e:?}"));
            if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                return status;
            }
        }
        panic!("{path}: an end without a status");
    }
}

// === impl End ===

impl End {
    #[track_caller]
    pub fn assert(&self, what: &str, code: Code, says: &str) {
        assert_eq!(self.code, code, "{what}: {self:?}");
        assert!(self.message.contains(says), "{what}: {says:?} is missing in {self:?}");
    }
}

/// A message as gRPC puts it into a body.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message");
    [&[0], &length.to_be_bytes()[..], message].concat()
}

/// A field that holds bytes, text, or another message.
pub fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut left = content.len();
    while left >= 0x80 {
        bytes.push(u8::try_from(left & 0x7f).expect("seven bits") | 0x80);
        left >>= 7;
    }
    bytes.push(u8::try_from(left).expect("seven bits"));
    bytes.extend(content);
    bytes
}
