//! Catches panics of handlers, sinks and projections.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

/// Awaits a future that may panic, and drops it. A panic of its destructor is caught too.
///
/// # Errors
/// The message of the panic.
pub async fn caught<T>(work: impl Future<Output = T> + Send) -> Result<T, String> {
    let mut work = Box::pin(work);
    let done = std::future::poll_fn(|context| {
        // After a panic the future is not polled again.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic_text(panic))),
        }
    })
    .await;
    match catch_unwind(AssertUnwindSafe(|| drop(work))) {
        Ok(()) => done,
        Err(panic) => Err(panic_text(panic)),
    }
}

/// The message of a panic. Drops its payload, which may panic too.
pub fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = format!("panicked: {}", message.unwrap_or("(no message)"));
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
    text
}
