//! `annals demo`: a shop on Annals, fed with real purchases.
//!
//! - D1  A file with a bad line is refused before anything is done.
//! - D2  Every command has a key, so a demo that was killed goes on where it was, and one that is run again adds
//!   nothing.
//! - D3  What is printed at the end comes out of the read models, as new as the last command.
//!
//! The files: `report` (what is printed). The shop itself, and how purchases become its commands, is the crate
//! `annals-shop`.

mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals::{Annals, Phase, StoreUrl};
use annals_server::Server;
use annals_shop::Shop;
use annals_shop::purchases::{self, Fed, Feed, Given, Purchase};
use anyhow::{Context as _, anyhow};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::net::TcpListener;

use self::report::Report;
use crate::output::{Output, thousands};
use crate::{progress, serve};

/// Run a shop on Annals with real purchases, and look at it in a browser
#[derive(Args)]
#[command(after_help = "Examples:
  annals demo
  annals demo --once --json
  annals demo --input cdnow.txt --store file:./cdnow

The purchases are those of the CD shop CDNOW in 1997 and 1998; without --input, those of every tenth customer.
Run again, the demo adds nothing; killed, it goes on where it was.")]
pub(crate) struct Demo {
    /// The store: `file:DIRECTORY` (created if need be), or `memory:`, which ends with the command
    #[arg(long, env = "ANNALS_STORE", value_name = "URL", default_value = "file:./annals-demo")]
    store: StoreUrl,
    /// The address of console and shop; 127.0.0.1:2113 if nothing is said, none with --once
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Exit when the purchases are in, instead of serving on
    #[arg(long)]
    once: bool,
    /// A file of purchases: customer, date (19970131), number of CDs, dollars; columns separated by blanks
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Print the read models as one JSON object
    #[arg(long)]
    json: bool,
    /// How many customers are served at once
    #[arg(long, value_name = "N", default_value_t = 128)]
    concurrency: usize,
}

impl Demo {
    /// Feeds the shop, says what came of it, and serves on.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        serve::log("warn");
        let purchases = self.purchases()?;
        let listener = self.listener().await?;
        let annals = Annals::open(&self.store.to_string()).await;
        let annals = annals.with_context(|| format!("cannot open {}", self.store))?;
        let shop = Shop::start(&annals).await?;
        let stopped = Arc::new(tokio::sync::Notify::new());
        let server = listener.map(|listener| {
            let address = format!("http://{}", listener.1);
            let server =
                Server::new(annals.store().clone()).mount("/shop", shop.router()).link("Shop", "/shop");
            let stop = stopped.clone();
            let serving = tokio::spawn(server.serve(listener.0, async move { stop.notified().await }));
            (address, serving)
        });
        let told_to_stop = serve::told_to_stop()?;
        let work = async {
            self.say_where(server.as_ref().map(|(address, _)| address.as_str()))?;
            self.feed(&annals, &shop, purchases).await?;
            if let Some((address, _)) = server.as_ref().filter(|_| !self.once) {
                self.note(&format!(
                    "The shop is at {address}/shop, the console at {address}. Ctrl-C ends it."
                ))?;
                std::future::pending::<()>().await;
            }
            anyhow::Ok(())
        };
        let done = tokio::select! {
            done = work => done,
            () = told_to_stop => Ok(()),
        };
        stopped.notify_one();
        if let Some((_, serving)) = server {
            serving.await??;
        }
        annals.shutdown().await;
        done.map(|()| ExitCode::SUCCESS)
    }

    fn purchases(&self) -> anyhow::Result<Vec<Purchase>> {
        let Some(path) = &self.input else { return Ok(purchases::read(purchases::SAMPLE)?) };
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        purchases::read(&text).map_err(|bad| anyhow!("{name}: {bad}"))
    }

    async fn listener(&self) -> anyhow::Result<Option<(TcpListener, std::net::SocketAddr)>> {
        let address = match &self.listen {
            Some(address) => address,
            None if self.once => return Ok(None),
            None => "127.0.0.1:2113",
        };
        let listener = serve::listen(address).await?;
        let address = listener.local_addr()?;
        Ok(Some((listener, address)))
    }

    /// Tells people something on standard output, unless that is for a program.
    fn note(&self, line: &str) -> anyhow::Result<()> {
        if !self.json {
            let mut output = Output::standard();
            output.line(line)?;
            output.flush()?;
        }
        Ok(())
    }

    fn say_where(&self, address: Option<&str>) -> anyhow::Result<()> {
        let lies = match &self.store {
            StoreUrl::File(directory) => {
                let whole = std::path::absolute(directory).unwrap_or_else(|_| directory.clone());
                format!("The data lies in {}.", whole.display())
            }
            _ => "The data is in memory and ends with the demo.".to_owned(),
        };
        self.note(&lies)?;
        match address {
            Some(address) => self.note(&format!("Watch it at {address} (events) and {address}/shop (shop).")),
            None => Ok(()),
        }
    }

    /// Feeds the purchases, waits for everything that follows from them, and prints the read models.
    async fn feed(&self, annals: &Annals, shop: &Shop, purchases: Vec<Purchase>) -> anyhow::Result<()> {
        let progress = Progress::new(purchases.len());
        let begun = Instant::now();
        let counted = progress.clone();
        let feed = Feed::new(shop, purchases, self.concurrency);
        let fed = feed.run(move |done| counted.told(done)).await;
        let fed = fed.map_err(anyhow::Error::from_boxed)?;
        let took = begun.elapsed();
        progress.follow(annals).await?;
        let followed = begun.elapsed();
        progress.end();
        let report = Report::of(&shop.sales, fed.position).await?;
        let mut output = Output::standard();
        if self.json {
            output.line(&serde_json::to_string(&report.json())?)?;
            return Ok(output.flush()?);
        }
        report.print(&mut output)?;
        output.line("")?;
        for line in speed(fed, took, followed) {
            output.line(&line)?;
        }
        Ok(output.flush()?)
    }
}

