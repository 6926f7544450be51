//! Addresses as they are written: their forms, and how errors show them.

use std::net::Ipv6Addr;

use super::socket;
use crate::words::words;

/// Transport of the network driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Transport {
    /// TCP; the default.
    #[default]
    Tcp,
    /// Sockets of the file system, within one host.
    Ipc,
    /// Within one process.
    Inproc,
    /// Multicast: Pragmatic General Multicast, encapsulated in UDP.
    Epgm,
}

words!(Transport of "transport": Tcp "tcp", Ipc "ipc", Inproc "inproc", Epgm "epgm");

/// True if `uri` is a listen address; as in CZMQ, a leading `@` means to bind it and `>` to connect to it.
pub(super) fn is_uri(uri: &str) -> bool {
    let (binds, uri) = match uri.strip_prefix('@') {
        Some(uri) => (true, uri),
        None => (false, uri.strip_prefix('>').unwrap_or(uri)),
    };
    let Some((scheme, rest)) = uri.split_once("://") else {
        return false;
    };
    match scheme {
        "tcp" => {
            let (rest, key) = split_key(uri);
            if key.is_some_and(|key| !is_curve_key(key)) {
                return false;
            }
            let rest = rest.strip_prefix("tcp://").unwrap_or_default();
            let any_host = rest.strip_prefix("*:").filter(|_| binds);
            any_host.map_or_else(|| is_host_port(rest), is_port)
        }
        "ipc" => socket::expanded(rest).is_some(),
        // The driver checks the rest: it may be the program's own.
        _ => is_scheme(scheme) && !rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || c.is_control()),
    }
}

/// The mark of the publisher's public key in an address.
const KEY: &str = "?key=";

/// A TCP address and the public key behind it, if any.
pub(crate) fn split_key(uri: &str) -> (&str, Option<&str>) {
    let has_key = uri.trim_start_matches(['@', '>']).starts_with("tcp://");
    let parts = uri.split_once(KEY).filter(|_| has_key);
    parts.map_or((uri, None), |(uri, key)| (uri, Some(key)))
}

/// The address with this public key behind it.
pub(crate) fn join_key(uri: &str, key: &str) -> String {
    format!("{uri}{KEY}{key}")
}

/// True if `text` can be a key of CURVE: 40 characters of Z85.
pub(crate) fn is_curve_key(text: &str) -> bool {
    text.len() == 40
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-:+=^!/*?&<>()[]{}@%$#".contains(&b))
}

/// True if `text` is a key of CURVE, or nothing.
pub(super) fn is_curve_key_or_empty(text: &str) -> bool {
    text.is_empty() || is_curve_key(text)
}

/// The address, expanded if it is a path.
pub(super) fn expanded(uri: &str) -> String {
    let parts = uri.split_once("://");
    let ipc = parts.filter(|(scheme, _)| scheme.trim_start_matches(['@', '>']) == "ipc");
    let expanded = ipc.and_then(|(scheme, path)| Some((scheme, socket::expanded(path)?)));
    expanded.map_or_else(
        || uri.to_owned(),
        |(scheme, path)| format!("{scheme}://{}", path.display()),
    )
}

fn is_scheme(text: &str) -> bool {
    let is_of_scheme = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    text.bytes().next().is_some_and(|first| first.is_ascii_lowercase()) && text.bytes().all(is_of_scheme)
}

/// True if `text`, an item of a list, names one or several Redis servers; the driver checks the rest. User and password
/// need a scheme before them.
pub(super) fn is_redis(text: &str) -> bool {
    let (scheme, rest) = match text.split_once("://") {
        None if text.contains('@') => return false,
        parts => parts.unwrap_or(("redis", text)),
    };
    let hosts = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
    match scheme {
        // Whether it can be expanded is checked with the rest.
        "unix" => hosts.starts_with(['/', '~', '$']),
        "redis" | "rediss" | "valkey" | "valkeys" | "redis-sentinel" | "rediss-sentinel" => {
            let host = hosts.split_once('/').map_or(hosts, |(host, _)| host);
            is_host(host)
        }
        _ => false,
    }
}

/// An address as errors show it: without its password, and not at all if that cannot be told apart.
pub(crate) fn shown(address: &str) -> String {
    let public = without_password(address);
    let may_hide = address.trim_start_matches(['@', '>']).contains(['@', '?']);
    match may_hide && public == address && split_key(address).1.is_none() {
        true => "*** (hidden, since it may hold a password)".into(),
        false => public,
    }
}

/// The text, with three stars in place of everything before the last `@` of each address in it, and of parameters that
/// may be passwords. The `@` that says that an address is bound stays.
pub(super) fn without_password(text: &str) -> String {
    let found = text.match_indices("://");
    let found = found.filter_map(|(at, colon)| Some((begin(text.get(..at)?)?, at + colon.len())));
    let (mut shown, mut from, mut scheme) = (String::new(), 0, "");
    for (address, host) in found.chain([(text.len(), text.len())]) {
        let before = text.get(from..address).unwrap_or_default();
        match from {
            0 => shown.push_str(before),
            _ => shown.push_str(&public(scheme, before)),
        }
        scheme = text.get(address..host).unwrap_or_default();
        shown.push_str(scheme);
        from = host;
    }
    shown
}

/// What may be shown of the text between the scheme of an address and the next address, or the end of a list.
fn public(scheme: &str, rest: &str) -> String {
    // A public key may contain an @.
    let key = rest.split_once(KEY).filter(|_| scheme.ends_with("tcp://"));
    if key.is_some_and(|(host, _)| !host.contains('@')) {
        return rest.to_owned();
    }
    let ends = ["\", \"", "\"]", "\"", ",", " "];
    let end = ends.into_iter().find(|end| rest.ends_with(end)).unwrap_or_default();
    let address = rest.strip_suffix(end).unwrap_or_default();
    let (place, query) = address.split_at(address.find('?').unwrap_or(address.len()));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_public = scheme.ends_with("ipc://") || query.strip_prefix("?db=").is_some_and(is_number);
    match place.rsplit_once('@') {
        _ if query.contains('@') => format!("***{end}"),
        _ if query.contains('=') && !is_public => format!("{}?***{end}", public(scheme, place)),
        Some((_, place)) => format!("***@{place}{query}{end}"),
        None => rest.to_owned(),
    }
}

/// Where the address begins that goes on with `://` behind this text.
fn begin(text: &str) -> Option<usize> {
    let before = text.trim_end_matches(|c: char| !", \"@>:/".contains(c));
    let has_scheme = before.len() < text.len();
    let before = before.strip_suffix(['@', '>']).unwrap_or(before);
    let is_begin = before.is_empty() || before.ends_with([',', ' ', '"']);
    (has_scheme && is_begin).then_some(before.len())
}

/// True if `text` is a host, with or without a port.
pub(super) fn is_host(text: &str) -> bool {
    is_host_port(text) || is_name(text) || is_bracketed(text)
}

/// True if `text` is `host:port`, where the host is a name, an IPv4 address, or an IPv6 address in brackets.
pub(crate) fn is_host_port(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    parts.is_some_and(|(host, port)| (is_name(host) || is_bracketed(host)) && is_port(port))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A host name, an IPv4 address, or an interface.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

/// An IPv6 address, optionally with a zone, such as `fe80::1%eth0`.
pub(super) fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').unwrap_or((text, "lo"));
    address.parse::<Ipv6Addr>().is_ok() && is_name(zone)
}

pub(super) fn is_bracketed(text: &str) -> bool {
    text.strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .is_some_and(is_ipv6)
}
