//! Addresses, and the socket of the publisher service.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tablecast::ErrorKind;
use tablecast::config::{Config, Source, Transport};

use crate::assert_error;

#[test]
fn publish_and_listen_addresses() {
    let cases = [
        ("tcp", "127.0.0.1", "tcp://127.0.0.1:8866", "tcp://127.0.0.1:8866"),
        ("tcp", "*", "tcp://*:8866", "tcp://127.0.0.1:8866"),
        ("tcp", "0.0.0.0", "tcp://0.0.0.0:8866", "tcp://127.0.0.1:8866"),
        ("tcp", "::1", "tcp://[::1]:8866", "tcp://[::1]:8866"),
        ("tcp", "[::1]", "tcp://[::1]:8866", "tcp://[::1]:8866"),
        ("tcp", "::", "tcp://[::]:8866", "tcp://[::1]:8866"),
        (
            "tcp",
            "fe80::1%eth0",
            "tcp://[fe80::1%eth0]:8866",
            "tcp://[fe80::1%eth0]:8866",
        ),
        (
            "tcp",
            "host-1.example",
            "tcp://host-1.example:8866",
            "tcp://host-1.example:8866",
        ),
        ("tcp", "br_ex.100", "tcp://br_ex.100:8866", "tcp://br_ex.100:8866"),
        ("ipc", "/run/x.sock", "ipc:///run/x.sock", "ipc:///run/x.sock"),
        ("inproc", "x", "inproc://x", "inproc://x"),
        (
            "epgm",
            "eth0;239.192.1.1",
            "epgm://eth0;239.192.1.1:8866",
            "epgm://eth0;239.192.1.1:8866",
        ),
    ];
    for (transport, address, publish, listen) in cases {
        let mut config = Config::default();
        config.set("publisher_transport", transport, Source::Program).unwrap();
        config.set("publisher_bind_address", address, Source::Program).unwrap();
        config.validate().unwrap();
        assert_eq!(config.publish_address().unwrap(), publish);
        assert_eq!(config.listen_addresses().unwrap(), [listen]);
        config.publishers = vec!["tcp://other:1".into()];
        assert_eq!(config.listen_addresses().unwrap(), ["tcp://other:1"]);
    }
    for (transport, address) in [
        (Transport::Tcp, "localhost:8866"),
        (Transport::Tcp, "::g"),
        (Transport::Tcp, "[::1"),
        (Transport::Tcp, "a b"),
        (Transport::Ipc, "127.0.0.1"),
        (Transport::Epgm, "*"),
    ] {
        let mut config = Config::default();
        config.publisher_transport = transport;
        config.publisher_bind_address = address.into();
        assert_error(
            config.validate(),
            &["publisher_bind_address", transport.as_str(), &format!("{address:?}")],
        );
    }
}

#[test]
fn an_address_of_sentinels_is_one_however_it_is_given() {
    let address = "redis-sentinel://me:secret@h1:26379,h2:26379/mymaster";
    let given = [
        format!("remote_db_hosts = ['{address}']"),
        "remote_db_hosts = ['redis-sentinel://me:secret@h1:26379', 'h2:26379/mymaster']".to_owned(),
    ];
    for text in given {
        let config = Config::from_toml(&text, "x.toml").unwrap();
        config.validate().unwrap();
        assert_eq!(config.redis_address(), address);
    }
    let mut config = Config::default();
    config.set("remote_db_hosts", address, Source::Flag).unwrap();
    config.set("redis_tls", "true", Source::Flag).unwrap();
    assert_eq!(config.redis_address(), address);
    let shown = config.get("remote_db_hosts").unwrap();
    assert_eq!(shown, "redis-sentinel://***@h1:26379,h2:26379/mymaster");
    assert!(!format!("{config:?}").contains(":secret"));
}