/// How fast it went.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn speed(fed: Fed, took: Duration, followed: Duration) -> Vec<String> {
    let new = fed.commands - fed.duplicates;
    let a_second = (fed.commands as f64 / took.as_secs_f64().max(0.001)) as u64;
    let commands = thousands(fed.commands);
    let first = match (new, fed.duplicates) {
        (_, 0) => format!("{commands} commands"),
        (0, _) => format!("{commands} commands, all of them carried out before: nothing was added"),
        (_, before) => format!("{commands} commands, {} of them carried out before", thousands(before)),
    };
    vec![
        format!("{first}, in {:.1} s: {} a second.", took.as_secs_f64(), thousands(a_second)),
        format!("Stock and read models were up to date after {:.1} s.", followed.as_secs_f64()),
    ]
}

/// How often a line is written where there is no terminal.
const LINES: u64 = 10;

/// How far it is: a bar on a terminal, otherwise a line now and then. On standard error.
#[derive(Clone)]
struct Progress {
    bar: ProgressBar,
    /// Purchases that are in.
    placed: Arc<AtomicU64>,
    total: u64,
    terminal: bool,
}

impl Progress {
    fn new(purchases: usize) -> Self {
        let total = purchases as u64;
        let bar = progress::purchases(total);
        let terminal = !bar.is_hidden();
        Self { bar, placed: Arc::default(), total, terminal }
    }

    /// A command is done; perhaps one that has placed an order.
    fn told(&self, given: Given) {
        if given != Given::Order {
            return;
        }
        let placed = self.placed.fetch_add(1, Ordering::Relaxed) + 1;
        self.bar.inc(1);
        let step = self.total.div_ceil(LINES);
        if !self.terminal && (placed.is_multiple_of(step) || placed == self.total) {
            line(&format!("{} of {} purchases", thousands(placed), thousands(self.total)));
        }
    }

    /// Waits until everything that follows from the purchases is done: the stock, the read models.
    async fn follow(&self, annals: &Annals) -> anyhow::Result<()> {
        if self.terminal {
            self.bar.set_style(ProgressStyle::with_template("{msg}").expect("the template is valid"));
            self.bar.set_message("waiting for stock and read models …");
        }
        while let Err(behind) = annals.settle_within(Duration::from_secs(10)).await {
            let standing = annals.status().await?;
            if standing.iter().any(|status| status.failing.is_some() || status.phase == Phase::Stopped) {
                return Err(behind.into());
            }
        }
        Ok(())
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn line(text: &str) {
    use std::io::Write as _;
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "annals: {text}");
}
