//! How far long work has come: a bar on a terminal, nothing elsewhere.

use std::io::Read;
use std::time::Duration;

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
