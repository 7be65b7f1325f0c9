//! What makes values usable: each one within its range, and all of them together.
//!
//! No rule here looks at the outside world; whether a file exists or a port is free is found out by its user.

use toml::{Table, Value};

use super::address::{self, Scheme};
use super::error::ConfigError;
use super::keys::{self, Fallback, KEYS, Key, Kind};
use super::layers::lookup;
use super::origin::{Origin, Origins};
use super::store_kind::StoreKind;
use super::value::value_text;
use super::{Config, EtcdConfig};

/// The shortest `meta.main_loop_timeout_secs`, but for 0.
const MAIN_LOOP_TIMEOUT_SECS_MIN: u64 = 5;

/// The rules, with what is needed to name the place of a fault.
struct Rules<'c> {
    config: &'c Config,
    origins: &'c Origins,
}

/// Checks every value of a merged table on its own, in the order of the keys.
pub(super) fn values(table: &Table, origins: &Origins) -> Vec<ConfigError> {
    let faults = |key: &'static Key| match lookup(table, key.path) {
        Some(value) => check_value(key, value, origins.get(key.path)),
        None if may_be_missing(key) => Vec::new(),
        None => vec![missing(key)],
    };
    KEYS.iter().flat_map(faults).collect()
}

/// Checks the values against each other.
pub(super) fn rules(config: &Config, origins: &Origins) -> Vec<ConfigError> {
    let rules = Rules { config, origins };
    let mut results = vec![rules.one_port_each(), rules.main_loop_timeout(), rules.probe_failure()];
    results.extend(rules.advertised());
    results.extend(rules.timings());
    results.extend(rules.tls());
    results.extend([rules.exposed("rpc.listen_addr"), rules.exposed("http.listen_addr")]);
    if config.store.is_etcd() {
        results.extend(rules.etcd(&config.store.etcd));
    }
    results.into_iter().filter_map(Result::err).collect()
}

/// What is allowed but probably not meant.
pub(super) fn warnings(config: &Config, origins: &Origins) -> Vec<String> {
    let mut warnings = Vec::new();
    let etcd = &config.store.etcd;
    let kind = config.store.kind;
    for place in StoreKind::ALL.into_iter().filter(|k| *k != kind).filter_map(|k| k.place(&config.store)) {
        let origin = origins.get(place);
        if *origin != Origin::Default {
            let (kind, why) = (kind.as_str(), origins.get("store.kind"));
            warnings
                .push(format!("{place} ({origin}) is not used, because store.kind is \"{kind}\" ({why})"));
        }
    }
    let urls = etcd.urls();
    if let Some(twice) = (1..urls.len()).find(|i| urls[..*i].contains(&urls[*i])) {
        warnings
            .push(format!("store.etcd.endpoints names {} twice: name each etcd member once", urls[twice]));
    }
    let plain = urls.iter().any(|url| url.starts_with("http://"));
    if config.store.is_etcd() && etcd.username.is_some() && plain {
        warnings
            .push("the etcd password travels unencrypted: use https:// in store.etcd.endpoints".to_owned());
    }
    if config.tls.cert_file.is_some() && config.auth.insecure {
        let insecure = origins.get("auth.insecure");
        warnings.push(format!("auth.insecure ({insecure}) has no effect, because tls.cert_file is set"));
    }
    let advertised = [
        (
            "node.advertise_addr (--advertise-addr)",
            &config.node.advertise_addr,
            "no other machine can reach this node",
        ),
        ("http.advertise_addr", &config.http.advertise_addr, "no browser can reach its page"),
    ];
    for (key, address, consequence) in advertised {
        if let Some(address) = address.as_deref().filter(|text| address::is_wildcard(text)) {
            let fix = "set it to a host:port of this machine";
            warnings.push(format!("{key} is {address}, where {consequence}: {fix}"));
        }
    }
    warnings
}

fn may_be_missing(key: &Key) -> bool {
    // The advertised address is not known yet while the port to listen on is 0.
    matches!(key.fallback, Fallback::Unset { .. }) || key.path == "node.advertise_addr"
}

