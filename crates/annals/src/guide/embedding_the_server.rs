//! The server inside your program.
//!
//! An embedded log belongs to one process. That process may serve the log over HTTP as well: other programs read and follow it, operators have
//! the console, and an application has its own pages under the same address.
//!
//! ```no_run
//! use std::net::Ipv4Addr;
//!
//! use annals::Annals;
//! use annals_server::Server;
//! use tokio::net::TcpListener;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let annals = Annals::open("file:./data").await?;
//!     // Projections and subscribers are started here.
//!
//!     let server = Server::new(annals.store().clone());
//!     let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 2113)).await?;
//!     let stop = async {
//!         if let Err(error) = tokio::signal::ctrl_c().await {
//!             eprintln!("this program cannot be stopped by Ctrl-C: {error}");
//!             std::future::pending().await
//!         }
//!     };
//!     server.serve(listener, stop).await?; // ends when requests under way have ended
//!
//!     annals.shutdown().await;
//!     Ok(())
//! }
//! ```
//!
//! - `Server::mount` puts an axum router of yours under a path: `server.mount("/shop", router)`, and `Server::link` a link to it
//!   on the console. For pages without a sign-in of their own take `Server::mount_checked`, so that no page of another site can
//!   use them.
//! - `Server::tokens` has requests carry an access token with rights by category, `Server::tls` serves HTTPS. A server refuses to listen on an
//!   address that others reach without tokens, unless `Server::insecure` says that this is meant.
//! - `Server::metrics` adds figures of your own to `/metrics`.
//! - Files of tokens and certificates are read again when they change, so certificates are renewed without a restart;
//!   `Server::reload` has it done at once.
//!
//! Ctrl-C is one signal. A service manager sends SIGTERM: wait for that too (`tokio::signal::unix`), or the program ends without
//! `shutdown`. The order at the end matters: first the server, so that no request comes in, then `shutdown`, which waits for
//! projections and subscribers to write their checkpoints. `docs/http.md` describes the API, `docs/operations.md` is for
//! operators.
