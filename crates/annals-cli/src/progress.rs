//! The progress of long work: a bar on a terminal, nothing elsewhere.

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use annals_engine::Work;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::output::{self, thousands};
use crate::stop;

/// The interval at which a bar is redrawn.
const TICK: Duration = Duration::from_millis(200);

/// A bar for this many bytes, or without an end if the number is unknown.
pub(crate) fn bytes(total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{bar:32} {percent:>3}%  {bytes}/{total_bytes}  {msg}  {eta} left",
        None => "{spinner}  {bytes}  {msg}",
    };
    bar(total, template)
}

/// A bar for this many events.
pub(crate) fn events(total: u64) -> ProgressBar {
    bar(Some(total), "{bar:32} {percent:>3}%  {human_pos}/{human_len} events  {eta} left")
}

/// A bar for this many purchases.
pub(crate) fn purchases(total: u64) -> ProgressBar {
    bar(Some(total), "{bar:32} {percent:>3}%  {human_pos}/{human_len} purchases  {rate}  {eta} left")
}

/// A bar for this much time.
pub(crate) fn time(total: Duration) -> ProgressBar {
    bar(Some(total.as_secs()), "{bar:32} {percent:>3}%  {msg}  {eta} left")
}

fn bar(total: Option<u64>, template: &str) -> ProgressBar {
    // indicatif hides the bar if standard error is not a terminal.
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let style = ProgressStyle::with_template(template).expect("the templates above are well-formed");
    let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
        // A failure leaves the bar unchanged.
        let _ = text.write_str(&a_second(state.per_sec()));
    };
    let bar = bar.with_style(style.with_key("rate", rate));
    if output::is_dumb(std::env::var_os("TERM")) {
        // Such a terminal cannot redraw a line.
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar.enable_steady_tick(TICK);
    bar
}

/// A rate for people: 4,444/s.
fn a_second(rate: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is small and not negative"
    )]
    let whole = rate.round() as u64;
    format!("{}/s", thousands(whole))
}

/// Wraps a reader so that reading advances the bar.
pub(crate) fn watched(reader: Box<dyn Read>, bar: &ProgressBar) -> Box<dyn Read> {
    Box::new(bar.wrap_read(reader))
}

/// Runs long work on a separate thread, with a bar. The first signal stops the work, and its result is
/// returned; the second signal returns an error without waiting for it.
pub(crate) async fn of<T: Send + 'static>(
    work: &Arc<Work>,
    verb: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let bar = bar(Some(0), "{msg} {bar:32} {percent:>3}%  {bytes_per_sec}  {eta} left").with_message(verb);
    shown(bar, work, run).await
}

/// Like [`of`], for work that counts events.
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
                    return Err(stop::stopped("the work in progress is not finished").into());
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
