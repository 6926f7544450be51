//! A libzmq without CURVE: what asks for keys fails at the start.

use std::path::PathBuf;

use tablecast::ErrorKind;
use tablecast::drivers::zmq::{KeyPair, ZmqDriver, ZmqOptions};
use tablecast::transport::Driver;

use crate::LIMIT;
use crate::common::within;
use crate::process::{assert_fails, run, tablecast};

const KEY: &str = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";

#[test]
fn options_are_refused() {
    let pair = ZmqOptions {
        curve_secret_key_file: PathBuf::from("no such file"),
        ..ZmqOptions::default()
    };
    let server = ZmqOptions {
        curve_server_key: KEY.into(),
        ..ZmqOptions::default()
    };
    for (options, name) in [(pair, "curve_secret_key_file"), (server, "curve_server_key")] {
        let error = ZmqDriver::new("tcp://127.0.0.1:0", options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        for text in [name, "built without CURVE", "`operating`"] {
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}

#[test]
fn keys_of_addresses_are_refused() {
    let driver = ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap();
    let address = format!("tcp://127.0.0.1:1?key={KEY}");
    let error = driver.check_address(&address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("built without CURVE"), "{error}");
    assert_eq!(
        driver.check_address("tcp://127.0.0.1:1?key=short").unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn commands_fail_at_the_start() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pair");
        let file = file.to_str().unwrap();
        let address = format!("tcp://127.0.0.1:1?key={KEY}");
        let commands: [(&[&str], &str); 4] = [
            (
                &["service", "--curve-secret-key-file", file],
                "unsupported: option curve_secret_key_file",
            ),
            (&["watch", "--curve-server-key", KEY], "curve_server_key"),
            (&["watch", "--publisher", &address], "?key="),
            (&["keygen", "--output", file], "cannot make keys"),
        ];
        for (command, named) in commands {
            assert_fails(
                &run(tablecast(command)),
                1,
                &[named, "built without CURVE", "`operating`"],
            );
        }
        assert!(!std::fs::exists(file).unwrap());
        assert_eq!(KeyPair::generate().unwrap_err().kind(), ErrorKind::Unsupported);
    });
}
