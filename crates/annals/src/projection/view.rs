//! Queries on the rows of a projection.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Position, Seen, Witness};
use annals_state::{Params, Row, SqlError};

use super::serving::Serving;
use super::{Projected, Projection};
use crate::progress::Phase;

/// The default time for which a query waits until the rows are as new as required.
const WITHIN: Duration = Duration::from_secs(5);

/// The time limit for comparing the required event with the log.
const COMPARED: Duration = Duration::from_secs(5);

/// Queries on the rows of a projection.
///
/// While the rows of a new `VERSION` are being built, queries use those of the previous version, which are
/// complete but no longer updated, unless [`at_least`](Self::at_least) requires something newer. Without a
/// previous version, they use the rows that exist so far.
pub struct View<P> {
    projected: Option<Arc<Projected>>,
    at_least: Seen,
    within: Duration,
    projection: PhantomData<fn() -> P>,
}

impl<P> Clone for View<P> {
    fn clone(&self) -> Self {
        Self {
            projected: self.projected.clone(),
            at_least: self.at_least,
            within: self.within,
            projection: PhantomData,
        }
    }
}

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// No projection of this name was started.
    #[error("the projection `{0}` was not started")]
    NotStarted(&'static str),
    /// The rows are not as new as required.
    #[error("the projection `{name}` is at position {position}, not yet at {wanted}{}", because(.failing))]
    Behind {
        /// The projection.
        name: &'static str,
        /// The required position.
        wanted: Position,
        /// The position that it has reached.
        position: Position,
        /// Its current error, if it fails.
        failing: Option<String>,
    },
    /// The log does not have the required event: it was restored, or it is another log.
    #[error(
        "the log no longer has the event {} at position {}, which the query of projection `{name}` requires: the log was \
         restored, or it is another log",
        .seen.id, .seen.position
    )]
    OtherHistory {
        /// The projection.
        name: &'static str,
        /// The required event.
        seen: Witness,
    },
    /// The log could not be read to compare the required event.
    #[error(transparent)]
    Store(#[from] annals_core::Error),
    /// Queries use the rows of an older version for now, and this query failed on them.
    #[error(
        "the rows of projection `{name}` are being rebuilt; the query failed on the rows of version {version}: {cause}"
    )]
    Rebuilding {
        /// The projection.
        name: &'static str,
        /// The version whose rows were queried.
        version: u32,
        /// The error of the database.
        cause: SqlError,
    },
    /// The database returned an error, or a row could not be read.
    #[error(transparent)]
    Sql(#[from] SqlError),
}

fn because(failing: &Option<String>) -> String {
    failing.as_ref().map_or_else(String::new, |error| format!(": {error}"))
}

impl<P: Projection> View<P> {
    pub(crate) fn new(projected: Option<Arc<Projected>>) -> Self {
        Self { projected, at_least: Position::ZERO.into(), within: WITHIN, projection: PhantomData }
    }

