//! The error of a handler or a projection, and the detection of a refusal among its sources.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) use annals_consume::panic_text;
use annals_core::Cause;
use annals_state::SqlError;

/// Most bytes of the text of an error.
const CHAIN_BYTES_MAX: usize = 10_000;
/// Most sources of an error that are followed: an error may be its own source.
const SOURCES_MAX: usize = 64;

/// Why a projection or a subscriber could not handle an event. Every error converts to it with `?`, including
/// a boxed one and that of `anyhow`; [`HandlerError::new`] takes a text.
///
/// ```
/// # use annals::HandlerError;
/// fn boxed() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///     Err("no network")?
/// }
///
/// fn handler() -> Result<(), HandlerError> {
///     let port: u16 = "2113".parse()?;
///     assert_eq!(port, 2113);
///     Ok(boxed()?)
/// }
/// assert_eq!(handler().unwrap_err().to_string(), "no network");
/// ```
///
/// It does not implement `std::error::Error`, because then not every error could convert to it.
pub struct HandlerError(Cause);

impl HandlerError {
    /// An error with this reason.
    pub fn new(reason: impl Into<Cause>) -> Self {
        Self(reason.into())
    }

    /// The reason and its sources in one line, truncated to 10,000 bytes.
    pub fn chain(&self) -> String {
        let mut line = annals_core::chain(&*self.0);
        if line.len() > CHAIN_BYTES_MAX {
            line.truncate(line.floor_char_boundary(CHAIN_BYTES_MAX));
            line.push('…');
        }
        line
    }

    /// Whether a command was refused by its aggregate: [`Refused`] is the error or one of its sources. A
    /// subscriber is done with an event whose handler ended in a refusal.
    pub fn is_refusal(&self) -> bool {
        let error: &(dyn std::error::Error + 'static) = &*self.0;
        let mut behind = std::iter::successors(Some(error), |error| error.source()).take(SOURCES_MAX);
        behind.any(|error| error.is::<Refused>())
    }

    /// The error, if it is one of this type.
    pub(crate) fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }

    /// The text of the failure, which is dropped. Its error is the user's code: its `Display` and its
    /// destructor may panic.
    pub(crate) fn into_text(self) -> String {
        let text = shown(|| self.chain());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(self))) {
            return format!("{text} (then its destructor {})", panic_text(panic));
        }
        text
    }
}

impl<E: Into<Cause>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.chain())
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Marks that a command was refused by its aggregate. It is the source of every
/// [`ExecuteError`](crate::ExecuteError) that is a refusal, so that it is found among the sources of any
/// error that wraps one, whatever its type:
///
/// ```
/// # use annals::Refused;
/// fn is_refusal(mut error: &(dyn std::error::Error + 'static)) -> bool {
///     loop {
///         match error.source() {
///             _ if error.is::<Refused>() => return true,
///             Some(source) => error = source,
///             None => return false,
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the command was refused")]
pub struct Refused;

/// Whether this is SQLite's error for a broken file.
pub(crate) fn is_of_broken_file(failure: &HandlerError) -> bool {
    failure.downcast_ref::<SqlError>().is_some_and(SqlError::is_broken_file)
}

/// The text of a user's error; formatting it may panic.
pub(crate) fn shown(text: impl FnOnce() -> String) -> String {
    catch_unwind(AssertUnwindSafe(text))
        .unwrap_or_else(|panic| format!("an error whose text cannot be shown: {}", panic_text(panic)))
}

/// Calls this, and turns a panic into an error.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, HandlerError>) -> Result<T, HandlerError> {
    // A partial change is in a transaction that is rolled back, or in the user's own state.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(HandlerError::new(panic_text(panic))))
}

/// As [`caught`] for a future, which is dropped here, so that a panic of its destructor is caught too.
pub(crate) async fn caught_later<T>(
    work: impl Future<Output = Result<T, HandlerError>> + Send,
) -> Result<T, HandlerError> {
    annals_consume::caught(work).await.unwrap_or_else(|panic| Err(HandlerError::new(panic)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error that is its own source, with a long text.
    #[derive(Debug)]
    struct Endless;

    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&"é".repeat(3_001))
        }
    }

    impl std::error::Error for Endless {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(self)
        }
    }

    #[test]
    fn an_error_without_an_end_has_a_text_with_one() {
        assert!(HandlerError::new(Endless).chain().len() <= CHAIN_BYTES_MAX + '…'.len_utf8());
        assert!(!HandlerError::new(Endless).is_refusal());
    }

    /// Panics when it is dropped.
    #[derive(Debug)]
    struct Spiteful;

    impl Drop for Spiteful {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("while it is dropped");
            }
        }
    }

    impl fmt::Display for Spiteful {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("spite")
        }
    }

    impl std::error::Error for Spiteful {}

    #[test]
    fn a_destructor_that_panics_is_part_of_the_text() {
        let text = HandlerError::new(Spiteful).into_text();
        assert!(text.contains("spite") && text.contains("while it is dropped"), "{text}");
        let failure = caught::<()>(|| std::panic::panic_any(Spiteful)).unwrap_err();
        assert!(failure.chain().contains("no message"), "{failure}");
    }

    #[tokio::test]
    async fn a_future_that_panics_while_it_is_dropped_has_failed() {
        let captured = Spiteful;
        let work = async move {
            let _captured = captured;
            std::future::ready(()).await;
            Ok(())
        };
        assert!(caught_later(work).await.is_err());
    }
}
