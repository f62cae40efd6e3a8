//! Ctrl-C, which ends a session in good order.

/// The number that an interrupt has elsewhere.
const SIGINT: u8 = 2;

/// Listens for Ctrl-C.
pub struct Termination;

impl Termination {
    /// Prepares to listen. Must be called within a tokio runtime.
    #[must_use]
    pub fn listen() -> Self {
        Self
    }

    /// Waits for it and gives its number.
    pub async fn received(&mut self) -> u8 {
        if tokio::signal::ctrl_c().await.is_err() {
            // The system's own way of ending the process is still there.
            std::future::pending::<()>().await;
        }
        SIGINT
    }
}
