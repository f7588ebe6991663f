//! Turns the reports of the runner of a projection or a subscriber into its status.

use std::sync::Arc;

use annals_consume::{Ladder, Observer, Reached, Source};
use annals_core::{Position, Seen, Witness};

use crate::shared::Shared;
use crate::tasks::Known;

/// Updates the status of a task.
pub(crate) struct Reports<K> {
    pub known: Arc<K>,
    pub shared: Arc<Shared>,
}

impl<K, S> Observer<S> for Reports<K>
where
    K: Known,
    S: Source<Cursor = Witness, Checkpoint = Ladder>,
{
    fn resumed(&self, ladder: &Ladder, notice: Option<String>) {
        let progress = self.known.progress();
        // A failed event is retried as if for the first time.
        progress.no_event_fails();
        progress.resumes_at(ladder.newest().map_or(Position::ZERO.into(), Seen::from));
        if notice.is_some() {
            progress.notes(notice);
        }
    }

    fn reached(&self, reached: &Reached<Witness>, is_all: bool, is_end: bool) {
        let progress = self.known.progress();
        if is_all {
            progress.no_event_fails();
        }
        if is_end {
            progress.caught_up();
        }
        match reached {
            Reached::Before(event) => progress.reached(event.position.previous()),
            Reached::Through(Some(event)) => progress.reached(*event),
            Reached::Through(None) => {}
        }
    }

    fn failed(&self, error: String, event: Option<&S::Item>) {
        let position = event.map(|event| S::cursor(event).position);
        self.known.progress().failed(error, position, self.shared.now());
    }

    fn recovered(&self, at: Option<Witness>) {
        let progress = self.known.progress();
        progress.worked_at(at.map(|at| at.position));
    }
}