/// A key that must have a value and has none; with [`super::load`], only a host name that cannot be read.
fn missing(key: &Key) -> ConfigError {
    ConfigError::Invalid {
        origin: Origin::Default,
        key: key.path,
        value: "\"\"".to_owned(),
        problem: "has no value, and the default cannot be determined".to_owned(),
        fix: format!("set {} or {}", key.flag_or_path(), key.env()),
    }
}

/// A list may have several faults, anything else one.
fn check_value(key: &'static Key, value: &Value, origin: &Origin) -> Vec<ConfigError> {
    if let (Kind::Endpoints, Value::Array(items)) = (key.kind, value) {
        let texts = items.iter().filter_map(Value::as_str).enumerate();
        return texts.filter_map(|(i, text)| check_endpoint(key, text, &origin.of_item(i)).err()).collect();
    }
    if let (Kind::Command, Value::Array(items)) = (key.kind, value) {
        return check_command(key, items, origin).err().into_iter().collect();
    }
    check_scalar(key, value, origin).err().into_iter().collect()
}

/// Empty arguments are allowed; a program without a name is not.
fn check_command(key: &'static Key, items: &[Value], origin: &Origin) -> Result<(), ConfigError> {
    let has_no_name = items.first().and_then(Value::as_str).is_some_and(str::is_empty);
    let has_nul = items.iter().filter_map(Value::as_str).any(|item| item.contains('\0'));
    let problem = match (has_no_name, has_nul) {
        (true, _) => "names no program",
        (_, true) => "contains a NUL character, which no argument can",
        (false, false) => return Ok(()),
    };
    Err(ConfigError::Invalid {
        origin: origin.clone(),
        key: key.path,
        value: value_text(&Value::Array(items.to_vec())),
        problem: problem.to_owned(),
        fix: format!("give {}, for example {}", key.expected(), origin.assignment(key, &key.example())),
    })
}

fn check_scalar(key: &'static Key, value: &Value, origin: &Origin) -> Result<(), ConfigError> {
    match (key.kind, value) {
        (Kind::Integer { min, max }, Value::Integer(number)) => check_range(key, *number, min..=max, origin),
        (Kind::Switch, Value::Boolean(_)) => Ok(()),
        (kind, Value::String(text)) => check_text(kind, text).map_err(|problem| {
            let host_name = key.path == "node.id" && *origin == Origin::Default;
            let problem =
                if host_name { format!("this is the host name, and it {problem}") } else { problem };
            let fix =
                format!("give {}, for example {}", key.expected(), origin.assignment(key, &key.example()));
            ConfigError::Invalid {
                origin: origin.clone(),
                key: key.path,
                value: value_text(value),
                problem,
                fix,
            }
        }),
        // The types were checked when the layers were read.
        (_, _) => Err(ConfigError::wrong_type(key, origin.clone(), value_text(value))),
    }
}

fn check_range(
    key: &'static Key,
    number: i64,
    range: std::ops::RangeInclusive<i64>,
    origin: &Origin,
) -> Result<(), ConfigError> {
    let unit = if key.unit.is_empty() { String::new() } else { format!(" {}", key.unit) };
    let problem = match number {
        _ if range.contains(&number) => return Ok(()),
        _ if number < *range.start() => format!("is below the minimum, {}{unit}", range.start()),
        _ => format!("is above the maximum, {}{unit}", range.end()),
    };
    let fix = format!("give {}, for example {}", key.expected(), origin.assignment(key, &key.example()));
    Err(ConfigError::Invalid {
        origin: origin.clone(),
        key: key.path,
        value: number.to_string(),
        problem,
        fix,
    })
}

/// The error completes the sentence "the value …".
fn check_text(kind: Kind, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("contains a control character, such as a newline".to_owned());
    }
    match kind {
        Kind::Name => check_name(text),
        Kind::Address => address::parse(text).map(|_| ()),
        Kind::Choice(words) if !words.contains(&text) => Err(format!("is not one of {}", words.join(", "))),
        Kind::Choice(_) | Kind::Switch | Kind::Text | Kind::Path | Kind::Integer { .. } => Ok(()),
        Kind::Endpoints | Kind::Command => Ok(()),
    }
}

/// Can a node or a cluster be called so? If not, why.
pub fn check_name(name: &str) -> Result<(), String> {
    if let Some(strange) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-'))
    {
        return Err(format!("contains the character `{strange}`"));
    }
    match name.len() {
        _ if name.starts_with(['.', '-']) => Err("begins with a dot or a dash".to_owned()),
        1..=63 => Ok(()),
        length => Err(format!("has {length} characters")),
    }
}

