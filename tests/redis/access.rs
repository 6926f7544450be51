//! Access: passwords, access lists, TLS.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use tablecast::codec::Codec;
use tablecast::config::{Config, Secret, Source};
use tablecast::drivers::redis::RedisDriver;
use tablecast::store::{Announcement, Write};
use tablecast::stores::redis::RedisStore;
use tablecast::{AddressState, Drivers, ErrorKind, Store, Topic};

use crate::common::within;
use crate::rig::{LONG, send, topic, update};
use crate::servers::Server;
use crate::store::{store, store_with};
use crate::{driver, options, publisher, start, subscriber, syncs, told, with};

const LIMIT: Duration = Duration::from_secs(60);

const PASSWORD: &str = "correct horse";

#[test]
fn a_password_is_wanted() {
    within(LIMIT, || {
        let server = Server::with(&["--requirepass", PASSWORD]);
        let mut known = options();
        known.password = Secret::new(PASSWORD);
        let open = with(&server.address(), known.clone());
        let rig = subscriber(&open);
        rig.listen(&["D"], &server.address());
        rig.only("1", || send(&publisher(&open), "D", "1"));
        for wrong in ["", "wrong horse"] {
            known.password = Secret::new(wrong);
            let closed = with(&server.address(), known.clone());
            let error = publisher(&closed).send_event(&update("k")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
            let (refused, errors) = told(&closed);
            start(&refused, &["D"], &server.address());
            let (kind, text) = errors.recv_timeout(LONG).unwrap();
            assert_eq!(kind, ErrorKind::Denied, "{text}");
            assert_eq!(refused.peers()[0].1, AddressState::Connecting);
        }
    });
}

/// As an access list allows: a user without a password is this user, and not the default one.
#[test]
fn a_user_may_have_no_password() {
    within(LIMIT, || {
        let server = Server::start();
        let () = server.ask(&["ACL", "SETUSER", "caster", "on", "nopass", "~*", "&*", "+@all"]);
        let () = server.ask(&["ACL", "SETUSER", "default", "-publish", "-hset", "-evalsha", "-eval"]);
        let mut options = options();
        options.user = "caster".into();
        let in_address = server.address().replace("redis://", "redis://caster@");
        for (address, options) in [(server.address(), options), (in_address, crate::options())] {
            let driver = with(&address, options.clone());
            let rig = subscriber(&driver);
            rig.listen(&["D"], &address);
            rig.only("1", || send(&publisher(&driver), "D", "1"));
            store_with(&address, options)
                .create("t", "k", "v", &Topic::ALL)
                .unwrap();
            let () = server.ask(&["FLUSHALL"]);
        }
    });
}

#[test]
fn a_user_may_have_few_rights() {
    within(LIMIT, || {
        let server = Server::start();
        let () = server.ask(&[
            "ACL",
            "SETUSER",
            "caster",
            "on",
            ">secret",
            "resetchannels",
            "&tenant1",
            "&\u{10FFFF}tablecast/*",
            "-@all",
            "+publish",
            "+subscribe",
            "+unsubscribe",
            "+ping",
        ]);
        let mut options = options();
        options.user = "caster".into();
        options.password = Secret::new("secret");
        let driver = with(&server.address(), options);
        let publisher = publisher(&driver);
        let (rig, errors) = told(&driver);
        start(&rig, &["tenant1"], &server.address());
        rig.subscriber.wait_live(LONG).unwrap();
        rig.only("1", || send(&publisher, "tenant1", "1"));
        syncs(&rig, &["connected"]);
        assert!(errors.is_empty());

        let refused = publisher.send_event(&update("k").topic(topic("tenant2"))).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
        assert!(refused.to_string().contains("NOPERM"), "{refused}");
        for number in 2..100 {
            rig.subscriber
                .register_topic(&topic(&format!("tenant{number}")))
                .unwrap();
        }
        let error = rig.subscriber.wait_live(Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let (kind, text) = errors.recv_timeout(LONG).unwrap();
        assert_eq!(kind, ErrorKind::Denied, "{text}");
        assert!(text.contains("tenant"), "{text}");
        // Fewer reports than topics.
        assert!(errors.try_iter().count() < 5);
        // The permitted topics work as before, and newly permitted ones come by themselves.
        rig.only("2", || send(&publisher, "tenant1", "2"));
        let () = server.ask(&["ACL", "SETUSER", "caster", "allchannels"]);
        rig.subscriber.wait_live(LONG).unwrap();
        rig.only("3", || send(&publisher, "tenant99", "3"));
    });
}

/// A store whose user has all keys of its table and every right but this one.
struct Limited {
    server: Server,
    store: RedisStore,
    user: RedisStore,
    address: String,
}

impl Limited {
    fn new(rights: &[&str]) -> Limited {
        let server = Server::start();
        let user = ["ACL", "SETUSER", "writer", "on", ">secret", "~*", "&*", "+@all"];
        let () = server.ask(&[&user, rights].concat());
        let mut limited = options();
        limited.user = "writer".into();
        limited.password = Secret::new("secret");
        let address = server.address();
        Limited {
            store: store(&address),
            user: store_with(&address, limited),
            server,
            address,
        }
    }

    /// All that readers can see of the table.
    fn dump(&self) -> String {
        let key = |part: &str| format!("tablecast{{1:t}}/{part}");
        let hash = |part: &str| self.server.ask::<BTreeMap<Vec<u8>, Vec<u8>>>(&["HGETALL", &key(part)]);
        let list = |part: &str| self.server.ask::<Vec<Vec<u8>>>(&["ZRANGE", &key(part), "0", "-1"]);
        format!(
            "{:?} {:?} {:?} {:?}",
            hash("rows"),
            hash("deletes"),
            list("keys"),
            list("topics")
        )
    }

    /// Makes a write and publishes it.
    fn announce(&self, write: Write<'_>) -> tablecast::Result<()> {
        let topic = write.topic.unwrap();
        let announcement = Announcement {
            topic,
            head: b"{\"table\":\"t\",\"key\":\"k\",\"action\":\"set\",\"version\":",
            tail: b"}",
            codec: Codec::Json,
        };
        let announcer = self.user.announcer(&self.address).unwrap();
        announcer.write_and_publish(&write, &announcement).map(drop)
    }
}

/// A write refused halfway leaves nothing behind.
#[test]
fn what_may_not_be_published_is_not_stored() {
    within(LIMIT, || {
        let (all, tenant) = (&Topic::ALL, &topic("tenant"));
        for denied in [
            &["resetchannels", "&D"][..],
            &["-publish"],
            &["-hset"],
            &["-hdel"],
            &["-zadd"],
            &["-zrem"],
            &["-zrangebyscore"],
            &["-hget"],
            &["-hmget"],
        ] {
            let limited = Limited::new(denied);
            limited.store.create("t", "k", "one", tenant).unwrap();
            limited.store.create("t", "gone", "one", tenant).unwrap();
            limited.store.delete("t", "gone").unwrap();
            let mut refused = 0;
            for write in [
                Write::create("t", "new", "two").topic(tenant),
                Write::create("t", "gone", "two").topic(tenant),
                Write::set("t", "k", "two").topic(tenant),
                Write::delete("t", "k").topic(tenant),
            ] {
                let before = limited.dump();
                match limited.announce(write) {
                    Ok(()) => assert_ne!(limited.dump(), before),
                    Err(error) => {
                        refused += 1;
                        assert_eq!(limited.dump(), before, "{denied:?} {write:?}: {error}");
                        assert_eq!(error.kind(), ErrorKind::Denied, "{denied:?} {write:?}: {error}");
                    }
                }
            }
            assert!(refused > 0, "{denied:?}");
            // A refused first write of a table leaves no table behind.
            let first = Write::create("u", "k", "one").topic(tenant);
            if let Err(error) = limited.announce(first) {
                assert_eq!(error.kind(), ErrorKind::Denied, "{denied:?}: {error}");
                let keys: Vec<String> = limited.server.ask(&["KEYS", "tablecast{1:u}/[^a]*"]);
                assert!(keys.is_empty(), "{denied:?}: {keys:?}");
            }
            limited.store.create("u", "after", "one", all).unwrap();
        }
        // A permitted write is published.
        let limited = Limited::new(&["resetchannels", "&D"]);
        limited.announce(Write::create("t", "k", "one").topic(all)).unwrap();
        assert_eq!(limited.store.get("t", "k", None).unwrap().value, "one");
    });
}

/// The time is asked for when sessions of writers are dropped.
#[test]
fn a_user_who_may_not_ask_for_the_time_drops_no_sessions() {
    within(LIMIT, || {
        let limited = Limited::new(&["-time"]);
        limited.store.create("t", "k", "one", &Topic::ALL).unwrap();
        crate::store::crowd(&limited.server);
        let fields = || limited.server.ask::<usize>(&["HLEN", "tablecast{1:t}/about"]);
        let before = fields();
        let error = limited.user.set("t", "k", "two").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert_eq!(fields(), before);
        limited.store.set("t", "k", "two").unwrap();
    });
}

#[test]
fn a_password_is_never_shown() {
    let mut config = Config::default();
    config.set("redis_password", "hunter2", Source::Flag).unwrap();
    config.set("pub_sub_driver", "redis", Source::Flag).unwrap();
    config.validate().unwrap();
    let driver = Drivers::new().network(&config).unwrap();
    let inbound = driver.check_address("redis://user:hunter2@host:x").unwrap_err();
    let own = RedisDriver::new("redis://:hunter2@host:x", (&config).into()).unwrap_err();
    let typed = Config::from_toml("redis_password = 222", "x.toml").unwrap_err();
    assert!(!typed.to_string().contains("222"), "{typed}");
    let options = tablecast::drivers::redis::RedisOptions::from(&config);
    for shown in [
        format!("{config:?} {config:#?}"),
        format!("{driver:?} {options:?} {typed}"),
        format!("{inbound} {inbound:?} {own} {own:?}"),
    ] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(options.password.expose(), "hunter2");
}

#[cfg(feature = "redis-tls")]
mod tls {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use tablecast::drivers::redis::RedisOptions;

    use super::*;
    use crate::SILENCE;

    /// Files made by `openssl`: an authority, and certificates of a server and of a client.
    struct Certificates(tempfile::TempDir);

    impl Certificates {
        fn new() -> Certificates {
            let certificates = Certificates(tempfile::tempdir().unwrap());
            let folder = certificates.0.path();
            fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost").unwrap();
            for who in ["ca", "other-ca"] {
                openssl(
                    folder,
                    &format!(
                        "req -x509 -newkey rsa:2048 -nodes -keyout {who}.key -out {who}.crt -days 2 -subj /CN={who}"
                    ),
                );
            }
            for who in ["server", "client"] {
                openssl(
                    folder,
                    &format!("req -newkey rsa:2048 -nodes -keyout {who}.key -out {who}.csr -subj /CN={who}"),
                );
                let by = "-CA ca.crt -CAkey ca.key -CAcreateserial -days 2";
                openssl(
                    folder,
                    &format!("x509 -req -in {who}.csr {by} -extfile names -out {who}.crt"),
                );
            }
            certificates
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.0.path().join(name)
        }

        fn server(&self, clients: &str) -> Server {
            self.server_as("server", clients)
        }

        /// A server with the certificate of this name.
        fn server_as(&self, who: &str, clients: &str) -> Server {
            let path = |name: &str| self.path(name).display().to_string();
            Server::with(&[
                "--port",
                "0",
                "--tls-port",
                "PORT",
                "--tls-cert-file",
                &path(&format!("{who}.crt")),
                "--tls-key-file",
                &path(&format!("{who}.key")),
                "--tls-ca-cert-file",
                &path("ca.crt"),
                "--tls-auth-clients",
                clients,
            ])
        }
    }

    fn openssl(folder: &Path, args: &str) {
        let mut command = Command::new("openssl");
        let output = command
            .args(args.split_whitespace())
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{args}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Of the Sentinels and the master, or of the master alone.
    #[test]
    fn sentinels_prove_who_they_are_too() {
        within(LIMIT, || {
            let certificates = Certificates::new();
            let master = certificates.server("no");
            let lines = format!(
                "bind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {} 1\n",
                master.port()
            );
            let file = |name: &str| certificates.path(name).display().to_string();
            let of_tls = format!(
                "port 0\ntls-port PORT\ntls-auth-clients no\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n",
                file("server.crt"),
                file("server.key"),
                file("ca.crt")
            );
            let secret = Server::sentinel(&format!("{of_tls}{lines}"));
            let plain = Server::sentinel(&format!("port PORT\n{lines}"));
            let mut trusting = options();
            trusting.tls_ca = certificates.path("ca.crt");
            for (address, tls) in [
                (format!("rediss-sentinel://{}/mymaster", secret.host()), false),
                (format!("redis-sentinel://{}/mymaster", plain.host()), true),
            ] {
                trusting.tls = tls;
                let driver = with(&address, trusting.clone());
                let rig = subscriber(&driver);
                rig.listen(&["D"], &address);
                rig.only("1", || send(&publisher(&driver), "D", "1"));
                let store = store_with(&address, trusting.clone());
                store.allocate_unique_key("t").unwrap();
                let mut strange = trusting.clone();
                strange.tls_ca = certificates.path("other-ca.crt");
                let error = store_with(&address, strange).get("t", "k", None).unwrap_err();
                assert!(error.to_string().contains("certificate"), "{error}");
            }
        });
    }

    #[test]
    fn the_server_has_to_prove_who_it_is() {
        within(LIMIT, || {
            let certificates = Certificates::new();
            let mut server = certificates.server("no");
            let mut trusting = options();
            trusting.tls_ca = certificates.path("ca.crt");
            for host in ["127.0.0.1", "localhost"] {
                let address = format!("rediss://{host}:{}", server.port());
                let driver = with(&address, trusting.clone());
                let publisher = publisher(&driver);
                let rig = subscriber(&driver);
                rig.listen(&["D"], &address);
                rig.only("1", || send(&publisher, "D", "1"));
                let large = update("large").value("v".repeat(5 << 20));
                publisher.send_event(&large).unwrap();
                assert_eq!(rig.next().value, large.value);
                syncs(&rig, &["connected"]);
                server.kill();
                syncs(&rig, &["address-lost"]);
                server.restart();
                rig.subscriber.wait_live(LONG).unwrap();
                rig.only("2", || send(&publisher, "D", "2"));
                let topics: Vec<_> = (0..2000).map(|number| format!("tenant{number}")).collect();
                rig.listen(&topics.iter().map(String::as_str).collect::<Vec<_>>(), &address);
                rig.only("3", || send(&publisher, "tenant1999", "3"));
            }
            // The certificate is another authority's, or an unknown one's, or the server does not speak TLS.
            let address = server.address().replace("redis://", "rediss://");
            let mut doubting = options();
            doubting.tls_ca = certificates.path("other-ca.crt");
            let plain = Server::start();
            // A server that does not speak TLS waits for more, and is given up for its silence.
            let impatient = RedisOptions {
                heartbeat_timeout: SILENCE,
                ..trusting.clone()
            };
            for (address, options) in [
                (address.clone(), doubting),
                (address, options()),
                (plain.address().replace("redis://", "rediss://"), impatient),
                (server.address(), trusting),
            ] {
                let (rig, errors) = told(&with(&address, options));
                start(&rig, &["D"], &address);
                let (_, text) = errors.recv_timeout(LONG).unwrap();
                println!("{text}");
                assert_eq!(rig.peers()[0].1, AddressState::Connecting);
            }
        });
    }

    #[test]
    fn the_server_may_ask_for_a_certificate() {
        within(LIMIT, || {
            let certificates = Certificates::new();
            let server = certificates.server("yes");
            let address = server.address().replace("redis://", "rediss://");
            let mut options = options();
            options.tls_ca = certificates.path("ca.crt");
            let (rig, errors) = told(&with(&address, options.clone()));
            start(&rig, &["D"], &address);
            errors.recv_timeout(LONG).unwrap();
            options.tls_cert = certificates.path("client.crt");
            options.tls_key = certificates.path("client.key");
            let driver = with(&address, options.clone());
            let rig = subscriber(&driver);
            rig.listen(&["D"], &address);
            rig.only("1", || send(&publisher(&driver), "D", "1"));
        });
    }

    /// Each error names the option, and the file.
    #[test]
    fn a_wrong_file_is_named_with_its_option() {
        within(LIMIT, || {
            let certificates = Certificates::new();
            fs::write(
                certificates.path("broken.crt"),
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            )
            .unwrap();
            let good = || RedisOptions {
                tls_ca: certificates.path("ca.crt"),
                tls_cert: certificates.path("client.crt"),
                tls_key: certificates.path("client.key"),
                ..options()
            };
            type Set = fn(&mut RedisOptions, std::path::PathBuf);
            let ca: Set = |options, path| options.tls_ca = path;
            let cert: Set = |options, path| options.tls_cert = path;
            let key: Set = |options, path| options.tls_key = path;
            for (option, set, file, kind) in [
                ("redis_tls_ca", ca, "missing", ErrorKind::Io),
                ("redis_tls_ca", ca, "names", ErrorKind::Config),
                ("redis_tls_ca", ca, "broken.crt", ErrorKind::Config),
                ("redis_tls_cert", cert, "missing", ErrorKind::Io),
                ("redis_tls_cert", cert, "names", ErrorKind::Config),
                ("redis_tls_cert", cert, "broken.crt", ErrorKind::Config),
                ("redis_tls_cert", cert, "server.crt", ErrorKind::Config),
                ("redis_tls_key", key, "missing", ErrorKind::Io),
                ("redis_tls_key", key, "names", ErrorKind::Config),
                ("redis_tls_key", key, "server.key", ErrorKind::Config),
            ] {
                let mut options = good();
                set(&mut options, certificates.path(file));
                let refused = RedisDriver::new("rediss://127.0.0.1:1", options).unwrap_err();
                let text = refused.to_string();
                assert_eq!(refused.kind(), kind, "{option} {file}: {text}");
                assert!(text.contains(option) && text.contains(file), "{option} {file}: {text}");
                assert!(!text.contains("peer"), "{option} {file}: {text}");
            }
            RedisDriver::new("rediss://127.0.0.1:1", good()).unwrap();
        });
    }

    /// Also of a joined file, of a cut one, and of a key with a passphrase.
    #[test]
    fn the_fault_of_a_pem_file_is_said_in_words() {
        within(LIMIT, || {
            let certificates = Certificates::new();
            let text = |name: &str| fs::read_to_string(certificates.path(name)).unwrap();
            let cut = text("ca.crt").replace("-----END CERTIFICATE-----", "");
            fs::write(certificates.path("cut.crt"), cut).unwrap();
            let cut = text("ca.crt").replace("BEGIN CERTIFICATE-----", "BEGIN CERTIFICATE");
            fs::write(certificates.path("line.crt"), cut).unwrap();
            openssl(
                certificates.0.path(),
                "pkey -in client.key -aes128 -passout pass:x -out encrypted.key",
            );
            openssl(
                certificates.0.path(),
                "rsa -traditional -in client.key -aes128 -passout pass:x -out old.key",
            );
            let with = |ca: &str, key: &str| RedisOptions {
                tls_ca: certificates.path(ca),
                tls_cert: certificates.path("client.crt"),
                tls_key: certificates.path(key),
                ..options()
            };
            for (options, option, expected) in [
                (
                    with("cut.crt", "client.key"),
                    "redis_tls_ca",
                    "-----END CERTIFICATE----- is missing",
                ),
                (
                    with("line.crt", "client.key"),
                    "redis_tls_ca",
                    "\"-----BEGIN CERTIFICATE\" does not end",
                ),
                (with("ca.crt", "encrypted.key"), "redis_tls_key", "is an encrypted"),
                (with("ca.crt", "old.key"), "redis_tls_key", "is an encrypted"),
            ] {
                let refused = RedisDriver::new("rediss://127.0.0.1:1", options).unwrap_err();
                let text = refused.to_string();
                assert!(text.contains(option) && text.contains(expected), "{text}");
            }
        });
    }

    /// The error names the option that is wrong; or TLS, if only one side speaks it.
    #[test]
    fn a_failed_handshake_names_the_option() {
        within(LIMIT, || {
            let certificates = Certificates::new();
            let picky = certificates.server("yes");
            let plain = Server::start();
            let by = |ca: &str, own: &str| {
                let file = |end: &str| match own {
                    "" => std::path::PathBuf::new(),
                    _ => certificates.path(&format!("{own}.{end}")),
                };
                RedisOptions {
                    tls_ca: certificates.path(ca),
                    tls_cert: file("crt"),
                    tls_key: file("key"),
                    ..options()
                }
            };
            let of = |server: &Server, scheme: &str| server.address().replace("redis://", scheme);
            // For a server that does not speak TLS: it waits for more, and is given up for its silence.
            let impatient = RedisOptions {
                heartbeat_timeout: SILENCE,
                ..by("ca.crt", "")
            };
            for (address, options, expected) in [
                (of(&picky, "rediss://"), by("ca.crt", ""), "redis_tls_cert"),
                (of(&picky, "rediss://"), by("ca.crt", "other-ca"), "redis_tls_cert"),
                (of(&picky, "rediss://"), by("other-ca.crt", "client"), "redis_tls_ca"),
                (of(&plain, "rediss://"), impatient, "does it speak TLS"),
                (of(&picky, "redis://"), options(), "does it want TLS"),
            ] {
                let (rig, errors) = told(&with(&address, options.clone()));
                start(&rig, &["D"], &address);
                let (_, text) = errors.recv_timeout(LONG).unwrap();
                assert!(text.contains(expected), "{address}: {text}");
                let error = store_with(&address, options).get("t", "k", None).unwrap_err();
                assert!(error.to_string().contains(expected), "{address}: {error}");
            }
        });
    }

    /// As redis-cli does. Its name must be right, and its time.
    #[test]
    fn a_certificate_of_its_own_is_trusted_if_it_is_the_one_given() {
        within(LIMIT, || {
            let certificates = Certificates::new();
            let folder = certificates.0.path();
            for (who, names) in [
                ("own", "-addext subjectAltName=IP:127.0.0.1"),
                ("elsewhere", "-addext subjectAltName=DNS:elsewhere"),
                ("nameless", ""),
            ] {
                let kind = "req -x509 -newkey rsa:2048 -nodes -days 2";
                openssl(
                    folder,
                    &format!("{kind} -keyout {who}.key -out {who}.crt -subj /CN={who} {names}"),
                );
            }
            // Several files with an editor's mark before each, joined.
            let text = |name: &str| fs::read_to_string(certificates.path(name)).unwrap();
            let several = ["ca.crt", "own.crt", "elsewhere.crt"].map(|name| format!("\u{feff}{}", text(name)));
            let several = several.concat();
            fs::write(certificates.path("several.crt"), several).unwrap();
            for (who, trusted, is_trusted) in [
                ("own", "own.crt", true),
                ("own", "several.crt", true),
                ("server", "several.crt", true),
                ("own", "ca.crt", false),
                ("elsewhere", "elsewhere.crt", false),
                ("nameless", "nameless.crt", true),
                ("nameless", "own.crt", false),
            ] {
                let server = certificates.server_as(who, "no");
                let address = server.address().replace("redis://", "rediss://");
                let mut options = options();
                options.tls_ca = certificates.path(trusted);
                let (rig, errors) = told(&with(&address, options));
                start(&rig, &["D"], &address);
                match is_trusted {
                    true => rig.subscriber.wait_live(LONG).unwrap(),
                    false => {
                        let (_, text) = errors.recv_timeout(LONG).unwrap();
                        assert!(text.contains("certificate"), "{who} {trusted}: {text}");
                    }
                }
            }
        });
    }

    /// The next connection uses what is on the disk.
    #[test]
    fn renewed_certificates_are_read_again() {
        within(LIMIT, || {
            let certificates = Certificates::new();
            let server = certificates.server("no");
            let address = server.address().replace("redis://", "rediss://");
            let mut options = options();
            options.tls_ca = certificates.path("renewed.crt");
            fs::copy(certificates.path("other-ca.crt"), certificates.path("renewed.crt")).unwrap();
            let (rig, errors) = told(&with(&address, options));
            start(&rig, &["D"], &address);
            errors.recv_timeout(LONG).unwrap();
            fs::copy(certificates.path("ca.crt"), certificates.path("renewed.crt")).unwrap();
            rig.subscriber.wait_live(LONG).unwrap();
        });
    }
}

/// A server that says nothing keeps no caller waiting: the try ends, and the next one begins.
#[test]
fn a_server_that_takes_nobody_more_is_tried_again() {
    within(LIMIT, || {
        let server = Server::start();
        let driver = driver(&server.address());
        let publisher = publisher(&driver);
        send(&publisher, "D", "k");
        // It is connected, and so can raise the limit again.
        let mut client = TcpStream::connect(server.host()).unwrap();
        let () = server.ask(&["CONFIG", "SET", "maxclients", "1"]);
        let (rig, errors) = told(&driver);
        start(&rig, &["D"], &server.address());
        let (_, text) = errors.recv_timeout(LONG).unwrap();
        assert!(text.contains("max number of clients"), "{text}");
        drop(publisher);
        client.write_all(b"CONFIG SET maxclients 100\r\n").unwrap();
        rig.subscriber.wait_live(LONG).unwrap();
    });
}