/// Checked with the other options, not when the store is first used.
#[test]
fn a_list_of_redis_hosts_has_one_meaning() {
    let config = |hosts: &[&str]| {
        let mut config = Config::default();
        config.remote_db_hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        config
    };
    for (hosts, address) in [
        (&["h1", "h2:2"][..], "redis://h1,h2:2"),
        (
            &["redis://:hunter2@h1:1", "redis://:hunter2@h2:2"],
            "redis://:hunter2@h1:1,h2:2",
        ),
        (
            &["redis://u:hunter2@h1/3", "redis://u:hunter2@h2", "h3/3"],
            "redis://u:hunter2@h1,h2,h3/3",
        ),
        (
            &["rediss-sentinel://h1/m", "rediss-sentinel://h2/m/0"],
            "rediss-sentinel://h1,h2/m",
        ),
        (&["redis://:hunter2@h1", "h2/3"], "redis://:hunter2@h1,h2/3"),
    ] {
        let config = config(hosts);
        config.validate().unwrap_or_else(|e| panic!("{hosts:?}: {e}"));
        assert_eq!(config.redis_address(), address);
    }
    for (hosts, expected) in [
        (&["h1:1", "redis://:hunter2@h2:2"][..], "a scheme first"),
        (&["redis://:hunter2@h1", "redis://:hunter3@h2"], "one scheme, user"),
        (&["redis://:hunter2@h1", "redis://h2"], "one scheme, user"),
        (&["redis://:hunter2@h1", "rediss://:hunter2@h2"], "one scheme"),
        (&["redis://h1", "redis-sentinel://h2/m"], "one scheme"),
        (&["redis-sentinel://h1/m", "redis-sentinel://h2/n"], "in their hosts"),
        (&["unix:///a", "unix:///b"], "in their hosts"),
        (&["redis://h1/1", "redis://h2/2"], "database"),
        (&["redis://:hunter2@h/2?protocol=3"], "no parameters"),
        (&["redis://:hunter2@h/2/"], "the number of a database"),
        (&["redis://:hunter2@h1/2", "h2"], "the number of a database"),
        (&["redis-sentinel://h1"], "the name of the master"),
        (&["unix:///r.sock?db=3&password=hunter2"], "?db=N"),
        (&["unix:///r.sock?password=hunter2"], "?db=N"),
        (&["unix:///$NOWHERE/r.sock"], "NOWHERE is not set"),
        (&["unix://:hunter2@~nobody/r.sock"], "~ stands for"),
    ] {
        let error = config(hosts).validate().unwrap_err();
        assert!(!error.to_string().contains("hunter"), "{error}");
        assert_error(Err::<(), _>(error), &["remote_db_hosts", expected]);
    }
    let mut config = config(&[]);
    config.validate().unwrap();
    config.nb_db_class = "redis".into();
    assert_error(config.validate(), &["remote_db_hosts", "hosts"]);
    let mut config = Config::default();
    config.pub_sub_driver = "redis".into();
    config.publishers = vec!["redis://:hunter2@h1/x".into()];
    let error = config.validate().unwrap_err();
    assert!(!error.to_string().contains("hunter"), "{error}");
    assert_error(Err::<(), _>(error), &["publishers", "the number of a database"]);
}

