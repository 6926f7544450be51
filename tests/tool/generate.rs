//! What packages are made of: completions, as each shell takes them.
#![cfg(unix)]

use std::fs;
use std::process::Command;

use crate::common::{skip, within};
use crate::process::{LIMIT, run, tablecast};

/// Runs a script of this shell in a folder with its completions. Returns what it prints, `None` where there is no such
/// shell.
fn completed(shell: &str, file: &str, options: &[&str], script: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let end = run(tablecast(["completions", shell]));
    assert_eq!(end.code, Some(0), "{end:#?}");
    fs::write(folder.path().join(file), end.stdout.join("\n") + "\n").unwrap();
    let mut command = Command::new(shell);
    command.args(options).args(["-c", script]);
    command.current_dir(&folder).env("HOME", folder.path());
    if Command::new(shell).arg("--version").output().is_err() {
        skip(format!("no {shell} here"));
        return None;
    }
    let end = run(command);
    assert_eq!((end.code, &*end.stderr), (Some(0), ""), "{end:#?}");
    Some(end.stdout.join("\n"))
}

#[test]
fn bash_completes_commands_and_flags() {
    within(LIMIT, || {
        const SCRIPT: &str = r#"source ./tablecast.bash; of=$(complete -p tablecast); of=${of#*-F }; of=${of%% *}
            COMP_WORDS=(tablecast wat) COMP_CWORD=1; $of tablecast wat tablecast; echo "${COMPREPLY[@]}"
            COMP_WORDS=(tablecast watch --tab) COMP_CWORD=2; $of tablecast --tab watch; echo "${COMPREPLY[@]}"
            COMP_WORDS=(tablecast "") COMP_CWORD=1; $of tablecast "" tablecast; echo "${COMPREPLY[@]}""#;
        let options = ["--noprofile", "--norc"];
        if let Some(printed) = completed("bash", "tablecast.bash", &options, SCRIPT) {
            let [command, flag, all] = printed.lines().collect::<Vec<_>>()[..] else {
                panic!("{printed}");
            };
            assert_eq!((command, flag), ("watch", "--table"));
            let all: Vec<_> = all.split(' ').collect();
            assert!(all.contains(&"storm") && all.contains(&"help"), "{all:?}");
            assert!(!all.contains(&"storm-listener"), "a command of the tool's own: {all:?}");
        }
    });
}

#[test]
fn zsh_completes_commands_and_flags() {
    within(LIMIT, || {
        // Completions need a terminal, which zsh makes for another one. It waits for what is completed.
        const SCRIPT: &str = r#"zmodload zsh/zpty; zpty z "zsh -f -i"
            zpty -w z 'PS1=; TERM=dumb; unset zle_bracketed_paste; fpath=('$PWD' $fpath)'
            zpty -w z 'autoload -Uz compinit; compinit -D -u; echo beg""in'; zpty -r -m z said '*begin*'
            zpty -w -n z $'tablecast wat\t'; zpty -r -m z said '*tablecast watch *'
            zpty -w -n z $'--tab\t'; zpty -r -m z said '*--table*'
            zpty -d z; print completed"#;
        if let Some(printed) = completed("zsh", "_tablecast", &["-f"], SCRIPT) {
            assert_eq!(printed, "completed");
        }
    });
}

#[test]
fn fish_completes_commands_and_flags() {
    within(LIMIT, || {
        const SCRIPT: &str = "source tablecast.fish; complete -C 'tablecast wat'; complete -C 'tablecast watch --tab'";
        if let Some(printed) = completed("fish", "tablecast.fish", &["--no-config"], SCRIPT) {
            let words: Vec<_> = printed.lines().filter_map(|line| line.split('\t').next()).collect();
            assert_eq!(words, ["watch", "--table"], "{printed}");
        }
    });
}
