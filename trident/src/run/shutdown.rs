//! How a run is asked to end: by whoever holds a handle, or by a signal.

/// Ends runs from outside: finish what is under way, commit it, return.
#[derive(Clone, Debug)]
pub struct Shutdown(tokio::sync::watch::Sender<bool>);

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown(tokio::sync::watch::Sender::new(false))
    }
}

impl Shutdown {
    /// A handle that nobody has used yet.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Asks the run to end. Transactions under way are committed; nothing new is begun.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Whether the run was asked to end.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// A handle that stops at the first SIGINT or SIGTERM; a second one ends the process at once, which is safe too.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Shutdown> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let shutdown = Shutdown::new();
        let handle = shutdown.clone();
        tokio::spawn(async move {
            for again in [false, true] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if again {
                    std::process::exit(130);
                }
                handle.stop();
            }
        });
        Ok(shutdown)
    }

    pub(super) async fn asked(&self) {
        // Waiting fails only when the sender is gone, and this handle is one.
        let _ = self.0.subscribe().wait_for(|asked| *asked).await;
    }
}
