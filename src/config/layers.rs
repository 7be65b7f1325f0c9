//! The layers: one table of values, merged key by key, and where each value came from.
//!
//! Text from the environment and from flags becomes a value of the key's type here; ranges and rules are
//! checked later, on what is in force after the merge, so a later layer may repair an earlier one.

use std::path::PathBuf;

use toml::{Table, Value};

use super::error::ConfigError;
use super::keys::{self, Fallback, KEYS, Key};
use super::origin::{Origin, Origins};
use super::value::parse_text;
use super::{address, suggest};

/// The values so far, and their origins.
pub(super) struct Layers {
    table: Table,
    origins: Origins,
}

/// The value at `path`, if there is one.
pub(super) fn lookup<'t>(table: &'t Table, path: &str) -> Option<&'t Value> {
    match path.split_once('.') {
        None => table.get(path),
        Some((section, rest)) => lookup(table.get(section)?.as_table()?, rest),
    }
}

/// Puts `value` at `path` and makes the sections on the way.
fn insert(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// The host name, as this process's namespace has it.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Variables of metad that set no key: for its commands, and for the programs that it runs.
const READ_ELSEWHERE: [&str; 8] = [
    "METAD_CONFIG",
    "METAD_META",
    "METAD_TRACE",
    "METAD_TOKEN",
    "METAD_CLUSTER",
    "METAD_UNDER_INIT",
    "METAD_ROLE",
    "METAD_PROMOTE_FD",
];

/// What Kubernetes sets for a service whose name begins with metad.
fn is_of_kubernetes(name: &str) -> bool {
    let is_port = name.rsplit_once("_PORT").is_some_and(|(_, rest)| {
        rest.is_empty() || rest.starts_with('_') // METAD_PORT, METAD_PORT_5690_TCP_ADDR
    });
    is_port || name.ends_with("_SERVICE_HOST")
}

// === impl Layers ===

impl Layers {
    /// The lowest layer: every default that follows from nothing else.
    pub(super) fn defaults() -> Self {
        let mut table = Table::new();
        for key in KEYS {
            match key.fallback {
                Fallback::Integer(number) => insert(&mut table, key.path, Value::Integer(number)),
                Fallback::Text(text) => insert(&mut table, key.path, Value::String(text.to_owned())),
                Fallback::Switch(on) => insert(&mut table, key.path, Value::Boolean(on)),
                Fallback::EmptyList => insert(&mut table, key.path, Value::Array(Vec::new())),
                Fallback::Computed { .. } | Fallback::Unset { .. } => {}
            }
        }
        Self { table, origins: Origins::default() }
    }

    /// Replaces one value.
    pub(super) fn set(&mut self, key: &'static Key, value: Value, origin: Origin) {
        insert(&mut self.table, key.path, value);
        self.origins.set(key.path, origin);
    }

    /// The environment: `METAD_` names with a double underscore are keys. Those without one that nobody reads are
    /// returned: a slip of the pen that would have no effect.
    pub(super) fn add_env(
        &mut self,
        env: impl Iterator<Item = (String, String)>,
        faults: &mut Vec<ConfigError>,
    ) -> Vec<String> {
        let mut unread = Vec::new();
        let env: Vec<_> = env.collect();
        // A program that metad runs has metad's own variables.
        let is_its_program = env.iter().any(|(name, _)| name == "METAD_TOKEN" || name == "METAD_PROMOTE_FD");
        for (name, text) in env.into_iter().filter(|(name, _)| name.starts_with("METAD_")) {
            if !name["METAD_".len()..].contains("__") {
                let is_ours =
                    READ_ELSEWHERE.contains(&name.as_str()) || (is_its_program && name == "METAD_NODE_ID");
                if !is_ours && !is_of_kubernetes(&name) {
                    unread.push(name);
                }
                continue;
            }
            let Some(key) = KEYS.iter().find(|key| key.env() == name) else {
                let hint = suggest::for_env(&name);
                faults.push(ConfigError::UnknownKey { origin: Origin::Env(name.clone()), key: name, hint });
                continue;
            };
            faults.extend(self.set_text(key, &text, Origin::Env(name)).err());
        }
        unread
    }

    /// The flags, as pairs of a key's path and the text that was typed.
    pub(super) fn add_flags(&mut self, flags: &[(&str, String)], faults: &mut Vec<ConfigError>) {
        for (path, text) in flags {
            let Some(key) = keys::find(path) else {
                let key = (*path).to_owned();
                let hint = suggest::for_path(path);
                faults.push(ConfigError::UnknownKey { origin: Origin::Flag(key.clone()), key, hint });
                continue;
            };
            faults.extend(self.set_text(key, text, Origin::Flag(key.flag_or_path().to_owned())).err());
        }
    }

    /// The defaults that follow from other values. What they follow from may still be invalid: then it is
    /// reported by the validation, and what was computed from it does not matter.
    pub(super) fn compute_defaults(&mut self) {
        self.fill("node.id", |_| host_name());
        self.fill("node.data_dir", |layers| Some(format!("{}.metad", layers.text("node.id")?)));
        self.fill("node.advertise_addr", |layers| {
            let listen = layers.text("rpc.listen_addr")?;
            // With port 0 the address is not known before the listener is bound.
            address::parse(listen).ok().filter(|address| address.port != 0).map(|_| listen.to_owned())
        });
        self.fill("store.kind", |layers| {
            let endpoints = lookup(&layers.table, "store.etcd.endpoints").and_then(Value::as_array);
            Some(if endpoints.is_some_and(|list| !list.is_empty()) { "etcd" } else { "sqlite" }.to_owned())
        });
        self.fill("store.sqlite.path", |layers| {
            let data_dir = PathBuf::from(layers.text("node.data_dir")?);
            data_dir.join("metad.db").to_str().map(str::to_owned)
        });
    }

    /// The merged table and the origins.
    pub(super) fn finish(self) -> (Table, Origins) {
        (self.table, self.origins)
    }

    fn set_text(&mut self, key: &'static Key, text: &str, origin: Origin) -> Result<(), ConfigError> {
        match parse_text(key, text) {
            Some(value) => {
                self.set(key, value, origin);
                Ok(())
            }
            None => Err(ConfigError::wrong_type(key, origin, format!("{text:?}"))),
        }
    }

    /// Gives a key without a value what `compute` finds, if anything; its origin stays the default.
    fn fill(&mut self, path: &'static str, compute: impl FnOnce(&Self) -> Option<String>) {
        if lookup(&self.table, path).is_none()
            && let Some(text) = compute(self)
        {
            insert(&mut self.table, path, Value::String(text));
        }
    }

    fn text(&self, path: &str) -> Option<&str> {
        lookup(&self.table, path)?.as_str()
    }
}
