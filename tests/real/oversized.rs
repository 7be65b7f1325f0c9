//! Frames, headers, messages and handshakes that are larger than anybody needs: each is refused in its protocol's own way, in
//! plain text and inside TLS, and costs the leader nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use metad::proto::metad::StepDownRequest;
use metad::proto::metad::election_service_client::ElectionServiceClient;
use metad::tls::client::Credentials;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::support::crew::{PATIENCE, assert_kept};
use crate::support::node::{Node, NodeBuilder};
use crate::support::usage;
use crate::support::wire::{Net, Speaks, Wire};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// `:status: 431`, as HPACK has it.
const STATUS_431: [u8; 5] = [0x48, 0x83, 0x69, 0x90, 0xff];
const END_HEADERS: u8 = 4;
const FRAME_SIZE_ERROR: u8 = 6;
const ENHANCE_YOUR_CALM: u8 = 11;
/// The largest frame that a node takes.
const FRAME_MAX: usize = 16 * 1024;
/// How often a frame is said that never ends what it belongs to.
const ENDLESS: usize = 2000;
/// How often an answer is asked for that may be lost.
const TRIES: usize = 50;
const RSS_MB_MAX: f64 = 100.0;

fn frame(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], content].concat()
}

/// A header that is in no table: `x`, and so many bytes.
fn header(length: usize) -> Vec<u8> {
    // HPACK: literal without indexing; its name has one byte; its length is 127 and the rest, in groups of seven bits.
    let mut block = vec![0, 1, b'x', 0x7f];
    let mut left = length - 127;
    while left >= 0x80 {
        block.push(u8::try_from(left & 0x7f).expect("seven bits") | 0x80);
        left >>= 7;
    }
    block.push(u8::try_from(left).expect("seven bits"));
    block.resize(block.len() + length, b'v');
    block
}

fn dial(net: &Net, node: &Node) -> Wire {
    let mut wire = net.dialer(Speaks::Http2).dial(node.rpc_addr()).expect("it listens");
    wire.write_all(PREFACE).expect("it reads");
    wire
}

/// What the node answers to these frames.
fn ask(net: &Net, node: &Node, frames: &[Vec<u8>]) -> Vec<(u8, Vec<u8>)> {
    let mut wire = dial(net, node);
    // It may have heard enough before all of it is said.
    let _ = frames.iter().try_for_each(|frame| wire.write_all(frame));
    wire.read_frames(&[HEADERS, GOAWAY])
}

/// The node has ended the connection with this error.
#[track_caller]
fn assert_ended(what: &str, answer: &[(u8, Vec<u8>)], error: u8) {
    let goaway = answer.iter().find(|(kind, _)| *kind == GOAWAY);
    let (_, content) = goaway.unwrap_or_else(|| panic!("{what}: no GOAWAY in {answer:?}"));
    assert_eq!(content[4..8], [0, 0, 0, error], "{what}: {answer:?}");
}

fn frames_of_http2(net: &Net, node: &Node) {
    let too_long = frame(0, 0, &vec![0; FRAME_MAX + 1]);
    assert_ended("a frame that is too long", &ask(net, node, &[too_long]), FRAME_SIZE_ERROR);
    let claims = vec![0xff, 0xff, 0xff, HEADERS, END_HEADERS, 0, 0, 0, 1];
    assert_ended("one that only says that it is long", &ask(net, node, &[claims]), FRAME_SIZE_ERROR);

    // :method POST, :scheme http, :path /
    let head = [0x83, 0x86, 0x84];
    let block = [&head[..], &header(2 * FRAME_MAX)].concat();
    let (first, rest) = block.split_at(FRAME_MAX);
    let (second, third) = rest.split_at(FRAME_MAX);
    let said =
        [frame(HEADERS, 1, first), frame(CONTINUATION, 0, second), frame(CONTINUATION, END_HEADERS, third)];
    let answer = ask(net, node, &said);
    let is_refused = answer.iter().any(|(kind, content)| *kind == HEADERS && content[..] == STATUS_431);
    assert!(is_refused, "headers of {} bytes: {answer:?}", block.len());

    let endless = frame(CONTINUATION, 0, &header(1024));
    let said: Vec<_> = std::iter::once(frame(HEADERS, 1, &head)).chain(vec![endless; ENDLESS]).collect();
    let mut wire = dial(net, node);
    let all_was_said = said.iter().all(|frame| wire.write_all(frame).is_ok());
    let answer = wire.read_frames(&[GOAWAY]);
    // Whoever goes on talking may lose the words to the reset of the connection.
    match answer.iter().any(|(kind, _)| *kind == GOAWAY) {
        true => assert_ended("headers that never end", &answer, ENHANCE_YOUR_CALM),
        false => assert!(!all_was_said || wire.is_closed(), "headers that never end: {answer:?}"),
    }
}

