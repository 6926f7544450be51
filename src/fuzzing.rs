//! The targets of the fuzzer in the folder `fuzz`; no part of the library as it is published.
//!
//! A target takes any bytes and panics if a promise does not hold: nothing panics, what is written is read, what is
//! refused leaves nothing behind, and memory is bounded.

use crate::{codec, config, drivers, listener, metrics, redis, registry, stores, subscriber};

macro_rules! targets {
    ($($(#[$doc:meta])* $name:ident: $target:expr;)+) => {
        $($(#[$doc])* pub fn $name(data: &[u8]) {
            $target(data);
        })+

        #[cfg(test)]
        const TARGETS: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name)),+];
    };
}

targets! {
    /// A payload, in any format.
    decode: codec::fuzzing::decode;
    /// The text of a hello.
    hello: codec::fuzzing::hello;
    /// A subscriber's session under any history.
    session: subscriber::fuzz;
    /// The messages about status updates.
    status: listener::fuzzing::message;
    /// The input of a connection to Redis.
    replies: redis::fuzzing::replies;
    /// Replies of the store `redis`, its rows, and members in them.
    stored: read_stored;
    /// Addresses, of ZeroMQ, Redis and Sentinels.
    addresses: read_address;
    /// Options, from a file, the environment and flags.
    options: config::fuzzing::options;
    /// Lists of the keys of clients.
    keys: drivers::zmq::fuzzing::keys;
    /// Requests for the metrics.
    request: metrics::fuzzing::request;
}

fn read_stored(bytes: &[u8]) {
    if let Some(row) = stores::redis::fuzzing::stored(bytes) {
        let _ = registry::Member::from_row(&row);
    }
}

fn read_address(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    let is_listed = config::fuzzing::address(text);
    drivers::zmq::fuzzing::address(text, is_listed);
    redis::fuzzing::address(text);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The inputs of the corpus, which have reached everything that the fuzzer has found.
    #[test]
    fn every_promise_holds_for_the_corpus() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        if !corpus.exists() {
            println!("skipped: a published package has no corpus");
            return;
        }
        for (name, target) in TARGETS {
            let inputs = fs::read_dir(corpus.join(name)).unwrap();
            let mut inputs: Vec<_> = inputs.map(|input| input.unwrap().path()).collect();
            inputs.sort();
            assert!(!inputs.is_empty(), "{name}");
            for input in inputs {
                println!("{}", input.display());
                target(&fs::read(input).unwrap());
            }
        }
        assert_eq!(fs::read_dir(corpus).unwrap().count(), TARGETS.len());
    }
}