fn check_endpoint(key: &'static Key, endpoint: &str, origin: &Origin) -> Result<(), ConfigError> {
    let invalid = |origin, value: &str, problem: String, fix: &str| ConfigError::Invalid {
        origin,
        key: key.path,
        value: value_text(&Value::String(value.to_owned())),
        problem,
        fix: fix.to_owned(),
    };
    if let Some((_, host)) = endpoint.rsplit_once('@') {
        let fix =
            "leave the login out of the endpoint and set store.etcd.username and store.etcd.password_file";
        let problem = "contains a login".to_owned();
        return Err(invalid(origin.without_excerpt(), &format!("***@{host}"), problem, fix));
    }
    let fix = "write it as host:port, http://host:port or https://host:port, for example 10.0.0.1:2379";
    address::parse_endpoint(endpoint)
        .map(|_| ())
        .map_err(|problem| invalid(origin.clone(), endpoint, problem, fix))
}

// === impl Rules ===

impl Rules<'_> {
    fn one_port_each(&self) -> Result<(), ConfigError> {
        let (rpc, http) = (&self.config.rpc.listen_addr, &self.config.http.listen_addr);
        if rpc == http && address::port(rpc) != 0 {
            let fix = "give --http-addr (http.listen_addr) another port";
            return Err(self.invalid("http.listen_addr", "is also rpc.listen_addr", fix));
        }
        Ok(())
    }

    /// An address at which nobody listens cannot be advertised.
    fn advertised(&self) -> [Result<(), ConfigError>; 2] {
        let config = self.config;
        let judge = |key: &'static str, advertised: &Option<String>, listen: &str, who: &str| {
            let port = address::port(listen);
            match advertised {
                Some(advertised) if address::port(advertised) == 0 && port != 0 => {
                    let fix = format!("name the port that {who} connect to, for example {port}");
                    Err(self.invalid(key, "has port 0, to which no client can connect", &fix))
                }
                _ => Ok(()),
            }
        };
        [
            judge(
                "node.advertise_addr",
                &config.node.advertise_addr,
                &config.rpc.listen_addr,
                "other members",
            ),
            judge("http.advertise_addr", &config.http.advertise_addr, &config.http.listen_addr, "browsers"),
        ]
    }

    /// Nothing that is waited for may take longer than the lease it is waited under.
    fn timings(&self) -> [Result<(), ConfigError>; 2] {
        let lease_ms = self.config.meta.meta_leader_lease_secs.saturating_mul(1000);
        let (wait, wait_ms) = self.config.store.timeout();
        let tick_ms = self.config.meta.tick_interval_ms;
        [(wait, wait_ms), ("meta.tick_interval_ms", tick_ms)]
            .map(|(path, ms)| self.at_most(path, ms, lease_ms, "the lease"))
    }

    /// The built-in loop gives a sign of life each second; a busy machine may hold it up for a few.
    fn main_loop_timeout(&self) -> Result<(), ConfigError> {
        match self.config.meta.main_loop_timeout_secs {
            1..MAIN_LOOP_TIMEOUT_SECS_MIN => Err(self.invalid(
                "meta.main_loop_timeout_secs",
                &format!(
                    "is less than {MAIN_LOOP_TIMEOUT_SECS_MIN} seconds, so a busy machine would look hung"
                ),
                &format!("set it to {MAIN_LOOP_TIMEOUT_SECS_MIN} or more, or to 0 to switch it off"),
            )),
            _ => Ok(()),
        }
    }

    /// One probe alone must not be a failure, whatever it says.
    fn probe_failure(&self) -> Result<(), ConfigError> {
        let (failure, interval) = (self.config.meta.probe_failure_secs, self.config.meta.probe_interval_secs);
        if failure > interval {
            return Ok(());
        }
        let problem = format!(
            "is not more than meta.probe_interval_secs ({interval}), so that one failed probe would change the leader"
        );
        let fix = format!("set it to {} or more, or meta.probe_interval_secs lower", interval + 1);
        Err(self.invalid("meta.probe_failure_secs", &problem, &fix))
    }

    fn at_most(&self, path: &'static str, value: u64, most: u64, what: &str) -> Result<(), ConfigError> {
        if value <= most {
            return Ok(());
        }
        let lease = self.config.meta.meta_leader_lease_secs;
        let problem =
            format!("is more than {what} (meta.meta_leader_lease_secs = {lease}), {most} milliseconds");
        let fix = format!("set it to {most} or less, or raise meta.meta_leader_lease_secs");
        Err(self.invalid(path, &problem, &fix))
    }

    fn etcd(&self, etcd: &EtcdConfig) -> [Result<(), ConfigError>; 4] {
        let certificate = ("store.etcd.cert_file", etcd.cert_file.is_some());
        let key = ("store.etcd.key_file", etcd.key_file.is_some());
        let user = ("store.etcd.username", etcd.username.is_some());
        let password = ("store.etcd.password_file", etcd.password_file.is_some());
        [self.endpoints(etcd), self.pair(certificate, key), self.pair(user, password), self.etcd_tls(etcd)]
    }

    fn endpoints(&self, etcd: &EtcdConfig) -> Result<(), ConfigError> {
        if !etcd.endpoints.is_empty() {
            return Ok(());
        }
        let fix =
            "give --etcd-endpoints host:2379,… (store.etcd.endpoints), or --store sqlite on one machine";
        Err(self.invalid("store.kind", "needs etcd endpoints, but none are set", fix))
    }

    /// A member verifies the others by the CA, and they it by its certificate. A CA alone is for those that only call.
    fn tls(&self) -> [Result<(), ConfigError>; 2] {
        let tls = &self.config.tls;
        let cert = ("tls.cert_file", tls.cert_file.is_some());
        let needs_ca = match (&tls.cert_file, &tls.ca_file) {
            (Some(_), None) => self.pair(cert, ("tls.ca_file", false)),
            _ => Ok(()),
        };
        [needs_ca, self.pair(cert, ("tls.key_file", tls.key_file.is_some()))]
    }

    /// Whoever reaches a listener may do what the configuration does not keep for others.
    fn exposed(&self, path: &'static str) -> Result<(), ConfigError> {
        if self.config.auth.insecure || !self.config.plain_listeners().contains(&path) {
            return Ok(());
        }
        let problem =
            "can be reached from other machines, and without TLS any of them can make the leader step down";
        let fix = "set tls.ca_file, tls.cert_file and tls.key_file (metad tls init makes some for trying out), or \
                   auth.insecure = true in a network that you trust, or listen on 127.0.0.1";
        Err(self.invalid(path, problem, fix))
    }

    /// Two keys that are of use only together.
    fn pair(
        &self,
        (a, has_a): (&'static str, bool),
        (b, has_b): (&'static str, bool),
    ) -> Result<(), ConfigError> {
        let (set, unset) = match (has_a, has_b) {
            (true, false) => (a, b),
            (false, true) => (b, a),
            _ => return Ok(()),
        };
        let problem = format!("has no effect without {unset}");
        Err(self.invalid(set, &problem, &format!("set {unset} too, or leave both out")))
    }

    fn etcd_tls(&self, etcd: &EtcdConfig) -> Result<(), ConfigError> {
        let is_plain = |endpoint: &&String| address::parse_endpoint(endpoint) == Ok(Scheme::Http);
        let files = [("store.etcd.ca_file", &etcd.ca_file), ("store.etcd.cert_file", &etcd.cert_file)];
        let file = files.iter().find(|(_, file)| file.is_some());
        match (file, etcd.endpoints.iter().find(is_plain)) {
            (Some((path, _)), Some(endpoint)) => {
                let problem = format!("has no effect with the endpoint {endpoint}, which is not encrypted");
                Err(self.invalid(
                    path,
                    &problem,
                    &format!("write {endpoint} with https://, or leave {path} out"),
                ))
            }
            _ => Ok(()),
        }
    }

    fn invalid(&self, path: &'static str, problem: &str, fix: &str) -> ConfigError {
        let value = keys::find(path).and_then(|key| super::print::current(self.config, key));
        ConfigError::Invalid {
            origin: self.origins.get(path).clone(),
            key: path,
            value: value.unwrap_or_else(|| "(not set)".to_owned()),
            problem: problem.to_owned(),
            fix: fix.to_owned(),
        }
    }
}
