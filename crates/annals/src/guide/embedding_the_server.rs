//! The server inside your program.
//!
//! An embedded log belongs to one process. That process can also serve the log over HTTP: other programs read
//! and follow it, operators use the console, and an application can serve its own pages at the same address.
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
//! - `Server::mount` mounts your axum router at a path, `server.mount("/shop", router)`, and `Server::link`
//!   adds a link to it on the console. For pages without their own sign-in use `Server::mount_checked`, so
//!   that pages of other sites cannot use them.
//! - `Server::tokens` requires an access token with rights by category, `Server::tls` serves HTTPS. Without
//!   tokens, a server refuses to listen on an address that others can reach, unless `Server::insecure` allows
//!   it.
//! - `Server::metrics` adds your own metrics to `/metrics`.
//! - Token and certificate files are read again when they change, so certificates are renewed without a
//!   restart; `Server::reload` reads them at once.
//!
//! Ctrl-C is one signal. A service manager sends SIGTERM: wait for that too (`tokio::signal::unix`), or the
//! program ends without `shutdown`. The order at the end matters: first stop the server, so that no more
//! requests arrive, then call `shutdown`, which waits for projections and subscribers to write their
//! checkpoints. `docs/http.md` describes the API, `docs/operations.md` is for operators.
