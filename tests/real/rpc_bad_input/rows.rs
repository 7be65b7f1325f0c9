//! What is sent to every RPC that the descriptors name, and what must come of it.

use std::collections::HashMap;

use metad::proto::DESCRIPTORS;
use metad::proto::metad::{Change, Put, change};
use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto};
use tonic::Code;

use super::raw::{field, frame};

pub const BARRIERS: &str = "metad.v1.BarrierService/Stream";
const STATE: &str = "metad.v1.StateService/";
const REPORT: usize = 1024;
const SMALL: usize = 64 * 1024;
const LARGE: usize = 4 * 1024 * 1024;
const NOT_TEXT: &[u8] = b"a\xff\xfeb";

/// Every RPC there is, with its messages.
pub struct Rpcs {
    calls: Vec<(String, MethodDescriptorProto)>,
    messages: HashMap<String, DescriptorProto>,
}

/// A call that must be refused.
pub struct Row {
    pub what: String,
    pub path: String,
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: Vec<u8>,
    pub code: Code,
    pub says: String,
}

// === impl Rpcs ===

impl Rpcs {
    pub fn all() -> Self {
        let set = FileDescriptorSet::decode(DESCRIPTORS).expect("a descriptor set");
        let (mut calls, mut messages) = (vec![], HashMap::new());
        for file in set.file {
            let package = file.package.unwrap_or_default();
            for service in file.service {
                let name = format!("{package}.{}", service.name());
                calls
                    .extend(service.method.into_iter().map(|call| (format!("{name}/{}", call.name()), call)));
            }
            messages.extend(file.message_type.into_iter().map(|m| (format!(".{package}.{}", m.name()), m)));
        }
        assert!(calls.len() >= 25, "so many there are");
        Self { calls, messages }
    }

    /// Those that take one request.
    pub fn unary(&self) -> impl Iterator<Item = &str> {
        self.calls.iter().filter(|(_, call)| !call.client_streaming()).map(|(path, _)| path.as_str())
    }

    /// Bytes that are no request of any kind, for every RPC.
    pub fn broken(&self) -> Vec<Row> {
        self.calls.iter().flat_map(|(path, _)| broken_for(path)).collect()
    }

    /// Bytes that are no UTF-8, wherever text is expected.
    pub fn not_text(&self) -> Vec<Row> {
        let of_call = |(path, call): &(String, MethodDescriptorProto)| {
            let row = |(name, message): (String, Vec<u8>)| Row {
                what: format!("{path}: {name} is no text"),
                path: path.clone(),
                headers: vec![],
                body: frame(&message),
                code: Code::Internal,
                says: name,
            };
            self.texts(call.input_type()).into_iter().map(row).collect::<Vec<_>>()
        };
        let rows: Vec<_> = self.calls.iter().flat_map(of_call).collect();
        assert!(rows.len() >= 18, "so many texts there are in requests: {}", rows.len());
        rows
    }

    /// Each text in a message, with the name under which it is refused, and a message in which it is none.
    fn texts(&self, message: &str) -> Vec<(String, Vec<u8>)> {
        let message = &self.messages[message];
        message.field.iter().flat_map(|f| self.texts_of(message, f)).collect()
    }

    fn texts_of(&self, message: &DescriptorProto, f: &FieldDescriptorProto) -> Vec<(String, Vec<u8>)> {
        let number = u8::try_from(f.number()).expect("a small number");
        // Of several alternatives it is not told which one it was.
        let oneof = f.oneof_index.filter(|_| !f.proto3_optional()).and_then(|i| usize::try_from(i).ok());
        let name = oneof.map_or(f.name(), |i| message.oneof_decl[i].name());
        let name = format!("{}.{name}", message.name());
        let type_name = f.type_name().rsplit('.').next().unwrap_or_default();
        if let Some(entry) = message.nested_type.iter().find(|nested| nested.name() == type_name) {
            let texts = entry.field.iter().filter(|f| f.r#type() == Type::String);
            let numbers = texts.map(|f| u8::try_from(f.number()).expect("1 or 2"));
            return numbers.map(|n| (name.clone(), field(number, &field(n, NOT_TEXT)))).collect();
        }
        match f.r#type() {
            Type::String => vec![(name, field(number, NOT_TEXT))],
            Type::Message => {
                let inner = self.texts(f.type_name()).into_iter();
                inner.map(|(name, bytes)| (name, field(number, &bytes))).collect()
            }
            _ => vec![],
        }
    }
}

fn broken_for(path: &str) -> Vec<Row> {
    let max = match path {
        BARRIERS => REPORT,
        path if path.starts_with(STATE) => LARGE,
        _ => SMALL,
    };
    let row = |what: &str, body: Vec<u8>, code, says: &str| Row {
        what: format!("{path}: {what}"),
        path: path.to_owned(),
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

/// RPCs that do not exist.
pub fn unheard_of() -> Vec<Row> {
    let row = |path: &str| Row {
        what: format!("{path} does not exist"),
        path: path.to_owned(),
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