/// A part of an address is not taken for an address, and no error shows what may be a part of a password.
#[test]
fn a_password_is_never_shown() {
    let mut config = Config::default();
    for hosts in [
        "me:hunter2@db1:6379",
        "db1,me:hunter2@db2",
        "redis://me:hunter2,x@db1",
        "redis://me:x,hunter2@db1",
        "redis://me:hunter2,@db1",
        "redis://me:hunter2@db1:x",
        "redis://me:hunter2@db1,redis://me:hunter2:x@",
        "redis://db1?password=hunter2",
        "redis://db1?password=x,hunter2",
        "db1,Redis://me:hunter2@db1",
    ] {
        let error = config
            .set("remote_db_hosts", hosts, Source::Flag)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--remote-db-hosts") && !error.contains("hunter2"),
            "{error}"
        );
    }
    config.publishers = vec!["tcp://a:1".into(), "@tcp://*:2".into(), "redis://:hunter2@h".into()];
    assert_eq!(config.get("publishers").unwrap(), "tcp://a:1,@tcp://*:2,redis://***@h");
    assert!(!format!("{config:?}").contains("hunter2"));
    for (address, shown) in [
        ("redis://h?password=hunter2", "redis://h?***"),
        ("redis://h?x=hunter2@hunter2", "redis://***"),
        ("redis://me:hunter2@h?x=hunter2", "redis://***@h?***"),
        ("unix:///r?db=3", "unix:///r?db=3"),
        ("unix:///r?db=3&password=hunter2", "unix:///r?***"),
        ("Redis://:hunter2@h", "Redis://***@h"),
        ("my_redis://:hunter2@h", "my_redis://***@h"),
        ("ipc:///a?b=c", "ipc:///a?b=c"),
    ] {
        config.publishers = vec!["tcp://a:1".into(), address.into(), "@tcp://*:2".into()];
        assert_eq!(
            config.get("publishers").unwrap(),
            format!("tcp://a:1,{shown},@tcp://*:2")
        );
        let debug = format!("{config:?}");
        assert!(
            debug.contains(&format!("{:?}", ["tcp://a:1", shown, "@tcp://*:2"])),
            "{debug}"
        );
    }
    for wrong in ["Redis://:hunter2@h", "redis://:x,hunter2@h", "redis://:hunter2 @h"] {
        let error = config.set("publishers", wrong, Source::Flag).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    config.publishers.clear();
    config.publisher_bind_address = "redis://:hunter2@h".into();
    let error = config.validate().unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn paths_in_addresses_are_expanded() {
    let home = std::env::var("HOME").unwrap();
    let mut config = Config::default();
    config
        .set("publishers", "ipc://~/x.sock,@ipc:///y,ipc://$HOME/z", Source::Flag)
        .unwrap();
    let expected = [
        format!("ipc://{home}/x.sock"),
        "@ipc:///y".into(),
        format!("ipc://{home}/z"),
    ];
    assert_eq!(config.listen_addresses().unwrap(), expected);
    config.publishers.clear();
    config.publisher_transport = Transport::Ipc;
    config.publisher_bind_address = "${HOME}/x.sock".into();
    assert_eq!(config.publish_address().unwrap(), expected[0]);
    assert_eq!(config.listen_addresses().unwrap(), [&*expected[0]]);
    let error = config.set("publishers", "ipc://$NOWHERE/x", Source::Flag);
    assert_error(error, &["--publishers", "$NAME", "$NOWHERE"]);
    config.publisher_bind_address = "~nobody/x.sock".into();
    assert_error(config.validate(), &["publisher_bind_address", "$NAME", "~nobody"]);
}

#[test]
fn port_0_can_be_bound_but_not_listened_to() {
    let mut config = Config::default();
    config.publisher_port = 0;
    config.validate().unwrap();
    assert_eq!(config.publish_address().unwrap(), "tcp://127.0.0.1:0");
    assert_error(config.listen_addresses(), &["publishers", "publisher_port is 0"]);
}

#[test]
fn listen_addresses_are_checked() {
    let mut config = Config::default();
    let long = format!("ipc://{}", "x".repeat(108));
    for uri in [
        "tcp://a",
        "tcp://a:0",
        "tcp://a:65536",
        "tcp://a:+1",
        "tcp://:1",
        "tcp://*:1",
        "tcp://::1:1",
        "tcp://[a]:1",
        "a:1",
        "://a:1",
        "Udp://a:1",
        "two words://a",
        "inproc://",
        "inproc://a\0",
        "ipc://",
        "redis://a b",
        "@@tcp://a:1",
        "",
        &long,
    ] {
        let list = format!("tcp://good:1,{uri}");
        assert_error(
            config.set("publishers", &list, Source::Flag),
            &["--publishers", "tcp://host:port", &format!("got {uri:?}")],
        );
    }
}

#[test]
fn listen_addresses_may_have_keys() {
    let key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
    let address = format!("tcp://host1:8866?key={key}");
    let mut config = Config::default();
    config.set("publishers", &address, Source::Flag).unwrap();
    assert_eq!(config.publishers, [address.as_str()]);
    // A public key is shown as it is, a password is not.
    assert_eq!(config.get("publishers").unwrap(), address);
    let password = format!("tcp://user:secret@host1:8866?key={key}");
    for wrong in [&address[..address.len() - 1], &address.replace('?', "/?"), &password] {
        let error = config.set("publishers", wrong, Source::Flag).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert_error(Err::<(), _>(error), &["--publishers", "tcp://host:port?key=public key"]);
    }
    config.set("curve_server_key", key, Source::Program).unwrap();
    assert_error(
        config.set("curve_server_key", "short", Source::Flag),
        &["--curve-server-key", "40 characters", "short"],
    );
    config.curve_allowed_clients = "clients".into();
    assert_error(config.validate(), &["curve_allowed_clients", "curve_secret_key_file"]);
}

#[test]
fn the_path_of_the_socket_has_a_limit() {
    let mut config = Config::default();
    let mut set = |path: &str| {
        config
            .set("publisher_multiproc_socket", path, Source::Flag)
            .map(|()| config.clone())
    };
    assert_eq!(
        set("ipc:///run/x").unwrap().publisher_multiproc_socket,
        PathBuf::from("/run/x")
    );
    let longest = format!("/{}", "x".repeat(106));
    assert_eq!(
        set(&longest).unwrap().publisher_multiproc_socket,
        PathBuf::from(&longest)
    );
    for path in [&format!("{longest}x"), "", "@abstract", "*"] {
        assert_error(
            set(path),
            &["--publisher-multiproc-socket", "107 bytes", &format!("{path:?}")],
        );
    }
}

#[test]
fn the_mode_and_group_of_the_socket_are_checked() {
    let mut config = Config::default();
    let (mode, group) = ("publisher_multiproc_socket_mode", "publisher_multiproc_socket_group");
    for (option, good) in [
        (mode, ["", "0", "0660", "777"]),
        (group, ["", "0", "4294967294", "my group"]),
    ] {
        for text in good {
            config.set(option, text, Source::Flag).unwrap();
        }
    }
    for (option, bad, expected) in [
        (
            mode,
            ["1000", "0o660", "rw-rw----", "-1"],
            "an octal number from 0 to 777",
        ),
        (
            group,
            ["4294967295", "99999999999", "a:b", "a\nb"],
            "the name or number of a group",
        ),
    ] {
        for text in bad {
            let flag = option.replace('_', "-");
            assert_error(
                config.set(option, text, Source::Flag),
                &[&flag, expected, &format!("{text:?}")],
            );
        }
    }
}

#[test]
fn the_folder_of_the_socket_is_checked() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a/b");
    let mut config = Config::default();
    config.publisher_multiproc_socket = folder.join("x.sock");

    let assert_fails = |config: &Config, create, folder: &Path, what: &str| {
        let error = config.check_socket_folder(create).unwrap_err();
        // Root has every right.
        assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Denied), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(what) && text.contains(&folder.display().to_string()),
            "{text}"
        );
    };
    assert_fails(&config, false, &folder, "does not exist");
    config.check_socket_folder(true).unwrap();
    config.check_socket_folder(true).unwrap();
    config.check_socket_folder(false).unwrap();
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(folder.read_dir().unwrap().count(), 0);

    let file = folder.join("file");
    std::fs::write(&file, "").unwrap();
    config.publisher_multiproc_socket = file.join("x.sock");
    assert_fails(&config, false, &file, "is not a folder");
    assert_fails(&config, true, &file, "cannot be made");
    if cfg!(target_os = "linux") {
        config.publisher_multiproc_socket = "/proc/x.sock".into();
        assert_fails(&config, false, Path::new("/proc"), "is not writable");
    }
}
