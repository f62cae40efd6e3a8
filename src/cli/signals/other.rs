//! Ctrl-C, which ends a session in good order.

/// Waits for it and gives the number that SIGINT has elsewhere. Must be called within a tokio
/// runtime.
pub async fn termination() -> u8 {
    const SIGINT: u8 = 2;
    if tokio::signal::ctrl_c().await.is_err() {
        // The system's own way of ending the process is still there.
        std::future::pending::<()>().await;
    }
    SIGINT
}