    /// Waits until the rows include everything up to here, such as the events of the caller's own command:
    /// read your writes.
    ///
    /// A [`Committed`](crate::Committed) and a [`Witness`] name an event as well as a position. The event
    /// must be in the log, and the rows must be of the history that has it: [`ViewError::OtherHistory`] if a
    /// restore has removed it. A position alone is not compared with the log.
    ///
    /// ```
    /// # async fn read<A: annals::Aggregate, P: annals::Projection>(done: annals::Committed<A>, view: annals::View<P>)
    /// # -> Result<(), annals::ViewError> {
    /// let rows = view.at_least(&done).rows("SELECT count(*) FROM accounts", ()).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn at_least(mut self, seen: impl Into<Seen>) -> Self {
        self.at_least = seen.into();
        self
    }

    /// How long to wait for that; 5 seconds by default.
    #[must_use]
    pub fn within(mut self, duration: Duration) -> Self {
        self.within = duration;
        self
    }

    /// Runs a query and reads every row of the result.
    ///
    /// ```
    /// # async fn read<P: annals::Projection>(view: annals::View<P>) -> Result<(), annals::ViewError> {
    /// let rich: Vec<(String, u64)> = view
    ///     .query("SELECT owner, balance FROM accounts WHERE balance > ?1", (1_000,), |row| row.read())
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn query<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row) -> Result<T, SqlError>,
    ) -> Result<Vec<T>, ViewError> {
        let rows = self.rows(sql, params).await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// Runs a query and reads the first row of the result, if there is one.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row) -> Result<T, SqlError>,
    ) -> Result<Option<T>, ViewError> {
        let rows = self.rows(sql, params).await?;
        Ok(rows.first().map(read).transpose()?)
    }

    /// Runs a query and returns its rows.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn rows(&self, sql: &str, params: impl Params) -> Result<Vec<Row>, ViewError> {
        let (sql, params): (Arc<str>, Arc<[_]>) = (sql.into(), params.values()?.into());
        loop {
            let Serving { database, older } = self.serving().await?;
            let answer = database.select(sql.clone(), params.clone()).await;
            return match (answer, older) {
                (Ok(rows), _) => Ok(rows),
                // The older rows may have been removed because the new ones have just taken over.
                (Err(_), Some(_)) if self.projected()?.serving.read().older.is_none() => continue,
                (Err(cause), Some(version)) => Err(ViewError::Rebuilding { name: P::NAME, version, cause }),
                (Err(cause), None) => Err(ViewError::Sql(cause)),
            };
        }
    }

    /// The position up to which events are applied to the rows.
    ///
    /// # Errors
    /// [`ViewError::NotStarted`].
    pub fn position(&self) -> Result<Position, ViewError> {
        Ok(self.projected()?.progress.standing().position)
    }

    fn projected(&self) -> Result<&Projected, ViewError> {
        self.projected.as_deref().ok_or(ViewError::NotStarted(P::NAME))
    }

    /// The database to query, once it is as new as required.
    async fn serving(&self) -> Result<Serving, ViewError> {
        let projected = self.projected()?;
        if self.at_least.position > Position::ZERO && !self.shown(projected).await? {
            return Err(self.behind(projected).await);
        }
        Ok(projected.serving.read().clone())
    }

    /// Waits until the rows show the required event; `false` if they do not in time, or the projection stops
    /// first.
    async fn shown(&self, projected: &Projected) -> Result<bool, ViewError> {
        let mut progress = projected.progress.watch();
        let until = tokio::time::Instant::now() + self.within;
        loop {
            // The rows of an older version are no longer updated: a query that requires something newer waits
            // for the new ones.
            let new_enough = progress.wait_for(|standing| {
                let reached = standing.position >= self.at_least.position;
                (reached && projected.serving.read().older.is_none()) || standing.phase == Phase::Stopped
            });
            let standing = tokio::time::timeout_at(until, new_enough).await;
            let Ok(Ok(standing)) = standing.map(|standing| standing.map(|standing| standing.clone())) else {
                return Ok(false);
            };
            if standing.position < self.at_least.position || projected.serving.read().older.is_some() {
                return Ok(false);
            }
            let (Some(seen), rows) = (self.at_least.witness(), standing.witness()) else { return Ok(true) };
            if let Some(rows) = rows
                && (rows == seen || self.is_one_history(projected, seen, rows).await?)
            {
                return Ok(true);
            }
            // The rows are not of the history that has the event, or that is not known yet: the projection
            // will check them.
            let changed = tokio::time::timeout_at(until, progress.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return Ok(false);
            }
        }
    }

    /// Whether the rows, filled up to the event `rows`, are of the history that has the required event.
    async fn is_one_history(
        &self,
        projected: &Projected,
        seen: Witness,
        rows: Witness,
    ) -> Result<bool, ViewError> {
        let both = async {
            if !seen.holds(&*projected.store).await? {
                return Err(ViewError::OtherHistory { name: P::NAME, seen });
            }
            // Read after `seen`, so that both were in the log at one time.
            Ok(rows.holds(&*projected.store).await?)
        };
        let silent = || {
            annals_core::Error::Unavailable(
                "the log did not respond in time when asked for the required event".into(),
            )
        };
        tokio::time::timeout(COMPARED, both).await.unwrap_or_else(|_| Err(silent().into()))
    }

    /// The error for rows that do not show the required event.
    async fn behind(&self, projected: &Projected) -> ViewError {
        if let Some(seen) = self.at_least.witness() {
            let found = tokio::time::timeout(COMPARED, Witness::at(&*projected.store, seen.position)).await;
            if let Ok(Ok(Some(found))) = found
                && found != seen
            {
                return ViewError::OtherHistory { name: P::NAME, seen };
            }
        }
        let standing = projected.progress.standing();
        ViewError::Behind {
            name: P::NAME,
            wanted: self.at_least.position,
            position: standing.position,
            failing: standing.failing.map(|failing| failing.error),
        }
    }
}
