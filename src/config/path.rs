//! Paths as people write them, expanded as a shell would, since nothing else expands them in a file.

use std::ffi::OsString;
use std::path::PathBuf;

/// Replaces a leading `~/` by the home, and `$NAME` and `${NAME}` by environment variables. Fails with the reason why
/// this is no path, or cannot be expanded.
pub(super) fn expand(text: &str, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, String> {
    let of = |name: &str| variable(name).ok_or_else(|| format!("{name} is not set"));
    let unnamed = || "no name follows a $".to_owned();
    if is_url(text) {
        return Err("it is a URL, not a path".into());
    }
    if text.split('/').any(is_specifier) {
        return Err("% is expanded only in systemd units".into());
    }
    let mut path = OsString::new();
    let mut rest = text;
    if let Some(after) = text.strip_prefix('~') {
        if !after.is_empty() && !after.starts_with('/') {
            return Err("~ stands for the home folder of this user only".into());
        }
        path.push(of("HOME")?);
        rest = after;
    }
    while let Some((before, after)) = rest.split_once('$') {
        path.push(before);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, behind) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or_else(unnamed)?,
            None => after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len())),
        };
        match name {
            "" => return Err(unnamed()),
            _ => path.push(of(name)?),
        }
        rest = behind;
    }
    path.push(rest);
    Ok(path.into())
}

/// True for `scheme://..`, and for the forms of SQLite's addresses.
fn is_url(text: &str) -> bool {
    let is_scheme = |before: &str| !before.is_empty() && before.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let has_scheme = text.split_once("://").is_some_and(|(before, _)| is_scheme(before));
    has_scheme || ["file:", "sqlite:"].iter().any(|scheme| text.starts_with(scheme))
}

fn is_specifier(part: &str) -> bool {
    matches!(part.as_bytes(), [b'%', letter] if letter.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_expand_is_expanded() {
        let variable = |name: &str| match name {
            "HOME" => Some("/home/me".into()),
            "XDG_RUNTIME_DIR" => Some("/run/user/1".into()),
            _ => None,
        };
        for (text, path) in [
            ("/a/b~", "/a/b~"),
            ("a", "a"),
            ("/a:b/100%/%%h", "/a:b/100%/%%h"),
            ("~", "/home/me"),
            ("~/x", "/home/me/x"),
            ("$XDG_RUNTIME_DIR/x", "/run/user/1/x"),
            ("${XDG_RUNTIME_DIR}x", "/run/user/1x"),
            ("$HOME/$XDG_RUNTIME_DIR", "/home/me//run/user/1"),
        ] {
            assert_eq!(expand(text, variable), Ok(path.into()), "{text}");
        }
        for (text, reason) in [
            ("~root/x", "~ stands for"),
            ("$NOBODY/x", "NOBODY is not set"),
            ("/a/$", "no name"),
            ("${HOME", "no name"),
            ("${}/x", "no name"),
            ("sqlite:///~/x.db", "a URL"),
            ("sqlite:x.db", "a URL"),
            ("file:~/x.db?mode=ro", "a URL"),
            ("%h/x.db", "systemd"),
            ("/run/%i/x", "systemd"),
        ] {
            let found = expand(text, variable).unwrap_err();
            assert!(found.contains(reason), "{text}: {found}");
        }
        let homeless = expand("~/x", |_| None).unwrap_err();
        assert_eq!(homeless, "HOME is not set");
    }
}
