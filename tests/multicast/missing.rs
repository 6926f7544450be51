//! A libzmq without PGM: what asks for multicast fails at the start.

use tablecast::ErrorKind;
use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::transport::Driver;

use crate::LIMIT;
use crate::common::within;
use crate::process::{assert_fails, run, tablecast};

const ADDRESS: &str = "epgm://lo;239.192.1.1:8866";

#[test]
fn addresses_are_refused() {
    let driver = ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap();
    let errors = [
        ZmqDriver::new(ADDRESS, ZmqOptions::default()).unwrap_err(),
        driver.check_address(ADDRESS).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        for text in [ADDRESS, "built without PGM", "`operating`"] {
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}

#[test]
fn commands_fail_at_the_start() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("publisher.sock");
        let socket = socket.to_str().unwrap();
        let bound = [
            "--publisher-transport",
            "epgm",
            "--publisher-bind-address",
            "lo;239.192.1.1",
        ];
        let mut service = tablecast(["service", "--publisher-multiproc-socket", socket]);
        service.args(bound);
        let mut publish = tablecast(["publish", "--no-multiproc", "--table", "t", "--key", "k"]);
        publish.args(bound);
        for command in [service, publish, tablecast(["watch", "--publisher", ADDRESS])] {
            assert_fails(&run(command), 1, &[ADDRESS, "built without PGM", "`operating`"]);
        }
    });
}
