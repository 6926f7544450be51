//! Errors about options: which, where it was set, what was expected, and what may have been meant.

use std::fmt::{Debug, Write as _};

use super::address::{self, split_key};
use super::options::{OPTIONS, OptionDoc};
use super::source::{SECTION, Source};
use crate::error::{Error, ErrorKind, Result};

/// True if no error shows this value: it is a password, or contains one where it cannot be told apart.
pub(super) fn is_hidden(option: &OptionDoc, value: &str) -> bool {
    let has_login = |item: &str| {
        let address = item.trim_start_matches(['"', '@', '>']);
        let has_key = split_key(address).1.is_some();
        !has_key && item.contains('@') && (address.contains('@') || value.contains("://") && !item.contains("://"))
    };
    match option.name {
        "remote_db_hosts" => value.contains('?') || value.split(',').any(has_login),
        "publishers" => value.split(',').any(has_login),
        _ => option.secret,
    }
}

/// The error of a value that the option does not accept.
pub(super) fn wrong(option: &OptionDoc, value: &str, source: Source<'_>) -> Error {
    let is_text = matches!(option.toml_type, "string" | "array");
    match source {
        Source::File(_) if is_text => described(option, value, source, true),
        // As the file has it.
        Source::File(_) => described(option, value.trim_matches('"'), source, false),
        _ => described(option, value, source, false),
    }
}

/// The error of a value that has another type than the option.
pub(super) fn wrong_type(option: &OptionDoc, value: &str, source: Source<'_>) -> Error {
    described(option, value, source, true)
}

fn described(option: &OptionDoc, value: &str, source: Source<'_>, is_typed: bool) -> Error {
    let what = source.describe(&source.spell(option.name));
    let option_from = match source {
        Source::Environment | Source::Flag => format!("option {} from ", option.name),
        Source::File(_) | Source::Program => String::new(),
    };
    let form = match (is_typed, option.toml_type) {
        (true, "string") => "a string: ",
        (true, "array") => "an array of strings without commas: ",
        (true, "integer") if value.starts_with('"') => "a number without quotes: ",
        (true, "boolean") if value.starts_with('"') => "a word without quotes: ",
        _ => "",
    };
    let value = match is_hidden(option, value) {
        true => "*** (hidden, since it may hold a password)",
        false => value,
    };
    let value = address::without_password(value);
    let accepts = format!("{form}{} {}", option.accepts, option.unit);
    let context = format!("{option_from}{what}: expected {}, got {value}", accepts.trim_end());
    Error::new(ErrorKind::Config, context)
}

pub(super) fn contradiction<T>(name: &str, value: impl Debug, expected: &str, other: impl Debug) -> Result<T> {
    let context = format!("option {name}: expected {expected} ({other:?}), got {value:?}");
    Err(Error::new(ErrorKind::Config, context))
}

pub(super) fn unknown(spelled: &str, source: Source<'_>) -> Error {
    let mut context = format!("unknown {}", source.describe(spelled));
    let near = OPTIONS.iter().map(|option| source.spell(option.name));
    let near = near.map(|known| (distance(&known, spelled), known)).min();
    if let Some((distance, known)) = near
        && distance <= 3
    {
        let _ = write!(context, "; did you mean {known}?");
    }
    Error::new(ErrorKind::Config, context)
}

/// The error of a section in a file whose `sections` do not include the one for options.
pub(super) fn unknown_section<'a>(name: &str, mut sections: impl Iterator<Item = &'a str>, file: &str) -> Error {
    let misspelled = sections.find(|section| distance(section, SECTION) <= 3);
    let context = match misspelled {
        Some(misspelled) => format!("unknown section [{misspelled}] in file {file}; did you mean [{SECTION}]?"),
        None => format!(
            "unknown section [{name}] in file {file}: in a file with other sections, put the options into [{SECTION}]"
        ),
    };
    Error::new(ErrorKind::Config, context)
}

/// The error of an option that would not be read, since the file has a section for options.
pub(super) fn outside_section(name: &str, file: &str) -> Error {
    let context = format!("option {name} stands outside [{SECTION}] in file {file}; move it there");
    Error::new(ErrorKind::Config, context)
}

/// Number of characters to insert, remove or replace to turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.chars().count()]
}
