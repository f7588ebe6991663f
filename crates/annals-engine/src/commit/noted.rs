//! Checks the file `durable`, which records how far the log is durable, against the log, and updates it.
//! `log::durable` has its format.

use annals_core::{Position, RecordedEvent, Witness};

use crate::error::Fault;
use crate::log::durable;
use crate::read::fetch;
use crate::read::view::Log;

impl Log {
    /// Checks that the log has the event that is known to be durable, then records the head as durable.
    pub fn begin(&self, known: Option<Witness>) -> Result<(), Fault> {
        if let Some(known) = known {
            *self.durable.lock() = known.position;
            // If the event cannot be read, the damage is reported when a caller reads it.
            if known.position <= self.head()
                && let Ok(event) = self.event_at(known.position)
            {
                durable::check_event(known, Witness::of(&event))?;
            }
        }
        self.note_durable(self.head());
        Ok(())
    }

    /// Records that everything up to this position is durable, unless that is recorded already. No guarantee
    /// depends on it.
    pub fn note_durable(&self, position: Position) {
        if position == Position::ZERO || !self.disk.is_writable() || *self.durable.lock() >= position {
            return;
        }
        let noted = self.event_at(position).and_then(|event| {
            let mut known = self.durable.lock();
            if *known < position {
                durable::write(&*self.disk, self.id, Witness::of(&event))?;
                *known = position;
            }
            Ok(())
        });
        if let Err(fault) = noted {
            tracing::warn!(
                error = &fault as &dyn std::error::Error,
                "how far the log is durable cannot be written: if its end is lost, that is not noticed"
            );
        }
    }

    fn event_at(&self, position: Position) -> Result<RecordedEvent, Fault> {
        let view = self.view_of_staged();
        let run = view.run_of(position);
        fetch::event(&view, run, (position.get() - run.base.get()) as u32)
    }
}
