//! Other processes that want the processors all the time, as on a machine with other work.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

/// Processes that spin. They end when this is dropped, or when this process ends in any other way.
pub struct Spinning(Vec<Child>);

impl Spinning {
    /// Starts this many.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn start(count: usize) -> Result<Self> {
        let mut spinning = Self(Vec::new());
        for _ in 0..count {
            let program = std::env::current_exe()?;
            spinning.0.push(Command::new(program).arg("--spin").stdin(Stdio::piped()).spawn()?);
        }
        Ok(spinning)
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The spinning process's side: computes until nobody holds its input any more.
pub fn spin() {
    static ENDED: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ENDED.store(true, Ordering::Relaxed);
    });
    while !ENDED.load(Ordering::Relaxed) {
        for number in 0..10_000_u32 {
            std::hint::black_box(number);
        }
    }
}