/// The status of an HTTP/1.1 answer to this.
fn status(net: &Net, node: &Node, said: &[u8]) -> Option<u16> {
    let mut wire = net.dialer(Speaks::Http1).dial(node.http_addr()).expect("it listens");
    let _ = wire.write_all(said);
    let mut answer = [0; 64];
    let n = wire.read(&mut answer).ok()?;
    String::from_utf8_lossy(&answer[..n]).split_whitespace().nth(1)?.parse().ok()
}

fn headers_of_http1(net: &Net, node: &Node) {
    let host = "Host: 127.0.0.1\r\nConnection: close\r\n";
    assert_eq!(status(net, node, format!("GET /livez HTTP/1.1\r\n{host}\r\n").as_bytes()), Some(200), "twin");
    let long = "x".repeat(128 * 1024);
    let large_header = format!("GET /livez HTTP/1.1\r\n{host}X: {long}\r\n\r\n");
    let large_path = format!("GET /{long} HTTP/1.1\r\n{host}\r\n");
    let many_headers = format!("GET /livez HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(500));
    for (what, said, code) in
        [("a header", large_header, 431), ("a path", large_path, 431), ("many headers", many_headers, 431)]
    {
        // The reset of a connection with unread bytes may overtake the words.
        let answer = (0..TRIES).find_map(|_| status(net, node, said.as_bytes()));
        assert_eq!(answer, Some(code), "{what}");
    }
}

/// A message that is longer than any request has to be, from one who may ask.
fn messages_of_grpc(credentials: &Credentials, node: &Node) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let refused = runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{}", node.rpc_addr())).expect("an address");
        let mut client = ElectionServiceClient::new(credentials.connect_lazily(&endpoint));
        let request = StepDownRequest { to: "x".repeat(1024 * 1024), expected_token: None };
        let call = tokio::time::timeout(PATIENCE, client.step_down(request)).await.expect("in time");
        call.expect_err("refused")
    });
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
}

/// What is too long for TLS itself: on a connection that is in its handshake, and on one that is over it.
fn records_of_tls(net: &Net, node: &Node) {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    let record = [&[22, 3, 1, 0xff, 0xff][..], &[1; 4096]].concat();
    let message = [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[1; FRAME_MAX - 4]].concat();
    for (address, said) in
        [(node.rpc_addr(), &record), (node.http_addr(), &record), (node.rpc_addr(), &message)]
    {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(said).expect("it reads");
        let mut alert = [0; 7];
        match stream.read_exact(&mut alert) {
            Ok(()) => assert_eq!((alert[0], alert[5]), (ALERT, FATAL), "{alert:?}"),
            Err(e) => assert!(e.kind() != std::io::ErrorKind::WouldBlock, "it is still open: {e}"),
        }
    }
    let told = |e: &crate::support::history::TimedEvent| {
        e.kind() == "call_refused" && e.str("what") == "a TLS handshake"
    };
    node.wait_event(told, PATIENCE);

    let mut wire = net.dialer(Speaks::Http2).dial(node.rpc_addr()).expect("it listens");
    wire.tcp().write_all(&[23, 3, 3, 0xff, 0xff]).expect("it reads");
    assert!(wire.is_closed(), "after the handshake");
}

fn nothing_oversized_is_taken(net: &Net, credentials: &Credentials) {
    let node = net.of(NodeBuilder::new("a").lease_secs(5)).spawn();
    node.wait_for("main_loop_started", PATIENCE);
    frames_of_http2(net, &node);
    headers_of_http1(net, &node);
    messages_of_grpc(credentials, &node);
    if let Net::Tls { .. } = net {
        records_of_tls(net, &node);
    }
    let rss = usage::rss_mb(node.pid());
    assert!(rss < RSS_MB_MAX, "{rss} MB");
    let (code, _) = net.get(node.http_addr(), "/leader").expect("an answer");
    assert_eq!(code, 200, "it leads");
    assert_kept(&[node], 0, Duration::from_secs(1));
}

#[test]
fn what_is_too_long_is_refused_in_plain_text() {
    nothing_oversized_is_taken(&Net::Plain, &Credentials::default());
}

#[test]
fn what_is_too_long_is_refused_inside_tls() {
    let net = Net::tls();
    let Net::Tls { papers, .. } = &net else { return };
    nothing_oversized_is_taken(&net, &papers.credentials(Some("admin"), None));
}
