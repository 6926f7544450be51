//! The stores by alias, and their options.

use std::sync::Arc;

use tablecast::stores::memory::MemoryStore;
use tablecast::{Config, ErrorKind, Stores, Topic};

use crate::suite::{assert_kind, keys};

#[test]
fn a_program_adds_its_own() {
    let mut stores = Stores::new();
    let mine = MemoryStore::new();
    stores
        .register("mine", {
            let mine = mine.clone();
            move |_: &Config| Ok(Arc::new(mine.clone()))
        })
        .unwrap();
    for alias in ["mine", "memory", ""] {
        assert_kind(
            stores.register(alias, |_: &Config| Ok(Arc::new(MemoryStore::new()))),
            ErrorKind::InvalidInput,
        );
    }
    let mut config = Config::default();
    config.nb_db_class = "mine".into();
    stores
        .open(&config)
        .unwrap()
        .create("t", "k", "v", &Topic::ALL)
        .unwrap();
    assert_eq!(keys(&mine, "t", None), ["k"]);
    assert!(format!("{stores:?}").contains("\"mine\""));
}

#[test]
fn an_unknown_alias_names_those_that_there_are() {
    let mut config = Config::default();
    config.nb_db_class = "oracle".into();
    let error = Stores::new().open(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    for part in ["nb_db_class", "\"oracle\"", "memory"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn the_alias_memory_is_one_store_with_its_own_options() {
    let mut config = Config::default();
    config.nb_db_class = "memory".into();
    let first = Stores::new().open(&config).unwrap();
    config.batch_amount = 2;
    let second = Stores::new().open(&config).unwrap();
    for key in ["a", "b", "c"] {
        first.create("registry", key, "v", &Topic::ALL).unwrap();
    }
    assert_eq!(second.page_of_keys("registry", None, None).unwrap().items, ["a", "b"]);
    assert_eq!(first.page_of_keys("registry", None, None).unwrap().items.len(), 3);
}

#[cfg(feature = "sqlite")]
#[test]
fn sqlite_is_the_default_and_its_errors_name_the_option() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.sqlite_path = folder.path().join("deep/down/rows.db");
    config.batch_amount = 2;
    let store = Stores::new().open(&config).unwrap();
    for key in ["a", "b", "c"] {
        store.create("t", key, "v", &Topic::ALL).unwrap();
    }
    assert_eq!(store.page_of_keys("t", None, None).unwrap().items, ["a", "b"]);
    assert!(config.sqlite_path.is_file());

    config.sqlite_path = folder.path().to_owned();
    let error = Stores::new().open(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let text = error.to_string();
    assert!(
        text.contains("sqlite_path") && text.contains(folder.path().to_str().unwrap()),
        "{text}"
    );
}
