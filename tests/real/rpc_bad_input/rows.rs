//! What is sent to every RPC, and what must come of it.

use metad::proto::metad::{Change, Put, change};
use tonic::Code;

use super::raw::{field, frame};

/// Every RPC there is, and the largest message that it reads.
pub const METHODS: [(&str, usize); 21] = [
    ("metad.v1.ElectionService/Leader", SMALL),
    ("metad.v1.ElectionService/Members", SMALL),
    ("metad.v1.ElectionService/Observe", SMALL),
    ("metad.v1.ElectionService/StepDown", SMALL),
    ("metad.v1.ElectionService/Prepare", SMALL),
    ("metad.v1.ElectionService/Freeze", SMALL),
    ("metad.v1.ElectionService/Unfreeze", SMALL),
    ("metad.v1.ElectionService/SetPriority", SMALL),
    ("metad.v1.ClusterService/Register", SMALL),
    ("metad.v1.ClusterService/Heartbeat", SMALL),
    ("metad.v1.ClusterService/Deregister", SMALL),
    ("metad.v1.ClusterService/List", SMALL),
    ("metad.v1.ClusterService/Watch", SMALL),
    (BARRIERS, REPORT),
    ("metad.v1.StateService/Get", LARGE),
    ("metad.v1.StateService/Range", LARGE),
    ("metad.v1.StateService/Put", LARGE),
    ("metad.v1.StateService/Delete", LARGE),
    ("metad.v1.StateService/Txn", LARGE),
    ("metad.v1.StateService/Watch", LARGE),
    ("meta.MetaMemberService/Members", SMALL),
];
pub const BARRIERS: &str = "metad.v1.BarrierService/Stream";
const REPORT: usize = 1024;
const SMALL: usize = 64 * 1024;
const LARGE: usize = 4 * 1024 * 1024;
const NOT_TEXT: &[u8] = b"a\xff\xfeb";

/// A call that must be refused.
pub struct Row {
    pub what: String,
    pub path: &'static str,
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: Vec<u8>,
    pub code: Code,
    pub says: String,
}

/// Bytes that are no request of any kind, for every RPC.
pub fn broken() -> Vec<Row> {
    METHODS.iter().flat_map(|(path, max)| broken_for(path, *max)).collect()
}

fn broken_for(path: &'static str, max: usize) -> Vec<Row> {
    let row = |what: &str, body: Vec<u8>, code, says: &str| Row {
        what: format!("{path}: {what}"),
        path,
        headers: vec![],
        body,
        code,
        says: says.to_owned(),
    };
    let nothing = match path {
        BARRIERS => (Code::InvalidArgument, "the first message must name the worker"),
        _ => (Code::Internal, "Missing request message"),
    };
    let compressed = [&[1], &frame(b"")[1..]].concat();
    let mut gzip =
        row("in an encoding that nobody agreed on", compressed.clone(), Code::Unimplemented, "gzip");
    gzip.headers.push(("grpc-encoding", "gzip"));
    vec![
        row("no message", vec![], nothing.0, nothing.1),
        row("too large", frame(&vec![0; max + 1]), Code::OutOfRange, &format!("{} bytes", max)),
        row("said to be huge", vec![0, 0xff, 0xff, 0xff, 0xff], Code::OutOfRange, "4294967295"),
        row("no protobuf", frame(&[0x0f]), Code::Internal, "failed to decode Protobuf message"),
        row("a field that ends too early", frame(&[0x7a, 9, 1]), Code::Internal, "failed to decode"),
        row("a message that ends too early", vec![0, 0, 0, 0, 100, 1], Code::Internal, "EOF"),
        row("half a frame", vec![0, 0], Code::Internal, "EOF"),
        row("compressed, without saying how", compressed, Code::Internal, "compress"),
        row("an unheard-of flag", vec![7, 0, 0, 0, 0], Code::Internal, "flag"),
        gzip,
    ]
}

/// Bytes that are no UTF-8, wherever text is expected.
pub fn not_text() -> Vec<Row> {
    let label = |key: &[u8], value: &[u8]| field(4, &[field(1, key), field(2, value)].concat());
    let expectation = field(1, &field(1, NOT_TEXT));
    let put = field(2, &field(1, &field(1, NOT_TEXT)));
    let delete = field(2, &field(2, NOT_TEXT));
    let fields: Vec<(&str, &str, Vec<u8>)> = vec![
        ("metad.v1.ElectionService/StepDown", "StepDownRequest.to", field(1, NOT_TEXT)),
        ("metad.v1.ElectionService/Freeze", "FreezeRequest.reason", field(1, NOT_TEXT)),
        ("metad.v1.ElectionService/SetPriority", "SetPriorityRequest.node", field(1, NOT_TEXT)),
        ("metad.v1.ClusterService/Register", "RegisterRequest.host", field(1, NOT_TEXT)),
        ("metad.v1.ClusterService/Register", "RegisterRequest.kind", field(3, NOT_TEXT)),
        ("metad.v1.ClusterService/Register", "RegisterRequest.labels", label(NOT_TEXT, b"v")),
        ("metad.v1.ClusterService/Register", "RegisterRequest.labels", label(b"k", NOT_TEXT)),
        ("metad.v1.StateService/Get", "GetRequest.key", field(1, NOT_TEXT)),
        ("metad.v1.StateService/Range", "RangeRequest.prefix", field(1, NOT_TEXT)),
        ("metad.v1.StateService/Range", "RangeRequest.after", field(2, NOT_TEXT)),
        ("metad.v1.StateService/Put", "PutRequest.key", field(1, NOT_TEXT)),
        ("metad.v1.StateService/Delete", "DeleteRequest.key", field(1, NOT_TEXT)),
        ("metad.v1.StateService/Txn", "Expectation.key", expectation),
        ("metad.v1.StateService/Txn", "Put.key", put),
        ("metad.v1.StateService/Txn", "Change.change", delete),
        ("metad.v1.StateService/Watch", "StateWatchRequest.prefix", field(1, NOT_TEXT)),
    ];
    let row = |(path, name, message): (&'static str, &str, Vec<u8>)| Row {
        what: format!("{path}: {name} is no text"),
        path,
        headers: vec![],
        body: frame(&message),
        code: Code::Internal,
        says: name.to_owned(),
    };
    fields.into_iter().map(row).collect()
}

/// RPCs that do not exist.
pub fn unheard_of() -> Vec<Row> {
    let row = |path| Row {
        what: format!("{path} does not exist"),
        path,
        headers: vec![],
        body: frame(b""),
        code: Code::Unimplemented,
        says: String::new(),
    };
    ["metad.v1.StateService/Drop", "metad.v1.NoService/Get", "x", "metad.v1.StateService/Get/x"]
        .map(row)
        .into()
}

/// A change that writes a key.
pub fn put_change(key: &str, value: &[u8]) -> Change {
    Change { change: Some(change::Change::Put(Put { key: key.into(), value: value.into() })) }
}
