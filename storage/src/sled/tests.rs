#![allow(clippy::panic, reason = "a test fails by it")]

mod contract;
mod faults;
mod hostile;
mod maintenance;
mod model;
mod parts;
mod replayed;
mod tear;
