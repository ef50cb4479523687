//! A way to end the socket under a response that its peer does not read.

use tokio_util::sync::CancellationToken;

/// Ends the socket under a request. The accept loop puts one into the request's extensions, and drops the connection
/// when [`Sever::severed`] resolves.
///
/// A transport inside an HTTP response needs it: while a peer does not read, hyper keeps what it was given and asks
/// for nothing more, so ending or failing the body reaches nobody. Without one in the extensions such a socket lives
/// until TCP gives up (`TCP_USER_TIMEOUT`).
#[derive(Debug, Clone, Default)]
pub struct Sever(CancellationToken);

impl Sever {
    /// One for a new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the socket.
    pub fn sever(&self) {
        self.0.cancel();
    }

    /// Whether the socket shall be dropped, and with it what is on its way: the accept loop resets it then.
    #[must_use]
    pub fn is_severed(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves once the socket shall be dropped. Cancel safe.
    pub async fn severed(&self) {
        self.0.cancelled().await;
    }
}
