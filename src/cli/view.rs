//! How `listen` shows what happens.

use std::io;

use crate::client::{Closed, Incoming};

/// A way of showing. Every call writes whole lines and flushes: readers of a pipe see an event when it arrives.
pub(super) trait View {
    /// The first attempt goes to this address.
    fn connecting(&mut self, address: &str) -> io::Result<()>;

    /// Something was heard. `address` is where the next attempt goes, should this be the end of a connection.
    fn incoming(&mut self, incoming: &Incoming, address: &str) -> io::Result<()>;

    /// The user wants to stop.
    fn interrupted(&mut self) -> io::Result<()>;

    /// It is over.
    fn closed(&mut self, how: Closed) -> io::Result<()>;
}
