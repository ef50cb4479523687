#![allow(clippy::panic, reason = "a test fails by it")]

mod before;
mod contract;
mod faults;
mod hostile;
mod maintenance;
mod model;
mod parts;
mod replayed;
mod tear;
mod young;
