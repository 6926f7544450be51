//! The Debian package on a system of its own: installed, upgraded while updates pass, removed, purged.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;

use crate::common::{eventually, folder_for_system, skip, within};
use crate::dashboard::{filled, panels};
use crate::process::LIMIT;
use crate::system::System;
use serde_json::Value;
use tablecast::Config;

/// As the unit starts it.
const SERVE: &str = "setpriv --reuid=tablecast --regid=tablecast --init-groups \
    $(sed -n 's/^ExecStart=//; s/ [$]ARGS//p' /usr/lib/systemd/system/tablecast.service) >/served 2>&1 & echo $! >/pid; \
    until grep -q ^ready /served; do kill -0 $(cat /pid) || exit 1; sleep 0.02; done";
const STOP: &str = "kill $(cat /pid); while kill -0 $(cat /pid) 2>/dev/null; do sleep 0.02; done";
const CONFIG: &str = "/etc/tablecast/tablecast.toml";
const DEFAULT: &str = "/etc/default/tablecast";
/// The unit of a replica.
const REPLICA: &str = "tablecast-replica@t-1";
/// Without the index of manual pages, which takes longest. Nobody is there to be asked about files in /etc.
const INSTALL: &str = "dpkg --no-triggers --force-confdef --force-confold --install /package.deb </dev/null >&2";

/// There is no journal. Tells why a service is in another state.
const LOG: &str = "d=/run/systemd/system/service.d; mkdir -p $d; \
    printf '[Service]\\nStandardOutput=append:/said\\nStandardError=append:/said\\n' >$d/log.conf";
const SAID: &str = "systemctl status 'tablecast*'; tail -n 20 /said";

#[test]
fn a_package_is_installed_upgraded_removed_and_purged() {
    within(6 * LIMIT, || {
        let folder = folder_for_system();
        let Some(mut system) = System::start(&folder) else {
            return;
        };
        // As on a host that has none of it.
        system.run("! id tablecast && ! command -v tablecast");
        system.run(INSTALL);
        // Each option stands there once, and those that the package sets are options.
        let options = system.run("sed -n 's/^#\\?\\([a-z_0-9]*\\) = .*/\\1/p' /usr/share/tablecast/options.toml");
        let names: BTreeSet<_> = options.iter().map(String::as_str).collect();
        assert_eq!(names, Config::options().iter().map(|option| option.name).collect());
        assert_eq!(options.len(), names.len(), "{options:#?}");
        system.run(&format!(
            "tablecast config --config {CONFIG} | grep -q /var/lib/tablecast/tables.db"
        ));
        system.run("tablecast --version && ! command -v man || man -l /usr/share/man/man1/tablecast-watch.1.gz | grep -q -- --count");
        assert_eq!(
            system.run(&format!("stat -c %U:%G:%a {CONFIG}")),
            ["root:tablecast:640"]
        );
        system.run("grep -q libzmq /usr/share/doc/tablecast/copyright && grep -q '^ serde v' /usr/share/doc/tablecast/copyright");
        system.run("bash -n /usr/share/bash-completion/completions/tablecast");
        system.run(
            "! systemctl --version || systemd-analyze verify --man=no \
             /usr/lib/systemd/system/tablecast.service /usr/lib/systemd/system/tablecast-replica@lport.service",
        );
        // What systemd makes for the unit.
        system.run("install -d -o tablecast -g tablecast -m 750 /run/tablecast");
        system.run("install -d -o tablecast -g tablecast -m 700 /var/lib/tablecast");
        system.run(SERVE);
        let is_writer = "setpriv --reuid=1234 --regid=1234 --groups=";
        let publish = format!("tablecast publish --config {CONFIG} --table t --key");
        system.run(&format!(
            "{is_writer}$(getent group tablecast | cut -d: -f3) {publish} k"
        ));
        let (_, code) = system.try_run(&format!("{is_writer}1234 {publish} k"));
        assert_eq!(code, "1", "a stranger may publish");

        begin_load(&mut system);
        system.run(&format!("sed -i '1i linger_ms = 600' {CONFIG} && chmod 600 {CONFIG}"));
        upgrade(&mut system, CONFIG, DEFAULT);
        system.run(&format!("chmod 640 {CONFIG}"));
        system.run(STOP);
        system.run(SERVE);
        end_load(&mut system);
        system.run("kill $(pgrep -x tablecast); while pgrep -x tablecast; do sleep 0.02; done");
        system.run("dpkg --no-triggers --remove tablecast");
        system.run(&format!(
            "[ -e {CONFIG} ] && ! [ -e /usr/bin/tablecast ] && ! [ -e /usr/lib/systemd/system/tablecast.service ]"
        ));
        system.run("dpkg --no-triggers --purge tablecast");
        system.run("! ls -d /etc/tablecast /etc/default/tablecast /var/lib/tablecast 2>/dev/null && ! id tablecast");
    });
}

