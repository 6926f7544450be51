//! Files of keys.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tablecast::drivers::zmq::{KeyPair, ZmqDriver, ZmqOptions};
use tablecast::{ErrorKind, Result};

use crate::LIMIT;
use crate::common::within;
use crate::process::{assert_fails, python, run, tablecast};

fn driver(pair: &Path, clients: &Path) -> Result<ZmqDriver> {
    let options = ZmqOptions {
        curve_secret_key_file: pair.to_owned(),
        curve_allowed_clients: clients.to_owned(),
        ..ZmqOptions::default()
    };
    ZmqDriver::new("tcp://127.0.0.1:0", options)
}

/// Prints the keys of a certificate, as pyzmq reads them.
const LOAD: &str = "
import sys, zmq.auth
for key in zmq.auth.load_certificate(sys.argv[1]):
    print(key.decode() if key else None)
";

#[test]
fn keygen_writes_what_pyzmq_reads() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let (secret, public) = (folder.path().join("pair"), folder.path().join("pair.pub"));
        let keygen = || run(tablecast(["keygen", "--output", secret.to_str().unwrap()]));
        let made = keygen();
        assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""));
        let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&secret), 0o600);
        let before = fs::read_to_string(&secret).unwrap();
        let loaded = |file: &Path| run(python(LOAD, file.to_str().unwrap())).stdout;
        let pair = loaded(&secret);
        assert_eq!(pair.len(), 2, "{pair:?}");
        assert_eq!([&made.stdout[..], &["None".into()]].concat(), loaded(&public));
        assert_eq!((&made.stdout[0], pair[1].len()), (&pair[0], 40));
        assert_ne!(pair[0], pair[1]);

        assert_fails(&keygen(), 1, &["pair exists already"]);
        fs::remove_file(&secret).unwrap();
        assert_fails(&keygen(), 1, &["pair.pub exists already"]);
        assert!(!secret.exists());
        fs::write(&secret, &before).unwrap();

        let shown = before
            .lines()
            .find_map(|line| line.split_once("secret-key = "))
            .unwrap()
            .1;
        let shown = shown.trim_matches('"');
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        let driver = driver(&secret, &public).unwrap();
        assert!(before.contains(shown) && !format!("{driver:?}").contains(shown));
    });
}

#[test]
fn pairs_that_others_can_read_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pair");
    KeyPair::generate().unwrap().save(&file).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let error = driver(&file, Path::new("")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        for text in ["curve_secret_key_file", "pair", &format!("{mode:o}"), "600"] {
            assert!(error.to_string().contains(text), "{error}");
        }
    }
    fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
    driver(&file, Path::new("")).unwrap();
}

#[test]
fn errors_name_the_option_and_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let pair = KeyPair::generate().unwrap();
    pair.save(&at("pair")).unwrap();
    fs::write(at("clients"), format!("# a comment\n\n{}\nno key\n", pair.public())).unwrap();
    fs::write(at("half"), fs::read(at("pair.pub")).unwrap()).unwrap();
    fs::set_permissions(at("half"), Permissions::from_mode(0o600)).unwrap();
    let none = Path::new("");
    for (pair, clients, named) in [
        (&*at("missing"), none, ["curve_secret_key_file", "missing"]),
        (&*at("half"), none, ["curve_secret_key_file", "tablecast keygen"]),
        (&*at("pair"), &*at("absent"), ["curve_allowed_clients", "absent"]),
        (
            &*at("pair"),
            &*at("clients"),
            ["curve_allowed_clients", "clients, line 4: not a public key"],
        ),
        (
            none,
            &*at("clients"),
            ["curve_allowed_clients", "curve_secret_key_file"],
        ),
    ] {
        let error = driver(pair, clients).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        for text in named {
            assert!(error.to_string().contains(text), "{error}");
        }
    }
    // A certificate, a list, and a folder of both.
    fs::write(at("clients"), format!("{} \n", pair.public())).unwrap();
    for clients in ["pair.pub", "clients"] {
        driver(&at("pair"), &at(clients)).unwrap();
    }
    driver(&at("pair"), folder.path()).unwrap();
}
