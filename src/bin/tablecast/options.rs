//! The flags for the options of the library, and those that `-h` of each command shows.

use clap::{Arg, Command};
use tablecast::Config;
use tablecast::config::OptionDoc;

const DISCOVERY: &str = "Options for discovery, monitors and status updates";

/// The subject under which the help shows an option.
fn heading(option: &str) -> &'static str {
    let begins = |with: &[&str]| with.iter().any(|with| option.starts_with(with));
    match option {
        _ if begins(&["curve_"]) => "Options for keys",
        _ if begins(&["redis_", "remote_db_"]) => "Options for Redis",
        "nb_db_class" | "sqlite_path" | "batch_amount" | "store_timeout_ms" | "deletes_remembered" => {
            "Options for the store"
        }
        "publisher_role" | "publisher_timeout_ms" | "publisher_advertise" => DISCOVERY,
        _ if begins(&["discover", "listener_", "ack_", "monitor_"]) => DISCOVERY,
        _ if begins(&["queue_", "dispatcher_"]) => "Options for the queue and the callbacks",
        _ if begins(&["max_", "send_hwm", "receive_hwm", "multicast_"]) => "Options for limits",
        _ if begins(&["pub", "topics", "codec", "join_frames"]) => "Options of the network",
        _ => "Options for times and losses",
    }
}

/// The flag of an option.
pub(crate) fn flag(option: &'static OptionDoc) -> Arg {
    let default = match option.default {
        "" => "(empty)".to_owned(),
        default => [default, option.unit].join(" "),
    };
    let default = default.trim_end();
    let help = format!("{} [default: {default}]", option.doc);
    let long = format!("{help} [accepts: {}] [env: {}]", option.accepts, option.variable());
    let short = SHORT.iter().find(|(name, _)| *name == option.name);
    let help = short.map_or(help, |(_, short)| format!("{short} [default: {default}]"));
    let arg = Arg::new(option.name)
        .long(option.flag())
        .value_name(match option.unit {
            "" => "VALUE".to_owned(),
            unit => unit.to_uppercase(),
        })
        .help(help)
        .long_help(long)
        .help_heading(heading(option.name))
        .hide_short_help(true)
        .global(true);
    match option.name {
        "pub_sub_driver" => arg.visible_alias("driver"),
        "nb_db_class" => arg.visible_alias("store"),
        _ => arg,
    }
}

const DRIVER: &[&str] = &["pub_sub_driver", "remote_db_hosts"];
const STORE: &[&str] = &["nb_db_class", "sqlite_path", "remote_db_hosts"];
const BIND: &[&str] = &["publisher_bind_address", "publisher_port"];
const SOCKET: &[&str] = &["publisher_multiproc_socket"];
const CODEC: &[&str] = &["codec"];
const DISCOVER: &[&str] = &["discover"];
const MONITORS: &[&str] = &["monitor_tables"];

/// The options that `-h` of a command shows, and of the commands below it; the others are in `--help`.
fn needs(command: &str) -> &'static [&'static [&'static str]] {
    match command {
        "service" => &[DRIVER, BIND, SOCKET, DISCOVER, MONITORS, STORE],
        "publish" => &[DRIVER, SOCKET, BIND, CODEC],
        "watch" | "replica" | "status" | "top" => &[DRIVER, DISCOVER, STORE],
        "listen" | "notify" => &[DRIVER, DISCOVER, SOCKET, BIND, STORE],
        "publishers" => &[DRIVER, STORE],
        "listeners" | "db" => &[STORE],
        "db create" | "db set" | "db delete" | "db write" => &[DRIVER, SOCKET, CODEC],
        "demo" | "storm" => &[&["pub_sub_driver", "nb_db_class"]],
        _ => &[],
    }
}

/// What `-h` says about the options that it shows.
const SHORT: [(&str, &str); 10] = [
    ("pub_sub_driver", "Driver between hosts: zmq or redis."),
    ("publisher_bind_address", "Address that a publisher binds."),
    ("publisher_port", "Port that a publisher binds; 0 takes any free one."),
    ("publisher_multiproc_socket", "Socket of this host's publisher service."),
    ("codec", "Format of the messages sent: msgpack, json or dragonflow-1."),
    (
        "remote_db_hosts",
        "Servers of Redis: host:port or URLs, with commas between them.",
    ),
    (
        "nb_db_class",
        "Store: sqlite, a file that the processes of a host share, or redis.",
    ),
    ("sqlite_path", "File of the store sqlite."),
    (
        "monitor_tables",
        "Tables that other programs write, whose changes the service publishes.",
    ),
    (
        "discover",
        "true: publishers that bind a port register in the store, and subscribers follow them.",
    ),
];

/// The commands that read no options; their help shows none.
const PLAIN: [&str; 3] = ["completions", "man", "keygen"];

/// The last line of the help of a command that reads options.
const MORE: &str = "Options may also stand in a file or in the environment; `tablecast config` prints those in force.";

/// The command, of this path, and those below it, with the options that fit it. A negative number after a flag is its
/// value, and not another flag.
pub(crate) fn fitted(command: Command, path: &str) -> Command {
    let is_plain = PLAIN.contains(&path);
    let needed = |option: &OptionDoc| needs(path).iter().any(|group| group.contains(&option.name));
    let options = Config::options().iter();
    let flags = options.filter(|option| is_plain || needed(option)).map(|option| {
        let flag = flag(option);
        match is_plain {
            true => flag.hide(true),
            false => flag.hide_short_help(false),
        }
    });
    // The root has all flags already.
    let command = match path {
        "" => command,
        _ if is_plain => command.args(flags),
        _ => command.args(flags).after_help(MORE),
    };
    let command = command.mut_args(|arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    });
    command.mut_subcommands(|below| {
        let path = [path, below.get_name()].join(" ");
        fitted(below, path.trim_start())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_options() {
        let is_option = |name: &str| Config::options().iter().any(|option| option.name == name);
        assert!(SHORT.iter().all(|(name, _)| is_option(name)));
        for group in [DRIVER, STORE, BIND, SOCKET, CODEC, DISCOVER, MONITORS] {
            assert!(group.iter().all(|name| is_option(name)), "{group:?}");
        }
    }
}
