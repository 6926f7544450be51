//! How tests start programs that they send signals.

use std::ffi::OsStr;
use std::process::Command;

/// A program as a terminal starts it: it ignores no signal. A shell has what it runs in the background ignore some, these tests
/// too, and children inherit that.
pub(crate) fn program(path: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("/usr/bin/env");
    command.arg("--default-signal=INT,TERM,HUP").arg(path);
    command
}
