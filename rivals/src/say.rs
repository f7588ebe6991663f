//! What this program says. UmaDB's server prints to the standard output of its process, which is ours: that
//! goes to the standard error instead, so that tables and lines are not torn.

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;

use anyhow::Result;

static OUTPUT: OnceLock<File> = OnceLock::new();

/// Keeps the standard output for [`say`], and sends everything else that is printed to the standard error.
///
/// # Errors
/// As the operating system's.
pub fn keep_output() -> Result<()> {
    let output = rustix::io::dup(rustix::stdio::stdout())?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    let _ = OUTPUT.set(File::from(output));
    Ok(())
}

/// Says something, line ends included.
pub fn say(text: &str) {
    match OUTPUT.get() {
        // Nobody listens any more: there is nobody to tell.
        Some(mut output) => drop(output.write_all(text.as_bytes())),
        None => print!("{text}"),
    }
}
