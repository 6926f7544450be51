//! Targets of the fuzzer: options from every source, and addresses in them.

use std::sync::LazyLock;

use super::address::{is_curve_key, is_uri, join_key, split_key, without_password};
use super::options::{Config, OPTIONS};
use super::{Secret, Source};

/// The defaults, and their texts.
static DEFAULTS: LazyLock<(Config, Vec<String>)> = LazyLock::new(|| {
    let config = Config::default();
    let texts = OPTIONS.iter().map(|option| (option.get)(&config)).collect();
    (config, texts)
});

/// A file; or, after `--` or `$`, the flags or the variables, one a line.
pub(crate) fn options(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    let (defaults, texts) = &*DEFAULTS;
    let mut config = defaults.clone();
    if let Some(flags) = text.strip_prefix("--") {
        for (name, value) in flags.lines().filter_map(|line| line.split_once('=')) {
            let before = config.get(name);
            if config.set(name, value, Source::Flag).is_err() {
                assert_eq!(config.get(name), before);
            }
        }
    } else if let Some(variables) = text.strip_prefix('$') {
        let variables = variables.lines().filter_map(|line| line.split_once('='));
        let _ = config.apply_env(variables.map(|(name, value)| (format!("TABLECAST_{name}"), value)));
    } else {
        let _ = config.apply_toml(text, "file");
    }
    shows_no_password(&config);
    for (option, default) in OPTIONS.iter().zip(texts) {
        assert_eq!((option.check)(&config), Ok(()), "{}", option.name);
        let value = (option.get)(&config);
        // Set again, these are expanded again.
        if value == *default || value.starts_with('~') || value.contains('$') {
            continue;
        }
        let mut again = defaults.clone();
        assert_eq!((option.set)(&mut again, &value), Ok(()), "{}", option.name);
        assert_eq!((option.get)(&again), value, "{}", option.name);
    }
    if config.validate().is_ok() {
        assert!(config.publish_address().is_ok());
        let _ = (
            config.listen_addresses(),
            config.multiproc_address(),
            config.redis_address(),
        );
    }
}

fn shows_no_password(config: &Config) {
    let password = config.redis_password.expose();
    if password.len() < 8 {
        return;
    }
    assert_eq!(config.get("redis_password").as_deref(), Some("***"));
    let public = Config {
        redis_password: Secret::default(),
        ..config.clone()
    };
    let by_chance = format!("{public:?}").contains(password);
    assert!(by_chance || !format!("{config:?}").contains(password));
}

/// An address; returns true if the option `publishers` takes it.
pub(crate) fn address(text: &str) -> bool {
    let shown = without_password(text);
    assert_eq!(without_password(&shown), shown);
    let (uri, key) = split_key(text);
    if let Some(key) = key {
        assert_eq!(join_key(uri, key), text);
        assert!(!is_uri(text) || is_curve_key(key));
    } else if is_uri(text) && text.trim_start_matches(['@', '>']).starts_with("tcp://") {
        let key = "k".repeat(40);
        let with_key = join_key(text, &key);
        assert_eq!(split_key(&with_key), (text, Some(&*key)));
        assert!(is_uri(&with_key));
    }
    is_uri(text)
}
