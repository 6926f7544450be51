//! The command-line tool, as a user runs it.
#![cfg(feature = "bin")]

mod away;
mod cli;
#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod db;
mod demo;
#[path = "../common/host.rs"]
mod host;
mod package;
#[path = "../common/process.rs"]
mod process;
mod renamed;
mod replica;
#[cfg(feature = "redis")]
#[path = "../common/redis.rs"]
mod servers;
mod service;
#[path = "../common/staged.rs"]
mod staged;
mod status;
mod storm;
mod supervisor;
mod terminal;
mod top;
