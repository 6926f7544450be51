//! Paths as people write them, expanded as a shell would, since nothing else expands them in a file.

use std::ffi::OsString;
use std::path::PathBuf;

/// Replaces a leading `~/` by the home, and `$NAME` and `${NAME}` by environment variables. Fails with what cannot be
/// expanded: a variable that is not set, or the home of another user.
pub(super) fn expand(text: &str, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, &str> {
    let mut path = OsString::new();
    let mut rest = text;
    if let Some(after) = text.strip_prefix('~') {
        if !after.is_empty() && !after.starts_with('/') {
            return Err(text);
        }
        path.push(variable("HOME").ok_or("~")?);
        rest = after;
    }
    while let Some((before, after)) = rest.split_once('$') {
        path.push(before);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, behind) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or(text)?,
            None => after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len())),
        };
        match name {
            "" => return Err(text),
            _ => path.push(variable(name).ok_or(name)?),
        }
        rest = behind;
    }
    path.push(rest);
    Ok(path.into())
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
            ("~", "/home/me"),
            ("~/x", "/home/me/x"),
            ("$XDG_RUNTIME_DIR/x", "/run/user/1/x"),
            ("${XDG_RUNTIME_DIR}x", "/run/user/1x"),
            ("$HOME/$XDG_RUNTIME_DIR", "/home/me//run/user/1"),
        ] {
            assert_eq!(expand(text, variable), Ok(path.into()), "{text}");
        }
        for (text, wrong) in [
            ("~root/x", "~root/x"),
            ("$NOBODY/x", "NOBODY"),
            ("/a/$", "/a/$"),
            ("${HOME", "${HOME"),
            ("${}/x", "${}/x"),
        ] {
            assert_eq!(expand(text, variable), Err(wrong), "{text}");
        }
    }
}
