//! Connections: accepted one by one, each with its own task, and ended gracefully.
//!
//! - C1  A client that is slow to send its request holds a connection, not a handler, and not for ever.
//! - C2  On shutdown nothing new is accepted; an idle connection closes; one with a request under way gives its
//!   answer first; what is not done within the grace is cut off.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a client may take to send the head of a request.
const HEAD_MAX: Duration = Duration::from_secs(60);
/// How long nothing is accepted after accepting failed; the usual cause is too many open files.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Answers connections until `shutdown` completes, then ends them.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
    stop: watch::Sender<bool>,
    grace: Duration,
) {
    let mut shutdown = std::pin::pin!(shutdown);
    let mut connections = JoinSet::new();
    let stop = Arc::new(stop);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(converse(socket, router.clone(), stop.subscribe()));
                }
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    stop.send_replace(true);
    tracing::info!(connections = connections.len(), "shutting down");
    let ended = tokio::time::timeout(grace, async { while connections.join_next().await.is_some() {} });
    if ended.await.is_err() {
        tracing::warn!(connections = connections.len(), "the grace is over; these are cut off");
        connections.shutdown().await;
    }
}

/// Answers the requests of one connection.
async fn converse(socket: TcpStream, router: Router, mut stopping: watch::Receiver<bool>) {
    // Small answers go out at once rather than when more has gathered.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!("TCP_NODELAY could not be set: {error}");
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    let service = TowerToHyperService::new(router);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(socket), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection broke: {error}");
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A sender that is gone belongs to a server that has stopped.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}
