//! The files of tokens and certificates, read again when they change or when it is asked for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::app::App;
use crate::tls::TlsFiles;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Lets a server read its files again at once.
#[derive(Clone, Debug, Default)]
pub struct Reload(Arc<Notify>);

impl Reload {
    /// Reads the files again.
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// Reads the files again whenever they have changed.
pub(crate) async fn for_ever(reload: Reload, app: Arc<App>, tls: Option<Arc<TlsFiles>>) {
    if app.gate.is_open() && tls.is_none() {
        return;
    }
    loop {
        // The notification only makes it sooner.
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
