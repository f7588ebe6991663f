//! Connections: accepts them, runs each in its own task, and shuts them down gracefully.
//!
//! - C1  A client that is slow to send the head of a request, or to read a response, occupies only its
//!   connection, and for a limited time. `body.rs` limits slow bodies.
//! - C2  On shutdown no connection is accepted; an idle connection closes; one with a request in progress
//!   sends the response first; connections that are still open after the grace are closed.
//! - C3  Beyond the limit of connections a new one gets 503 and is closed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::flow::{Answers, Watched};

/// How long a client may take to send the head of a request.
const HEAD_MAX: Duration = Duration::from_secs(60);
/// How long a client may take for the TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// The maximum size of the head of a request in bytes, and the approximate size of the write buffer of a
/// connection.
const HEAD_BYTES: usize = 64 << 10;
/// The pause after an accept that failed; the usual cause is too many open files.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// The problem that is sent to a connection beyond the limit.
const TOO_MANY: &str = concat!(
    r#"{"type":"urn:annals:problem:overloaded","title":"The server has no room for this at the moment","#,
    r#""status":503,"detail":"there are too many connections","code":"overloaded"}"#
);

/// Serves connections until `shutdown` completes, then ends them.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    tls: Option<TlsAcceptor>,
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
            Some(ended) = connections.join_next() => log_panic(ended),
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) if connections.len() < app.bounds.connections => {
                    let (app, tls, router) = (Arc::clone(&app), tls.clone(), router.clone());
                    connections.spawn(converse(socket, app, tls, router, stop.subscribe()));
                }
                Ok((socket, _)) => refuse(&socket, tls.is_some()),
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
    let ended = tokio::time::timeout(grace, async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    });
    if ended.await.is_err() {
        tracing::warn!(connections = connections.len(), "the grace is over; these are cut off");
        connections.shutdown().await;
    }
}

/// Logs a panic outside of a handler, such as in a live stream. It ends only its own connection.
fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection ended by a panic: {error}");
    }
}

/// Sends a client the problem that there are too many connections. Bytes that the socket does not accept at
/// once are lost.
fn refuse(socket: &TcpStream, has_tls: bool) {
    tracing::warn!("a connection is refused: there are too many");
    if has_tls {
        // The client expects a TLS handshake, not plain text.
        return;
    }
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{TOO_MANY}",
        TOO_MANY.len()
    );
    let _ = socket.try_write(answer.as_bytes());
}

/// Serves one connection, over TLS if it is configured.
async fn converse(
    socket: TcpStream,
    app: Arc<App>,
    tls: Option<TlsAcceptor>,
    router: Router,
    stopping: watch::Receiver<bool>,
) {
    let socket = match Watched::new(socket, Arc::clone(&app.sending), app.bounds.patience) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!("a connection broke as it began: {error}");
            return;
        }
    };
    let answers = socket.answers();
    let Some(tls) = tls else { return speak(socket, answers, router, stopping).await };
    match tokio::time::timeout(HANDSHAKE_MAX, tls.accept(socket)).await {
        Ok(Ok(stream)) => speak(stream, answers, router, stopping).await,
        Ok(Err(error)) => tracing::debug!("a connection broke as TLS began: {error}"),
        Err(_) => tracing::debug!("a connection did not begin TLS in time"),
    }
}

/// Serves HTTP requests on a byte stream.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    answers: Answers,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_BYTES);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request| answer(request, answers.clone(), router.clone()));
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
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

/// Handles a request once the previous response has been sent.
async fn answer(
    request: Request<Incoming>,
    answers: Answers,
    router: TowerToHyperService<Router>,
) -> Result<Response, Infallible> {
    answers.sent().await;
    let response = hyper::service::Service::call(&router, request).await;
    answers.begin();
    response
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // The sender is dropped when the server has stopped.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}