#[test]
fn an_upgrade_leaves_the_service_as_the_administrator_has_it() {
    within(6 * LIMIT, || {
        let folder = folder_for_system();
        let Some(mut system) = System::managed(&folder) else {
            return;
        };
        system.run(LOG);
        let first = install(&mut system, "active enabled");
        system.run("echo ARGS=--metrics 9464 >>/etc/default/tablecast && systemctl restart tablecast");
        let forwarded = |system: &mut System| {
            let scrape = "exec 3<>/dev/tcp/127.0.0.1/9464; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
            let lines = system.run(&format!("bash -c \"{}\"", scrape.replace('"', "\\\"")));
            let line = lines
                .iter()
                .find_map(|line| line.strip_prefix("tablecast_service_forwarded_frames_total "));
            line.expect("no metrics").parse::<f64>().unwrap()
        };
        system.run(&format!("systemctl enable --now {REPLICA} 2>&1"));
        let replica = process_of(&mut system, REPLICA);
        system.run(&format!(
            "tr '\\0' ' ' </proc/{replica}/cmdline | grep -q -- '--table t-1 '"
        ));
        let folder = system.run("stat -c %i /run/tablecast");
        begin_load(&mut system);
        eventually(LIMIT, || forwarded(&mut system) > 0.0);
        upgrade(&mut system, DEFAULT, CONFIG);
        let second = process_of(&mut system, "tablecast");
        assert_ne!(first, second, "an upgrade restarts the service");
        eventually(LIMIT, || {
            let (state, _) = system.try_run(&format!("systemctl is-active {REPLICA}"));
            state == ["active"] && process_of(&mut system, REPLICA) != replica
        });
        assert_eq!(system.run("stat -c %i /run/tablecast"), folder, "mounted elsewhere");
        end_load(&mut system);
        assert!(forwarded(&mut system) > 0.0);
        system.run("systemctl stop tablecast");
        install(&mut system, "inactive enabled");
        system.run("systemctl disable tablecast 2>&1");
        install(&mut system, "inactive disabled");
        system.run("systemctl start tablecast");
        assert_ne!(install(&mut system, "active disabled"), "0");
        system.run("systemctl enable tablecast 2>&1");

        // One that cannot start is no reason to fail.
        system.run(&format!("sed -i '1i no_option = 1' {CONFIG}"));
        system.run(INSTALL);
        system.run("! systemctl is-active --quiet tablecast && dpkg --status tablecast | grep -q 'ok installed'");
        system.run("dpkg --no-triggers --remove tablecast >&2 && ! systemctl is-active --quiet 'tablecast*'");
        system.run(INSTALL);
        system.run("! systemctl is-active --quiet tablecast && dpkg --status tablecast | grep -q 'ok installed'");

        // Those that have failed may work now; after a removal they begin anew.
        eventually(LIMIT, || {
            system.try_run(&format!("systemctl is-failed {REPLICA}")).1 == "0"
        });
        system.run(&format!("sed -i 1d {CONFIG}"));
        install(&mut system, "active enabled");
        system.run(&format!("systemctl is-active {REPLICA} >&2"));
        system.run("dpkg --no-triggers --remove tablecast >&2");
        install(&mut system, "active enabled");
        system.run(&format!("systemctl is-active {REPLICA} >&2"));
        system.run(&format!(
            "echo ARGS=-v >/etc/default/{REPLICA} && dpkg --no-triggers --purge tablecast >&2"
        ));
        system.run("! find /etc /var/lib/systemd /var/lib/tablecast* /run/tablecast* -name '*tablecast*' | grep .");
    });
}

