//! `annals demo`: runs a shop on Annals with real purchases.
//!
//! - D1  A file with an invalid line is refused before any command is executed.
//! - D2  Every command has a key, so a demo that was killed resumes where it was, and one that is run again
//!   adds nothing. With `--input`, the key includes the path of the file: equal purchases in two files are
//!   different purchases. The first version used the keys of the sample; a file that it began is continued
//!   with those keys.
//! - D3  The printed results are those of the read models, at least as new as the last command.
//!
//! The files: `progress` (the progress bar), `report` (the printed results). The crate `annals-shop` contains
//! the shop and the conversion of purchases to commands.

mod progress;
mod report;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use annals::{Annals, Position, StoreUrl};
use annals_server::Server;
use annals_shop::Shop;
use annals_shop::purchases::{self, Fed, Feed, Purchase};
use anyhow::{Context as _, anyhow};
use clap::Args;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::progress::Progress;
use self::report::Report;
use crate::address::store_parser;
use crate::files;
use crate::output::{Output, note, thousands};
use crate::{serve, stop};

/// Run a shop on Annals with real purchases, and look at it in a browser
#[derive(Args)]
#[command(after_help = "Examples:
  annals demo
  annals demo --once --json
  annals demo --input cdnow.txt --store file:./cdnow
  annals demo --store postgres://shop@localhost/shop

The purchases are those of the CD shop CDNOW in 1997 and 1998; without --input, those of every tenth customer. \
Run again, the demo adds nothing; killed, it resumes where it was.")]
pub(crate) struct Demo {
    /// The store: `file:DIRECTORY` (created if need be), `postgres://…`, `mysql://…`, or `memory:`, which
    /// ends with the command
    #[arg(long, env = "ANNALS_STORE", hide_env_values = true, value_name = "URL", value_parser = store_parser(), default_value = "file:./annals-demo")]
    store: StoreUrl,
    /// The address of the console and the shop; by default 127.0.0.1:2113, or none with --once
    #[arg(long, value_name = "HOST:PORT", value_parser = serve::address)]
    listen: Option<String>,
    /// Serve every client that reaches the address, even if other machines can reach it
    #[arg(long)]
    insecure: bool,
    /// Exit when all purchases are processed, instead of continuing to serve
    #[arg(long)]
    once: bool,
    /// A file of purchases: customer, date (19970131), number of CDs, dollars; columns separated by blanks
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Print the read models as one JSON object
    #[arg(long)]
    json: bool,
    /// The number of customers served concurrently
    #[arg(long, value_name = "N", default_value = "128", value_parser = crate::backup::count)]
    concurrency: usize,
}

/// The maximum size of a file of purchases in bytes.
const INPUT_BYTES_MAX: u64 = 256 << 20;

