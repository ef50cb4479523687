//! The engine in memory: the model that the others are tested against. Nothing survives the process.

mod compacted;
mod log;
mod records;

pub use self::log::MemoryLog;
pub use self::records::MemoryRecords;

#[cfg(test)]
mod tests;
