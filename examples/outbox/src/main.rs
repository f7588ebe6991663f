//! A small service that stores state: orders in a table. Messages about them are published through the outbox
//! to an Annals log and to the console. `README.md` shows how to use it.
//!
//! ```text
//! annals-orders [DATABASE [LOG [ADDRESS]]]
//! ```
//!
//! Read `orders` first: it writes the state and the messages. Then `publish`, `http`, `database`, `die`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that speaks to its user")]

mod database;
mod die;
mod http;
mod order;
mod orders;
mod publish;

use std::process::ExitCode;

use annals_outbox::Outbox;

use crate::orders::Orders;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter("warn").init();
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let (database, log) = (next("sqlite:orders.db?mode=rwc"), next("file:./orders-log"));
    match run(&database, &log, &next("127.0.0.1:8090")).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("annals-orders: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(database: &str, log: &str, address: &str) -> Result<(), Error> {
    let database = database::Database::connect(database).await?;
    let outbox = Outbox::new(database.pool());
    outbox.migrate().await?;
    let orders = Orders::new(database, outbox.clone()).await?;

    let log = annals::open_store(&log.parse()?).await?;
    let publisher = publish::start(&outbox, log).await?;
    let app = http::routes(orders, outbox, publisher.as_ref().map(|publisher| publisher.waker()));

    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(asked_to_stop()).await?;
    if let Some(publisher) = publisher {
        publisher.stop().await;
    }
    Ok(())
}

async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be heard");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
