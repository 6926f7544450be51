//! Updates in the form of input: one JSON object per line, or flags.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tablecast::{Action, DbUpdate, Error, ErrorKind, Result, Topic};

/// The error of a line.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// One line of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row<'a> {
    #[serde(borrow)]
    table: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    action: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    priority: Option<i32>,
    timestamp: Option<i64>,
}

/// Parses a line that is an update to publish.
pub(crate) fn parse(line: &str) -> std::result::Result<DbUpdate, Fault> {
    let row = Row::parse(line)?;
    let mut update = row.update()?;
    update.timestamp = row.timestamp.unwrap_or(update.timestamp);
    Ok(checked(update)?)
}

/// Parses a line that is a write of a row.
pub(crate) fn parse_write(line: &str) -> std::result::Result<DbUpdate, Fault> {
    let update = Row::parse(line)?.update()?;
    match (&update.action, &update.value) {
        (Action::Other(word), _) => Err(format!("action {:?}: not create, set or delete", word.as_str()).into()),
        (Action::Create | Action::Set, None) => Err("no value".into()),
        _ => Ok(update),
    }
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> std::result::Result<Row<'a>, Fault> {
        if !line.trim_start().starts_with('{') {
            return Err("not a JSON object, at column 1".into());
        }
        // serde_json counts lines within this one.
        let row = serde_json::from_str(line).map_err(|e| e.to_string().replace(" at line 1 column ", " at column "));
        Ok(row?)
    }

    fn update(&self) -> std::result::Result<DbUpdate, Fault> {
        let mut update = update(&self.table, &self.key, self.action.as_deref(), self.topic.as_deref())?;
        update.value = self.value.map(text).transpose()?;
        update.priority = self.priority.unwrap_or(update.priority);
        Ok(update)
    }
}

/// An update without a value; the default action is to set.
pub(crate) fn update(table: &str, key: &str, action: Option<&str>, topic: Option<&str>) -> Result<DbUpdate> {
    let update = DbUpdate::new(table, key, Action::from(action.unwrap_or("set")));
    match topic {
        Some(topic) => Ok(update.topic(Topic::new(topic)?)),
        None => Ok(update),
    }
}

/// The update, if it can be published.
pub(crate) fn checked(update: DbUpdate) -> Result<DbUpdate> {
    for (name, text) in [("table", update.table.as_str()), ("action", update.action.as_str())] {
        if text.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, format!("{name} must not be empty")));
        }
    }
    Ok(update)
}

/// A string stands for itself, anything else for its JSON text.
fn text(value: &RawValue) -> std::result::Result<String, Fault> {
    let text = value.get();
    let failed = |e: serde_json::Error| {
        let what = e.to_string();
        format!("value: {}", what.split(" at line").next().unwrap_or(&what))
    };
    // It may be invalid: half of a surrogate pair is no character.
    match text.starts_with('"') {
        true => Ok(serde_json::from_str(text).map_err(failed)?),
        false => {
            let _: serde_json::Value = serde_json::from_str(text).map_err(failed)?;
            Ok(text.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_an_update() {
        let update = parse(r#"{"table":"t","key":"k"}"#).unwrap();
        assert_eq!(
            (&*update.table, &*update.key, update.action, update.value),
            ("t", "k", Action::Set, None)
        );
        assert_eq!((update.topic, update.priority), (Topic::ALL, 5));

        let line =
            r#" {"table":"t\"","key":"","action":"move","topic":"x","priority":-1,"timestamp":7,"value":"\"a\""} "#;
        let update = parse(line).unwrap();
        assert_eq!((&*update.table, update.action.as_str()), ("t\"", "move"));
        assert_eq!((update.topic.as_str(), update.priority, update.timestamp), ("x", -1, 7));
        assert_eq!(update.value.as_deref(), Some("\"a\""));
    }

    #[test]
    fn a_write_names_what_a_store_does() {
        // A store takes any name of a table.
        let write = parse_write(r#"{"table":"","key":"k","action":"delete"}"#).unwrap();
        assert_eq!((&*write.table, write.action), ("", Action::Delete));
        for (fields, named) in [
            (r#""action":"move""#, "\"move\""),
            (r#""action":"""#, "\"\""),
            (r#""value":null"#, "no value"),
        ] {
            let line = format!(r#"{{"table":"t","key":"k",{fields}}}"#);
            let error = parse_write(&line).unwrap_err().to_string();
            assert!(error.contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn a_value_is_text_or_taken_as_its_text() {
        let values = [
            ("null", None),
            (r#""""#, Some("")),
            ("1.50", Some("1.50")),
            (r#"{"b": [1]}"#, Some(r#"{"b": [1]}"#)),
        ];
        for (json, value) in values {
            let update = parse(&format!(r#"{{"table":"t","key":"k","value":{json}}}"#)).unwrap();
            assert_eq!(update.value.as_deref(), value);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let bad = [
            ("x", "column 1"),
            (r#"["t","k",null,null,null,null,null]"#, "object"),
            (r#"{"table":"t"}"#, "`key`"),
            (r#"{"table":"t","key":"k","colour":1}"#, "`colour`"),
            (r#"{"table":"t","key":"k","topic":""}"#, "topic"),
            (r#"{"table":"","key":"k"}"#, "table"),
            (r#"{"table":"t","key":"\ud800"}"#, "hex escape"),
            (r#"{"table":"t","key":"k","value":"a\udfff"}"#, "hex escape"),
            (r#"{"table":"t","key":"k","value":{"a":["\ud800"]}}"#, "hex escape"),
            (r#"{"table":"t","key":"k","value":{"\ud800":1}}"#, "hex escape"),
            (r#"{"table":"t","key":"k","priority":9999999999}"#, "9999999999"),
        ];
        for (line, named) in bad {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
