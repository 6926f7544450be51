//! Targets of the fuzzer: addresses as libzmq gets them, and lists of keys.

use super::endpoint::{Endpoint, Role};
use super::key::listed;
use crate::error::ErrorKind;

/// An address, which the option `publishers` takes if it `is_listed`: then it is not refused here, and what libzmq gets
/// is an address too.
pub(crate) fn address(text: &str, is_listed: bool) {
    match Endpoint::parse(text) {
        Ok(endpoint) => {
            let again = Endpoint::parse(endpoint.uri()).expect("it is one");
            assert_eq!(again.uri(), endpoint.uri());
            assert!(endpoint.key().is_none() || endpoint.is_tcp());
            for role in [Role::Bind, Role::Connect] {
                assert!(
                    endpoint
                        .host(role)
                        .is_none_or(|(host, _)| !host.is_empty() && endpoint.is_tcp())
                );
            }
        }
        Err(e) => {
            let scheme = text.trim_start_matches(['@', '>']).split("://").next();
            let is_known = matches!(scheme, Some("tcp" | "ipc" | "inproc"));
            // What is expanded may be too long before it is.
            let is_refused = is_listed && is_known && !text.contains(['$', '~']);
            assert!(!is_refused || e.kind() == ErrorKind::Unsupported, "{e}");
        }
    }
}

/// The list of the clients that are let in: what is read of it is a list too, one key a line or as certificates.
pub(crate) fn keys(text: &[u8]) {
    let Some(keys) = str::from_utf8(text).ok().and_then(|text| listed(text).ok()) else {
        return;
    };
    let lines: String = keys.iter().map(|key| format!("{key}\n")).collect();
    assert_eq!(listed(&lines).as_ref(), Ok(&keys));
    let certificates: String = keys
        .iter()
        .map(|key| format!("curve\n    public-key = \"{key}\"\n"))
        .collect();
    assert_eq!(listed(&certificates), Ok(keys));
}
