//! How far long work has come: a bar on a terminal, nothing elsewhere.

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use annals_engine::Work;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::output::{self, thousands};
use crate::stop;

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
    bar(Some(total), "{bar:32} {percent:>3}%  {human_pos}/{human_len} purchases  {rate}  {eta} left")
}

/// Progress through this much time.
pub(crate) fn time(total: Duration) -> ProgressBar {
    bar(Some(total.as_secs()), "{bar:32} {percent:>3}%  {msg}  {eta} left")
}

fn bar(total: Option<u64>, template: &str) -> ProgressBar {
    // Hidden by indicatif itself if standard error is not a terminal.
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let style = ProgressStyle::with_template(template).expect("the templates above are well-formed");
    let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
        // A bar that cannot be written stays as it is.
        let _ = text.write_str(&a_second(state.per_sec()));
    };
    let bar = bar.with_style(style.with_key("rate", rate));
    if output::is_dumb(std::env::var_os("TERM")) {
        // It could not be drawn over.
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar.enable_steady_tick(TICK);
    bar
}

/// A rate, as people read it: 4,444/s.
fn a_second(rate: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is small and not negative"
    )]
    let whole = rate.round() as u64;
    format!("{}/s", thousands(whole))
}

/// The same reader; what is read from it moves the bar.
pub(crate) fn watched(reader: Box<dyn Read>, bar: &ProgressBar) -> Box<dyn Read> {
    Box::new(bar.wrap_read(reader))
}

/// Does long work on a thread of its own, with a bar; the first signal tells it to stop,
/// and what it answers then is its answer; the second one ends the command without it.
pub(crate) async fn of<T: Send + 'static>(
    work: &Arc<Work>,
    verb: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let bar = bar(Some(0), "{msg} {bar:32} {percent:>3}%  {bytes_per_sec}  {eta} left").with_message(verb);
    shown(bar, work, run).await
}

/// The same of work that counts events.
pub(crate) async fn of_events<T: Send + 'static>(
    work: &Arc<Work>,
    run: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    shown(events(0), work, run).await
}

async fn shown<T: Send + 'static>(
    bar: ProgressBar,
    work: &Arc<Work>,
    run: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let mut running = tokio::task::spawn_blocking(run);
    let mut signals = stop::Signals::listen()?;
    let mut look = tokio::time::interval(TICK);
    let done = loop {
        tokio::select! {
            done = &mut running => break done,
            _ = look.tick() => {
                let (done, total) = work.progress();
                bar.set_length(total);
                bar.set_position(done);
            }
            () = signals.next() => {
                if work.is_stopped() {
                    bar.finish_and_clear();
                    return Err(stop::stopped("what was under way is not finished").into());
                }
                work.stop();
            }
        }
    };
    bar.finish_and_clear();
    Ok(done?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_whole_number_with_its_thousands_apart() {
        for (rate, text) in [(4_443.767_7, "4,444/s"), (0.2, "0/s"), (0.0, "0/s"), (f64::NAN, "0/s")] {
            assert_eq!(a_second(rate), text);
        }
    }
}