impl Demo {
    /// Feeds the shop, prints the results, and continues to serve.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        crate::logging::start("warn");
        let purchases = self.purchases()?;
        let listener = self.listener().await?;
        let annals = Annals::open_at(&self.store).await;
        let annals = annals.with_context(|| format!("cannot open {}", self.store))?;
        let shop = Shop::start(&annals).await?;
        let served =
            listener.map(|listener| Served::start(listener, &annals, &shop, self.insecure)).transpose()?;
        let done = self.feed_and_stay(&annals, &shop, purchases, served.as_ref()).await;
        if let Some(served) = served {
            served.stop().await?;
        }
        annals.shutdown().await;
        done.map(|()| ExitCode::SUCCESS)
    }

    async fn feed_and_stay(
        &self,
        annals: &Annals,
        shop: &Shop,
        purchases: Vec<Purchase>,
        served: Option<&Served>,
    ) -> anyhow::Result<()> {
        let mut signals = stop::Signals::listen()?;
        self.say_where(served)?;
        tokio::select! {
            fed = self.feed(annals, shop, purchases) => fed?,
            () = signals.next() => {
                signals.end_at_next();
                return Err(stop::stopped("run again, the demo resumes where it was").into());
            }
        }
        let Some(Served { url, .. }) = served.filter(|_| !self.once) else { return Ok(()) };
        self.note(&format!("The shop is at {url}/shop, the console at {url}. Ctrl-C ends it."))?;
        signals.next().await;
        signals.end_at_next();
        Ok(())
    }

    fn purchases(&self) -> anyhow::Result<Vec<Purchase>> {
        let Some(path) = &self.input else { return Ok(purchases::read(purchases::SAMPLE)?) };
        let name = path.display();
        let text = files::read_text(path, INPUT_BYTES_MAX).with_context(|| format!("cannot read {name}"))?;
        purchases::read(&text).map_err(|bad| anyhow!("{name}: {bad}"))
    }

    /// The feed of these purchases, each with its key (D2).
    async fn feed_of(&self, annals: &Annals, shop: &Shop, purchases: Vec<Purchase>) -> anyhow::Result<Feed> {
        let feed = |purchases| Feed::new(shop, purchases, self.concurrency);
        let Some(path) = &self.input else { return Ok(feed(purchases)) };
        // An equal purchase in another file is another purchase.
        let whole = std::path::absolute(path)?;
        let file = annals::EventId::from_name(whole.as_os_str().as_encoded_bytes());
        let of_file =
            |purchase: &Purchase| Purchase { key: format!("{file}/{}", purchase.key), ..purchase.clone() };
        let of_file = feed(purchases.iter().map(of_file).collect());
        if annals.store().head().await? == Position::ZERO || begun(&of_file).await? {
            return Ok(of_file);
        }
        let of_any_file = feed(purchases);
        if !begun(&of_any_file).await? {
            return Ok(of_file);
        }
        note(&format!(
            "annals: the store has purchases of {} from an earlier version, which did not distinguish between files, or \
             between a file and the sample: identical purchases are not added again. To add all of them, use a new store",
            path.display()
        ));
        Ok(of_any_file)
    }

    async fn listener(&self) -> anyhow::Result<Option<TcpListener>> {
        match &self.listen {
            Some(address) => {
                let listener = serve::listen(address).await?;
                serve::check_address(&listener, false, self.insecure)?;
                Ok(Some(listener))
            }
            None if self.once => Ok(None),
            None => serve::listen("127.0.0.1:2113").await.map(Some),
        }
    }

    /// Prints a line for people to standard output, unless `--json` is given.
    fn note(&self, line: &str) -> anyhow::Result<()> {
        if !self.json {
            let mut output = Output::standard();
            output.line(line)?;
            output.flush()?;
        }
        Ok(())
    }

    fn say_where(&self, served: Option<&Served>) -> anyhow::Result<()> {
        let location = match self.store.directory() {
            Some(directory) => {
                let whole = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
                format!("The data is in {}.", whole.display())
            }
            None if self.store.is_memory() => {
                "The data is in memory and is lost when the demo ends.".to_owned()
            }
            None => format!("The data is in {}.", self.store),
        };
        self.note(&location)?;
        match served {
            Some(Served { url, .. }) => {
                self.note(&format!("Watch it at {url} (events) and {url}/shop (shop)."))
            }
            None => Ok(()),
        }
    }

    /// Feeds the purchases, waits until stock and read models are up to date, and prints the read models.
    async fn feed(&self, annals: &Annals, shop: &Shop, purchases: Vec<Purchase>) -> anyhow::Result<()> {
        let progress = Progress::new(purchases.len());
        let begun = Instant::now();
        let counted = progress.clone();
        let feed = self.feed_of(annals, shop, purchases).await?;
        let fed = feed.run(move |done| counted.record(done)).await;
        let fed = fed.map_err(anyhow::Error::from_boxed)?;
        let took = begun.elapsed();
        progress.until_all_followed(annals).await?;
        let followed = begun.elapsed();
        progress.end();
        let report = Report::of(&shop.sales, fed.last).await?;
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

/// Whether a purchase of this feed was already executed.
async fn begun(feed: &Feed) -> anyhow::Result<bool> {
    feed.is_begun().await.map_err(anyhow::Error::from_boxed)
}

/// The lines about the speed of the run.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn speed(fed: Fed, took: Duration, followed: Duration) -> Vec<String> {
    let new = fed.commands - fed.duplicates;
    let a_second = (fed.commands as f64 / took.as_secs_f64().max(0.001)) as u64;
    let commands = thousands(fed.commands);
    let first = match (new, fed.duplicates) {
        (_, 0) => format!("{commands} commands"),
        (0, _) => format!("{commands} commands, all of them executed before: nothing was added"),
        (_, before) => format!("{commands} commands, {} of them executed before", thousands(before)),
    };
    vec![
        format!("{first}, in {:.1} s: {} a second.", took.as_secs_f64(), thousands(a_second)),
        format!("Stock and read models were up to date after {:.1} s.", followed.as_secs_f64()),
    ]
}

/// Console and shop over HTTP, in a separate task.
struct Served {
    url: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
}

impl Served {
    fn start(listener: TcpListener, annals: &Annals, shop: &Shop, insecure: bool) -> io::Result<Self> {
        let url = format!("http://{}", listener.local_addr()?);
        let (stop, stopped) = oneshot::channel();
        let server =
            Server::new(annals.store().clone()).mount_checked("/shop", shop.router()).link("Shop", "/shop");
        let server = if insecure { server.insecure() } else { server };
        // Dropping the sender stops the server too.
        let serving = tokio::spawn(server.serve(listener, async move { drop(stopped.await) }));
        Ok(Self { url, stop, serving })
    }

    async fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        Ok(self.serving.await??)
    }
}
