#![allow(clippy::panic, reason = "a test fails by it")]

mod before;
mod contract;
mod faults;
mod full_disk;
mod hostile;
mod maintenance;
mod model;
mod parts;
mod replayed;
mod tear;
mod young;