#[test]
fn every_panel_shows_data_of_a_packaged_host() {
    within(6 * LIMIT, || {
        let folder = folder_for_system();
        let Some(mut system) = System::managed(&folder) else {
            return;
        };
        if system.try_run("command -v prometheus promtool").1 != "0" {
            return skip("no Prometheus here");
        }
        system.run(LOG);
        system.run(INSTALL);
        system.run(&format!("sed -i '1i monitor_tables = [\"lport\"]' {CONFIG}"));
        system.run("echo ARGS=--metrics 9464 >>/etc/default/tablecast && systemctl restart tablecast");
        system.run("echo ARGS=--metrics 9465 >/etc/default/tablecast-replica@lport");
        system.run("systemctl start tablecast-replica@lport");
        // Programs of the service's user, which are at work until the end.
        let mut start = |command: &str, lines: &str| {
            system.run(&format!(
                "(n=0; while n=$((n+1)); do echo '{lines}' | sed \"s/NUMBER/$n/\"; sleep 0.1; done) | \
                 setpriv --reuid=tablecast --regid=tablecast --init-groups \
                 tablecast {command} --config {CONFIG} >>/said 2>&1 &"
            ));
        };
        start("listen --metrics 9466", "");
        start("notify --file - --metrics 9467", r#"{"table":"status","key":"NUMBER"}"#);
        start(
            "db write --file - --metrics 9468",
            r#"{"table":"lport","key":"NUMBER","action":"create","value":"{}"}"#,
        );
        let targets = (9464..=9468).map(|port| format!("127.0.0.1:{port}"));
        let targets: Vec<_> = targets.collect();
        system.run(&format!(
            "echo 'global: {{scrape_interval: 200ms}}' >/prometheus.yml; \
             echo 'scrape_configs: [{{job_name: tablecast, static_configs: [{{targets: {targets:?}}}]}}]' >>/prometheus.yml; \
             prometheus --config.file /prometheus.yml --storage.tsdb.path /prometheus.data \
             --web.listen-address 127.0.0.1:9090 >/prometheus.log 2>&1 &"
        ));
        let at = "http://127.0.0.1:9090";
        system.run(&format!(
            "until [ $(promtool query instant {at} 'up == 1' 2>&1 | grep -c 127.0.0.1) = {} ]; do sleep 0.1; done",
            targets.len()
        ));
        for query in panels() {
            let query = filled(&query);
            assert!(!query.contains('\''), "{query}");
            let mut is_shown = || {
                system
                    .try_run(&format!("promtool query instant {at} '{query}' | grep -q ."))
                    .1
                    == "0"
            };
            eventually(LIMIT, &mut is_shown);
        }
    });
}

/// Publishes updates with rising keys, as fast as a shell can, beside a watch.
fn begin_load(system: &mut System) {
    system.run(&format!(
        "tablecast watch --config {CONFIG} >/watched 2>/watched.log & echo $! >/watching"
    ));
    system.run("until grep -q ready /watched.log; do sleep 0.02; done");
    let publish = format!("tablecast publish --config {CONFIG} --table t --key");
    system.run(&format!(
        "(n=0; until [ -e /enough ]; do n=$((n+1)); {publish} $n >/dev/null 2>&1 && echo $n >>/published; done; \
         until {publish} last; do sleep 0.02; done) >/dev/null 2>&1 & until [ -s /published ]; do sleep 0.02; done"
    ));
}

/// Installs a newer version, whose files in /etc and list of options are others. `changed`, one of the files in
/// /etc, is the administrator's, and stays; the other one is the newer one then.
fn upgrade(system: &mut System, changed: &str, unchanged: &str) {
    system.run(
        "dpkg-deb --raw-extract /package.deb /newer && sed -i 's/^Version: .*/Version: 9.0.0/' /newer/DEBIAN/control && \
         for file in usr/share/tablecast/options.toml etc/tablecast/tablecast.toml etc/default/tablecast; do \
         echo '#newer = 1' >>/newer/$file; done && dpkg-deb -Znone --build /newer /newer.deb >&2",
    );
    let state = |system: &mut System, file| system.run(&format!("stat -c %U:%G:%a {file} && md5sum <{file}"));
    let (before, unchanged_before) = (state(system, changed), state(system, unchanged));
    system.run(&INSTALL.replace("/package.deb", "/newer.deb"));
    assert_eq!(state(system, changed), before);
    assert_eq!(state(system, unchanged)[0], unchanged_before[0]);
    system.run(&format!(
        "grep -q '^#newer' {unchanged} && grep -q '^#newer' {changed}.dpkg-dist"
    ));
    assert_eq!(system.run("dpkg-query -W -f='${Version}\\n' tablecast"), ["9.0.0"]);
}

/// Ends the load some time after the restart. What is missing in the watch was published before its last sync event.
fn end_load(system: &mut System) {
    // The first sync event comes at the beginning.
    system.run(r#"until [ $(grep -c '"event":"sync"' /watched) -gt 1 ]; do sleep 0.02; done"#);
    // Once the watch hears what was published since, and after the last sync event, it hears the last one too.
    let since =
        r#"since() { awk '/"event":"sync"/ { text = "" } { text = text "\n" $0 } END { print text }' /watched; }"#;
    let heard = r#"n=$(tail -n 1 /published); [ $n -gt $((mark + 1)) ] && since | grep -q "\"key\":\"$n\"""#;
    system.run(&format!(
        "{since}; mark=$(tail -n 1 /published); until {heard}; do sleep 0.02; done; touch /enough"
    ));
    system.run("until grep -q '\"key\":\"last\"' /watched; do sleep 0.02; done");
    let number = |key: &str| key.parse::<u64>().ok();
    let published: BTreeSet<u64> = system
        .run("cat /published")
        .iter()
        .filter_map(|key| number(key))
        .collect();
    let mut missing = published.clone();
    let mut seen_since = u64::MAX;
    for line in system.run("cat /watched") {
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == "sync" {
            seen_since = u64::MAX;
        } else if let Some(key) = event["key"].as_str().and_then(number) {
            missing.remove(&key);
            seen_since = seen_since.min(key);
        }
    }
    let silent: Vec<_> = missing.range(seen_since..).collect();
    assert!(silent.is_empty(), "missing after the last sync event: {silent:?}");
    system.run(
        "rm /enough /published; kill $(cat /watching); while kill -0 $(cat /watching) 2>/dev/null; do sleep 0.02; done",
    );
}

/// Installs the package over what is there. The service is in this state then; returns its process.
#[track_caller]
fn install(system: &mut System, state: &str) -> String {
    system.run(INSTALL);
    let states = system
        .try_run("systemctl is-active tablecast; systemctl is-enabled tablecast")
        .0;
    assert_eq!(states.join(" "), state, "{:#?}", system.try_run(SAID).0);
    process_of(system, "tablecast")
}

/// The id of the process of a unit.
fn process_of(system: &mut System, unit: &str) -> String {
    system.run(&format!("systemctl show -P MainPID {unit}")).concat()
}
