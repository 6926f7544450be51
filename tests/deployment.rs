//! The deployment of `contrib/deployment`, staged on this machine, broken, and compared.
#![cfg(all(feature = "bin", feature = "redis", target_os = "linux"))]

mod common;
#[path = "common/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::RwLock;
use std::time::{Duration, Instant};

use common::{eventually, skip, within};
use process::{LIMIT, Process};

/// More than a stage takes on a busy machine.
const LONG: Duration = Duration::from_secs(240);

/// Held exclusively where times count.
static STAGE: RwLock<()> = RwLock::new(());

const TOOL: &str = env!("CARGO_BIN_EXE_tablecast");

/// Begins a stage of this tool that keeps its files in this folder.
fn stage(tool: &Path, folder: &Path, args: &[&str]) -> Process {
    let keep = ["--keep", folder.to_str().unwrap()];
    stage_with(tool, &[&keep, args].concat())
}

fn stage_with(tool: &Path, args: &[&str]) -> Process {
    let python = std::env::var_os("TABLECAST_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/deployment/stage"));
    command.arg("--tool").arg(tool).args(args);
    Process::start(command)
}

/// The next line; `None`, and a word why, where this user may have no namespaces.
fn line(stage: &mut Process) -> Option<String> {
    if let Some(line) = stage.line_by(Instant::now() + LONG) {
        return Some(line);
    }
    let end = stage.end();
    assert_eq!(end.code, Some(3), "{end:?}");
    skip(end.stderr);
    None
}

/// The lines up to the result, the last one.
fn lines(stage: &mut Process) -> Option<Vec<String>> {
    let mut lines = vec![];
    while !lines.last().is_some_and(|line: &String| line.contains(" writes; ")) {
        lines.push(line(stage)?);
    }
    println!("{}", lines.join("\n"));
    Some(lines)
}

/// The number of processes whose environment names the folder: all on the stage.
fn processes(folder: &Path) -> usize {
    let named = folder.to_str().unwrap().as_bytes();
    let is_named = |process: &fs::DirEntry| {
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        environment.windows(named.len()).any(|window| window == named)
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter(is_named).count()
}

#[test]
fn every_copy_is_right_after_each_fault() {
    within(2 * LONG, || {
        let _alone = STAGE.write();
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("kept");
        let mut stage = stage(TOOL.as_ref(), &folder, &["--seconds", "2"]);
        let Some(lines) = lines(&mut stage) else { return };
        let end = stage.end();
        assert_eq!(end.code, Some(0), "{lines:#?} {end:?}");
        assert!(
            lines
                .last()
                .unwrap()
                .ends_with("all copies were right during and equal after each fault")
        );
        eventually(LIMIT, || processes(&folder) == 0);

        let faults = fs::read_to_string(folder.join("faults.csv")).unwrap();
        let mut rows = faults.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let head = rows.next().unwrap();
        let faults: Vec<_> = rows.collect();
        assert_eq!(faults.len(), 5, "{faults:#?}");
        for fault in &faults {
            let number = |name: &str| -> f64 {
                let at = head.iter().position(|field| *field == name).unwrap();
                fault[at].parse().unwrap()
            };
            assert!(number("end_s") - number("begin_s") >= 2.0, "{fault:?}");
            assert!(number("equal_s") - number("end_s") <= 31.0, "{fault:?}");
            assert!(number("rows_compared") > 50.0, "{fault:?}");
            assert!(number("rows_looked_at") > 50.0, "{fault:?}");
            assert_eq!(number("rows_wrong"), 0.0, "{fault:?}");
            assert_eq!(number("rows_differing"), 0.0, "{fault:?}");
        }
        let trace = fs::read_to_string(folder.join("trace.csv")).unwrap();
        let agents: BTreeSet<&str> = trace
            .lines()
            .skip(1)
            .filter_map(|line| line.split(',').nth(1))
            .collect();
        assert_eq!(agents.len(), 5, "{trace}");
        // The cut shows.
        let staleness = trace
            .lines()
            .skip(1)
            .filter_map(|line| line.split(',').nth(2)?.parse().ok());
        assert!(staleness.fold(0.0, f64::max) > 2.0);
    });
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    within(2 * LONG, || {
        let _others = STAGE.read();
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("kept");
        let mut stage = stage(TOOL.as_ref(), &folder, &["--seconds", "1"]);
        let Some(ready) = line(&mut stage) else { return };
        assert!(ready.starts_with("ready after"), "{ready}");
        assert!(processes(&folder) > 10, "servers, services, writers and agents");
        let head = line(&mut stage);
        assert!(head.is_some_and(|head| head.starts_with("fault ")));
        line(&mut stage).unwrap();
        stage.signal("INT");
        assert_eq!(stage.end().code, Some(130));
        eventually(LIMIT, || processes(&folder) == 0);
        // What was played is kept.
        let faults = fs::read_to_string(folder.join("faults.csv")).unwrap();
        assert!(
            faults
                .lines()
                .nth(1)
                .is_some_and(|fault| fault.contains("publisher service")),
            "{faults}"
        );
    });
}

#[test]
fn a_deployment_without_life_names_its_logs() {
    within(LONG, || {
        let _others = STAGE.read();
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("kept");
        let args = ["--patience", "0.5"];
        let mut kept = stage("/bin/true".as_ref(), &folder, &args);
        let mut lost = stage_with("/bin/true".as_ref(), &args);
        for (stage, named) in [
            (&mut kept, format!("the logs are in {}", folder.display())),
            (&mut lost, "--keep FOLDER keeps the logs".into()),
        ] {
            let end = stage.end();
            if end.code == Some(3) {
                return skip(end.stderr);
            }
            assert_eq!(end.code, Some(1), "{end:?}");
            assert!(
                end.stderr.contains("stage: not within 0.5 s: ") && end.stderr.contains(&named),
                "{end:?}"
            );
        }
    });
}

#[test]
fn a_wrong_copy_is_found() {
    within(2 * LONG, || {
        let _others = STAGE.read();
        let temporary = tempfile::tempdir().unwrap();
        // From a moment on, one agent says nothing of what changes.
        let (tool, lies) = (temporary.path().join("tool"), temporary.path().join("lies"));
        let lies_name = lies.display();
        let script = format!(
            r#"#!/bin/sh
            case "$*" in
            *"--id agent1 "*)
                {TOOL} "$@" | while read -r line; do
                    [ -e {lies_name} ] || echo "$line"
                done ;;
            *) exec {TOOL} "$@" ;;
            esac
            "#
        );
        fs::write(&tool, script).unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        let args = ["--seconds", "3", "--bound", "5", "--fault", "kill_agent"];
        let mut stage = stage(&tool, &temporary.path().join("kept"), &args);
        if line(&mut stage).is_none() {
            return;
        }
        fs::write(&lies, "").unwrap();
        let Some(lines) = lines(&mut stage) else { return };
        let end = stage.end();
        assert_eq!(end.code, Some(1), "{lines:#?}");
        assert!(end.stderr.contains("stage: copies differ; the logs are in "), "{end:?}");
        assert!(lines.last().unwrap().ends_with("COPIES DIFFER"), "{lines:#?}");
        let never = lines.iter().find(|line| line.contains(" never ")).unwrap();
        let wrong: u64 = never.split_whitespace().rev().nth(3).unwrap().parse().unwrap();
        assert!(wrong > 0, "nothing is wrong before the end: {lines:#?}");
    });
}
