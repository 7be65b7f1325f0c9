//! `host:port` and etcd endpoints: what is wrong with one, in words. Nothing is resolved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host and a port, as they were written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address<'t> {
    /// A name, an IPv4 address, or an IPv6 address without its brackets.
    pub(super) host: &'t str,
    /// The port; may be 0.
    pub(super) port: u16,
}

/// How the scheme of an endpoint was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// None: https when a CA or certificate is configured, else http.
    Bare,
    Http,
    Https,
}

/// Splits `host:port`. The error completes the sentence "the value …".
pub(super) fn parse(text: &str) -> Result<Address<'_>, String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("contains a space or a control character".to_owned());
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or("has no closing bracket")?;
        host.parse::<Ipv6Addr>()
            .map_err(|_| format!("has `{host}` in brackets, which is not an IPv6 address"))?;
        (host, port.strip_prefix(':').ok_or("has no port")?)
    } else {
        let (host, port) = text.rsplit_once(':').ok_or("has no port")?;
        if host.contains(':') {
            return Err("has more than one colon; write an IPv6 address in brackets, [::1]:2379".to_owned());
        }
        check_host(host)?;
        (host, port)
    };
    Ok(Address { host, port: parse_port(port)? })
}

/// Takes an etcd endpoint apart; a slash may stand behind it. A port of 0 is refused: nothing can be reached there.
pub(super) fn parse_endpoint(text: &str) -> Result<Scheme, String> {
    let (scheme, rest) = match text.split_once("://") {
        None => (Scheme::Bare, text),
        Some(("http", rest)) => (Scheme::Http, rest),
        Some(("https", rest)) => (Scheme::Https, rest),
        Some((other, _)) => return Err(format!("has the scheme `{other}`, only http and https are known")),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err("must end after the port".to_owned());
    }
    match parse(rest)?.port {
        0 => Err("has port 0, which is not between 1 and 65535".to_owned()),
        _ => Ok(scheme),
    }
}

/// The port of an address; 0 also where there is none that can be read.
pub(super) fn port(text: &str) -> u16 {
    parse(text).map_or(0, |address| address.port)
}

/// Is it this machine alone that can connect there?
pub(super) fn is_loopback(text: &str) -> bool {
    parse(text).is_ok_and(|address| {
        let ip = address.host.parse::<IpAddr>();
        ip.map_or(address.host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback())
    })
}

/// Does this address mean "all interfaces", where nobody can connect to from another machine?
pub(super) fn is_wildcard(text: &str) -> bool {
    parse(text).is_ok_and(|address| matches!(address.host, "0.0.0.0" | "::"))
}

fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("has no host before the colon".to_owned());
    }
    if let Some(strange) = host.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_'))
    {
        return Err(format!("has the character `{strange}` in its host name"));
    }
    // A name of digits and dots is meant as an IPv4 address, and a resolver would only time out on it.
    if host.chars().all(|c| c.is_ascii_digit() || c == '.') && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("has the host `{host}`, which is not an IPv4 address"));
    }
    Ok(())
}

fn parse_port(port: &str) -> Result<u16, String> {
    if port.is_empty() {
        return Err("has no port".to_owned());
    }
    if !port.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!("has the port `{port}`, which is not a number"));
    }
    port.parse().map_err(|_| format!("has port {port}, which is not between 1 and 65535"))
}
