//! The dependencies keep the rules of `deny.toml`: their licences are on its list, none is an async runtime, and none comes
//! in two versions unless it is listed.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::within;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// The rules, each as a set of texts.
struct Rules {
    licenses: BTreeSet<String>,
    banned: BTreeSet<String>,
    skipped: BTreeSet<String>,
}

impl Rules {
    /// True if this version is on the list of those that may come besides another one: `name@beginning of a version`.
    fn is_skipped(&self, name: &str, version: &str) -> bool {
        let mut listed = self.skipped.iter().filter_map(|listed| listed.split_once('@'));
        listed.any(|(listed, begin)| listed == name && format!("{version}.").starts_with(&format!("{begin}.")))
    }
}

fn rules() -> Rules {
    let text = fs::read_to_string(root().join("deny.toml")).unwrap();
    let rules: toml::Table = toml::from_str(&text).unwrap();
    let list = |section: &str, name: &str| rules[section][name].as_array().unwrap().clone();
    let names = |name| {
        let crates = list("bans", name).into_iter();
        crates.map(|it| it["crate"].as_str().unwrap().to_owned()).collect()
    };
    let licenses = list("licenses", "allow").into_iter();
    Rules {
        licenses: licenses.map(|it| it.as_str().unwrap().to_owned()).collect(),
        banned: names("deny"),
        skipped: names("skip"),
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Everything that is built here, with all features.
fn metadata() -> Value {
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "metadata",
        "--format-version=1",
        "--offline",
        "--locked",
        "--all-features",
        "--filter-platform",
        host,
    ]);
    let output = within(LIMIT, move || command.current_dir(root()).output().unwrap());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Each package with its version and its licence.
fn packages(metadata: &Value) -> Vec<[&str; 3]> {
    let built: BTreeSet<_> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["id"].as_str())
        .collect();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let packages = packages.filter(|package| built.contains(&package["id"].as_str()));
    packages
        .map(|package| ["name", "version", "license"].map(|name| package[name].as_str().unwrap_or_default()))
        .collect()
}

/// What is wrong with these packages.
fn faults(packages: &[[&str; 3]], rules: &Rules) -> Vec<String> {
    let mut faults = Vec::new();
    let mut versions = BTreeMap::<&str, usize>::new();
    for [name, version, license] in packages {
        *versions.entry(name).or_default() += usize::from(!rules.is_skipped(name, version));
        if !is_allowed(license, &rules.licenses) {
            faults.push(format!("{name} {version}: the licence {license:?} is not on the list"));
        }
        if rules.banned.contains(*name) {
            faults.push(format!("{name} {version} is banned"));
        }
    }
    let twice = versions.into_iter().filter(|(_, count)| *count > 1);
    faults.extend(twice.map(|(name, count)| format!("{name} comes in {count} versions")));
    faults
}

/// True if a licence expression can be met with the licences on the list: `OR` chooses, `AND` binds more strongly.
fn is_allowed(license: &str, list: &BTreeSet<String>) -> bool {
    let license = license.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<_> = license.split_whitespace().collect();
    let mut rest = &words[..];
    any_of(&mut rest, list) && rest.is_empty()
}

fn any_of(rest: &mut &[&str], list: &BTreeSet<String>) -> bool {
    let mut is_met = all_of(rest, list);
    while let ["OR", after @ ..] = *rest {
        *rest = after;
        is_met |= all_of(rest, list);
    }
    is_met
}

fn all_of(rest: &mut &[&str], list: &BTreeSet<String>) -> bool {
    let mut is_met = one(rest, list);
    while let ["AND", after @ ..] = *rest {
        *rest = after;
        is_met &= one(rest, list);
    }
    is_met
}

fn one(rest: &mut &[&str], list: &BTreeSet<String>) -> bool {
    match *rest {
        ["(", after @ ..] => {
            *rest = after;
            let is_met = any_of(rest, list);
            let is_closed = rest.first() == Some(&")");
            *rest = rest.get(1..).unwrap_or_default();
            is_met && is_closed
        }
        [name, "WITH", exception, after @ ..] => {
            *rest = after;
            list.contains(&format!("{name} WITH {exception}"))
        }
        [name, after @ ..] => {
            *rest = after;
            list.contains(*name)
        }
        [] => false,
    }
}

#[test]
fn dependencies_keep_the_rules() {
    let metadata = metadata();
    let packages = packages(&metadata);
    assert!(packages.len() > 50, "{packages:?}");
    assert_eq!(faults(&packages, &rules()), Vec::<String>::new());
}

/// Each rule finds what it is for, among the dependencies as they are.
#[test]
fn a_dependency_against_the_rules_is_found() {
    let (metadata, rules) = (metadata(), rules());
    let packages = packages(&metadata);
    for (wrong, expected) in [
        (
            ["copyleft", "1.0.0", "GPL-3.0-only"],
            "copyleft 1.0.0: the licence \"GPL-3.0-only\" is not on the list",
        ),
        (
            ["both", "1.0.0", "MIT AND GPL-3.0-only"],
            "both 1.0.0: the licence \"MIT AND GPL-3.0-only\" is not on the list",
        ),
        (["none", "1.0.0", ""], "none 1.0.0: the licence \"\" is not on the list"),
        (["tokio", "1.0.0", "MIT"], "tokio 1.0.0 is banned"),
        (["serde_json", "0.9.0", "MIT"], "serde_json comes in 2 versions"),
    ] {
        let with = [&packages[..], &[wrong]].concat();
        assert_eq!(faults(&with, &rules), [expected]);
    }
    let without_one = Rules {
        licenses: rules.licenses.iter().filter(|it| *it != "ISC").cloned().collect(),
        ..rules
    };
    assert!(!faults(&packages, &without_one).is_empty());
}

#[test]
fn a_licence_is_met_by_one_of_its_choices() {
    let list = ["MIT", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"]
        .map(String::from)
        .into();
    for met in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0-only OR MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception",
        "GPL-3.0-only OR MIT AND Unicode-3.0",
    ] {
        assert!(is_allowed(met, &list), "{met}");
    }
    for not_met in [
        "",
        "Apache-2.0",
        "MIT AND Apache-2.0",
        "(MIT OR Apache-2.0) AND GPL-3.0-only",
        "(GPL-3.0-only OR ISC) AND MIT",
        "MIT WITH LLVM-exception",
        "(MIT",
        "MIT)",
        "MIT MIT",
    ] {
        assert!(!is_allowed(not_met, &list), "{not_met}");
    }
}
