//! The command-line tool, as a user runs it.
#![cfg(feature = "bin")]

mod away;
mod cli;
#[path = "../common/mod.rs"]
mod common;
mod crowd;
#[path = "../common/dashboard.rs"]
mod dashboard;
mod db;
mod demo;
mod generate;
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
mod system;
mod terminal;
mod top;
mod usage;
