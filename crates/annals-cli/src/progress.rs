//! How far long work has come: a bar on a terminal, nothing elsewhere.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use annals_engine::Work;
use indicatif::{ProgressBar, ProgressStyle};

/// How often a bar moves although nothing is reported.
const TICK: Duration = Duration::from_millis(200);

/// Progress through this many bytes, if it is known how many.
pub(crate) fn bytes(total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{bar:32} {percent:>3}%  {bytes}/{total_bytes}  {msg}  {eta} left",
        None => "{spinner}  {bytes}  {msg}",
    };
    bar(total, template)
}

/// Progress through this many events.
pub(crate) fn events(total: u64) -> ProgressBar {
    bar(Some(total), "{bar:32} {percent:>3}%  {human_pos}/{human_len} events  {eta} left")
}

/// Progress through this many purchases.
pub(crate) fn purchases(total: u64) -> ProgressBar {
    bar(Some(total), "{bar:32} {percent:>3}%  {human_pos}/{human_len} purchases  {per_sec}  {eta} left")
}

/// Progress through this much time.
pub(crate) fn time(total: Duration) -> ProgressBar {
    bar(Some(total.as_secs()), "{bar:32} {percent:>3}%  {msg}  {eta} left")
}

fn bar(total: Option<u64>, template: &str) -> ProgressBar {
    // Hidden by indicatif itself if standard error is not a terminal.
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let style = ProgressStyle::with_template(template).expect("the templates above are well-formed");
    let bar = bar.with_style(style);
    bar.enable_steady_tick(TICK);
    bar
}

/// The same reader; what is read from it moves the bar.
pub(crate) fn watched(reader: Box<dyn Read>, bar: &ProgressBar) -> Box<dyn Read> {
    Box::new(bar.wrap_read(reader))
}

/// Does long work on a thread of its own, with a bar; SIGINT tells it to stop, and what it answers then is its answer.
pub(crate) async fn of<T: Send + 'static>(
    work: &Arc<Work>,
    verb: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let bar = bar(Some(0), "{msg} {bar:32} {percent:>3}%  {bytes_per_sec}  {eta} left").with_message(verb);
    let mut running = tokio::task::spawn_blocking(run);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut told = false;
    let mut look = tokio::time::interval(TICK);
    let done = loop {
        tokio::select! {
            done = &mut running => break done,
            _ = look.tick() => {
                let (done, total) = work.progress();
                bar.set_length(total);
                bar.set_position(done);
            }
            _ = &mut interrupted, if !told => {
                told = true;
                work.stop();
            }
        }
    };
    bar.finish_and_clear();
    Ok(done?)
}
