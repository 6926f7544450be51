//! Options: their sources, their values, and the text of errors.

mod addresses;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tablecast::config::{Config, OptionDoc, Source};
use tablecast::{ErrorKind, Result};

/// For each option an accepted value, as text, that is not the default.
fn other_value(option: &OptionDoc) -> String {
    match option.name {
        "pub_sub_use_multiproc" | "continuity" => "false",
        "redis_tls" | "discover" => "true",
        "discover_roles" => "chassis,server",
        "publisher_transport" => "epgm",
        "publishers" => {
            "tcp://a:1,>tcp://[::1]:65535,@tcp://*:2,ipc:///run/x,inproc://x,memory://x,redis://h:1,own+1://x"
        }
        "topics" => "tenant1,tenant2",
        "monitor_tables" => "lport,chassis",
        "codec" => "json",
        "join_frames" => "never",
        "queue_overflow" => "block",
        "publisher_multiproc_socket_mode" => "660",
        "resubscribe" => "manual",
        "curve_server_key" => "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7",
        "remote_db_hosts" => "db1:6379,[::1]:6380",
        "dispatcher_workers" => "4",
        _ if is_number(option) => "700",
        _ => "other",
    }
    .to_owned()
}

fn is_number(option: &OptionDoc) -> bool {
    option.accepts.starts_with("a whole number")
}

fn is_flag(option: &OptionDoc) -> bool {
    option.accepts == "true or false"
}

fn is_list(option: &OptionDoc) -> bool {
    matches!(
        option.name,
        "publishers" | "topics" | "remote_db_hosts" | "monitor_tables" | "discover_roles"
    )
}

/// `name = value` in TOML.
fn toml(option: &OptionDoc, value: &str) -> String {
    let value = match option.name {
        _ if is_flag(option) => value.to_owned(),
        _ if is_number(option) => value.to_owned(),
        _ if is_list(option) => format!("{:?}", value.split(',').collect::<Vec<_>>()),
        _ => format!("{value:?}"),
    };
    format!("{} = {value}", option.name)
}

