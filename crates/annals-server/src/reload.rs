//! The task that reloads the files of tokens and certificates when they change or on request.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::app::App;
use crate::tls::TlsFiles;

/// The interval at which the files are read.
const LOOK: Duration = Duration::from_secs(1);

/// A handle that makes a server reload its files immediately.
#[derive(Clone, Debug, Default)]
pub struct Reload(Arc<Notify>);

impl Reload {
    /// Reloads the files.
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// Reloads the files whenever they have changed.
pub(crate) async fn for_ever(reload: Reload, app: Arc<App>, tls: Option<Arc<TlsFiles>>) {
    if app.gate.is_open() && tls.is_none() {
        return;
    }
    loop {
        // A notification only ends the pause early.
        let _ = tokio::time::timeout(LOOK, reload.0.notified()).await;
        let (app, tls) = (Arc::clone(&app), tls.clone());
        let read = tokio::task::spawn_blocking(move || {
            app.gate.reload();
            if let Some(tls) = tls {
                tls.reload();
            }
        });
        if let Err(error) = read.await {
            tracing::error!("the files of tokens and certificates cannot be looked at: {error}");
        }
    }
}
