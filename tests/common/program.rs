//! Starting of programs that tests send signals to.

use std::ffi::OsStr;
use std::process::Command;

/// Starts a program as a terminal does, without ignored signals. A shell makes background processes ignore some, these
/// tests included, and children inherit that.
pub(crate) fn program(path: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("/usr/bin/env");
    command.arg("--default-signal=INT,TERM,HUP").arg(path);
    command
}