/// Checks that the error is one of configuration and names all `parts`.
fn assert_error<T: std::fmt::Debug>(result: Result<T>, parts: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[test]
fn defaults_are_what_the_table_says() {
    let mut config = Config::default();
    config.validate().unwrap();
    for option in Config::options() {
        // The defaults of these depend on the environment.
        if !["publisher_multiproc_socket", "sqlite_path"].contains(&option.name) {
            config.set(option.name, option.default, Source::Program).unwrap();
        }
    }
    assert_eq!(config, Config::default());
    assert_eq!(config.publisher_port, 8866);
    assert_eq!(config.topics, [tablecast::Topic::ALL]);
    assert_eq!(config.linger_ms, Duration::from_millis(500));
    assert_eq!(config.publish_address().unwrap(), "tcp://127.0.0.1:8866");
    assert!(config.publisher_multiproc_socket.ends_with("publisher.sock"));
    assert!(config.sqlite_path.is_absolute() && config.sqlite_path.ends_with("tablecast/tablecast.db"));
}

#[test]
fn every_option_can_be_set_from_every_source() {
    for option in Config::options() {
        let value = other_value(option);
        let from_file = Config::from_toml(&toml(option, &value), "x.toml").unwrap();
        assert_ne!(from_file, Config::default(), "{}", option.name);

        let mut from_env = Config::default();
        from_env.apply_env([(option.variable(), value.clone())]).unwrap();
        assert_eq!(from_env, from_file);

        let mut from_flag = Config::default();
        from_flag.set(option.name, &value, Source::Flag).unwrap();
        assert_eq!(from_flag, from_file);
    }
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let mut config = Config::from_toml("publisher_port = 1\nlinger_ms = 1\nsend_hwm = 1", "x.toml").unwrap();
    config
        .apply_env([
            ("TABLECAST_PUBLISHER_PORT", "2"),
            ("TABLECAST_LINGER_MS", "2"),
            ("PATH", ""),
        ])
        .unwrap();
    config.set("publisher_port", "3", Source::Flag).unwrap();
    assert_eq!(
        (config.publisher_port, config.linger_ms, config.send_hwm),
        (3, Duration::from_millis(2), 1)
    );
}

#[test]
fn loads_a_file_and_validates_after_the_flags() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    std::fs::write(&file, "publisher_transport = 'ipc'").unwrap();
    assert_error(
        Config::load(Some(&file)),
        &["publisher_bind_address", "ipc", "path", "127.0.0.1"],
    );
    let config = Config::default()
        .loaded(Some(&file), [("publisher_bind_address", "/run/x")])
        .unwrap();
    assert_eq!(config.publish_address().unwrap(), "ipc:///run/x");
    assert_eq!(Config::load(None).unwrap(), Config::default());

    let error = Config::load(Some(Path::new("/no/such/file"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("/no/such/file"), "{error}");
}

#[test]
fn a_wrong_value_is_reported_with_its_option_source_and_what_was_expected() {
    for option in Config::options() {
        // Free text, which accepts even this.
        let free = [
            "publisher_bind_address",
            "topics",
            "monitor_tables",
            "redis_password",
            "redis_tls_ca",
            "redis_tls_cert",
            "redis_tls_key",
            "curve_secret_key_file",
            "curve_allowed_clients",
        ];
        if free.contains(&option.name) || option.name.ends_with("_driver") {
            continue;
        }
        let value = if ["nb_db_class", "sqlite_path"].contains(&option.name) {
            ""
        } else {
            "@\u{7}"
        };
        let mut config = Config::default();
        let (variable, flag) = (option.variable(), format!("--{}", option.flag()));
        let shown = format!("{value:?}");
        let common = [option.accepts, option.unit, &shown];
        let parts = |source| [&common[..], &[option.name, source]].concat();
        assert_error(config.set(option.name, value, Source::Flag), &parts(&flag));
        assert_error(config.apply_env([(&variable, value)]), &parts(&variable));
        assert_error(config.set(option.name, value, Source::Program), &parts(option.name));
        assert_eq!(config, Config::default());
    }
    let port = Config::from_toml("publisher_port = 65536", "/etc/x.toml");
    assert_error(port, &["publisher_port", "65536", "/etc/x.toml", "0 to 65535"]);
    let port = Config::from_toml("publisher_port = 70000", "x.toml").unwrap_err();
    let expected =
        "configuration: option publisher_port in file x.toml: expected a whole number from 0 to 65535, got 70000";
    assert_eq!(port.to_string(), expected);
    let linger = Config::from_toml("linger_ms = 60001", "x.toml");
    assert_error(
        linger,
        &["linger_ms in file x.toml", "60001", "0 to 60000 milliseconds"],
    );
}

#[test]
fn a_wrong_type_in_the_file_is_an_error() {
    for option in Config::options() {
        for value in [
            "'8866x'",
            "8866",
            "1.5",
            "true",
            "['D']",
            "[1]",
            "{ a = 1 }",
            "1979-05-27",
        ] {
            let right = match option {
                o if is_flag(o) => value == "true",
                o if is_number(o) => value == "8866",
                o if is_list(o) => value == "['D']",
                _ => value.starts_with('\''),
            };
            let result = Config::from_toml(&format!("{} = {value}", option.name), "x.toml");
            if !right {
                assert_error(result, &[option.name, "x.toml", option.accepts]);
            }
        }
    }
    assert_error(
        Config::from_toml("publisher_port = '8866'", "x.toml"),
        &["expected a number without quotes: a whole number", "got \"8866\""],
    );
    assert_error(
        Config::from_toml("discover = 'true'", "x.toml"),
        &["expected a word without quotes: true or false, got \"true\""],
    );
    assert_error(
        Config::from_toml("codec = 1", "x.toml"),
        &["a string: json, msgpack or dragonflow-1", "got 1"],
    );
    assert_error(
        Config::from_toml("topics = ['a,b']", "x.toml"),
        &["topics", "a,b", "without commas"],
    );
    assert_error(Config::from_toml("topics = ['']", "x.toml"), &["topics", "not empty"]);
    assert_error(Config::from_toml("\nlinger_ms = = 3", "x.toml"), &["x.toml, line 2"]);
    assert_error(
        Config::from_toml("linger_ms = 3\nlinger_ms = 4", "x.toml"),
        &["x.toml, line 2", "duplicate"],
    );
}

#[test]
fn an_unknown_option_is_an_error_that_suggests_the_nearest() {
    let mut config = Config::default();
    assert_error(
        Config::from_toml("publisher_prot = 1", "x.toml"),
        &["publisher_prot", "x.toml", "publisher_port?"],
    );
    assert_error(
        config.set("linger", "1", Source::Flag),
        &["unknown flag --linger", "did you mean --linger-ms?"],
    );
    let far = config.set("colour", "1", Source::Flag).unwrap_err();
    assert!(!far.to_string().contains("did you mean"), "{far}");
    config
        .apply_env([
            ("TABLECAST_TEST_PYTHON", "x"),
            // Another program's, such as those that Kubernetes sets for a service of this name.
            ("TABLECAST_PORT_8866_TCP_ADDR", "x"),
            ("TABLECAST_codec", "json"),
            ("tablecast_x", "x"),
            ("TABLECASTX", "x"),
        ])
        .unwrap();
    assert_eq!(config, Config::default());
}

#[test]
fn the_environment_must_be_utf8_only_where_it_is_ours() {
    let bytes = || OsString::from_vec(b"TABLECAST_\xff".to_vec());
    let mut config = Config::default();
    config
        .apply_env([(OsString::from_vec(b"\xff".to_vec()), bytes())])
        .unwrap();
    config.apply_env([(bytes(), OsString::new())]).unwrap();
    assert_error(
        config.apply_env([(OsString::from("TABLECAST_CODEC"), bytes())]),
        &["TABLECAST_CODEC", "\\xFF"],
    );
}

#[test]
fn a_file_may_hold_the_options_of_the_program_as_well() {
    let text = "title = 'agent'\n[agent]\nthreads = 4\n[tablecast]\ncodec = 'json'";
    let config = Config::from_toml(text, "x.toml").unwrap();
    assert_eq!(config.codec.as_str(), "json");
    let typo = "[agent]\nthreads = 4\n[tablecast]\ncodek = 'json'";
    assert_error(Config::from_toml(typo, "x.toml"), &["codek", "x.toml", "codec?"]);
    let outside = "publisher_port = 1\n[tablecast]\ncodec = 'json'";
    assert_error(
        Config::from_toml(outside, "x.toml"),
        &["option publisher_port stands outside [tablecast] in file x.toml; move it there"],
    );
    assert_error(
        Config::from_toml("[agent]\nthreads = 4\n[tablecats]\ncodec = 'json'", "x.toml"),
        &["unknown section [tablecats] in file x.toml; did you mean [tablecast]?"],
    );
    // Without the section the whole file is tablecast's.
    assert_error(
        Config::from_toml("[agent]\nthreads = 4", "x.toml"),
        &[
            "unknown section [agent] in file x.toml",
            "put the options into [tablecast]",
        ],
    );
}

#[test]
fn options_may_stand_within_others() {
    let config: Config = serde_json::from_str(r#"{"publisher_port": 9, "topics": ["a", "b"]}"#).unwrap();
    assert_eq!((config.publisher_port, config.topics.len()), (9, 2));
    for (text, parts) in [
        (r#"{"topics": "a"}"#, ["topics", "array of strings"]),
        (r#"{"publisher_prot": 9}"#, ["publisher_prot", "publisher_port?"]),
        (r#"{"publisher_port": 70000}"#, ["publisher_port", "70000"]),
    ] {
        let error = serde_json::from_str::<Config>(text).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn contradictions_name_both_options() {
    let check = |change: fn(&mut Config), parts: &[&str]| {
        let mut config = Config::default();
        change(&mut config);
        assert_error(config.validate(), parts);
    };
    check(
        |c| c.heartbeat_interval_ms = c.heartbeat_timeout_ms,
        &["heartbeat_timeout_ms", "heartbeat_interval_ms", "3s"],
    );
    check(
        |c| c.reconnect_max_ms = Duration::from_millis(99),
        &["reconnect_max_ms", "reconnect_interval_ms", "99ms"],
    );
    check(
        |c| {
            c.max_topic_bytes = 1;
            c.set("topics", "D,tenant", Source::Flag).unwrap();
        },
        &["topics", "max_topic_bytes (1)", "\"tenant\""],
    );
}

#[test]
fn what_a_program_assigns_is_checked() {
    let mut config = Config::default();
    config.queue_capacity = 0;
    assert_error(
        config.validate(),
        &["option queue_capacity", "1 to 10000000 updates", "got 0"],
    );
    config.queue_capacity = 1;
    config.redis_tls_cert = "x.crt".into();
    assert_error(config.validate(), &["redis_tls_cert", "x.crt", "redis_tls_key"]);
    config.redis_tls_key = "x.key".into();
    config.nb_db_class.clear();
    assert_error(config.validate(), &["nb_db_class", "not empty"]);
}

#[test]
fn the_page_of_options_has_a_row_for_each_option() {
    let table = Config::options_table();
    assert_eq!(table.lines().count(), 2 + Config::options().len());
    assert!(table.lines().all(|line| line.matches('|').count() == 6), "{table}");
    assert!(
        include_str!("../../src/docs/options.md").contains(&table),
        "src/docs/options.md should show:\n{table}"
    );
}

proptest! {
    /// Any text is accepted or refused, and only a valid value is accepted.
    #[test]
    fn any_text_is_taken_or_refused(index in 0..Config::options().len(), value in any::<String>()) {
        let name = Config::options()[index].name;
        let mut config = Config::default();
        let result = config.set(name, &value, Source::Flag);
        prop_assert!(result.is_ok() || config == Config::default());
        let _ = (Config::from_toml(&value, "x.toml"), config.validate(), config.listen_addresses());
    }
}
