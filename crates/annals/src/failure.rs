//! Why a projection or a subscriber could not take an event.

use std::fmt;

use annals_core::Cause;

/// Why a projection or a subscriber could not take an event. Every error turns into one with `?`; to say it in
/// words, there is [`Failure::new`].
///
/// It is not itself a `std::error::Error`, as otherwise not every error could turn into one.
pub struct Failure(Cause);

impl Failure {
    /// It failed for this reason.
    pub fn new(reason: impl Into<Cause>) -> Self {
        Self(reason.into())
    }

    /// The reason and everything behind it, in one line.
    pub fn chain(&self) -> String {
        let mut line = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.chain())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Does this, and makes a failure of a panic.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // Whatever the work has half changed is a transaction that is undone, or its own.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(Failure::new(panic_message(&*panic))))
}

/// The same for a future.
pub(crate) async fn caught_later<T>(
    work: impl Future<Output = Result<T, Failure>> + Send,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        let polled = std::panic::AssertUnwindSafe(|| work.as_mut().poll(context));
        // After a panic the future is not polled again.
        std::panic::catch_unwind(polled)
            .unwrap_or_else(|panic| std::task::Poll::Ready(Err(Failure::new(panic_message(&*panic)))))
    })
    .await
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", said.unwrap_or("(no message)"))
}
