//! A line of an export: an event, with its number within its append.
//!
//! A file of such lines that is truncated or lacks lines can be detected: by the numbers, and because
//! positions have no gaps. An export of one stream counts the events of the append in that stream; versions
//! there have no gaps. Earlier versions wrote no numbers.

use annals_core::{Invalid, RecordedEvent};

use crate::event::{Shape, parse};

/// The number of a line's event within its append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InAppend {
    /// Its number, from 1.
    pub event: u64,
    /// The number of events of the append.
    pub events: u64,
    /// Whether the export is of one stream, so that only the events of that stream are counted.
    pub one_stream: bool,
}

/// Writes an event of an export as one line of JSON, without the line break at its end.
pub fn export_line(event: &RecordedEvent, place: InAppend) -> Vec<u8> {
    let mut shape = Shape::of(event, true);
    (shape.append_event, shape.append_events) = (Some(place.event), Some(place.events));
    shape.one_stream = place.one_stream;
    serde_json::to_vec(&shape).expect("an event has only text for keys, so it is JSON")
}

/// Reads an event from a line that [`export_line`] wrote, or [`line()`](crate::line()), which has no numbers.
///
/// # Errors
/// [`Invalid`], naming the field, if it is not JSON or not such an event.
pub fn parse_export_line(line: &[u8]) -> Result<(RecordedEvent, Option<InAppend>), Invalid> {
    let shape = parse(line)?;
    let one_stream = shape.one_stream;
    let place = match (shape.append_event, shape.append_events) {
        (Some(event), Some(events)) if (1..=events).contains(&event) => {
            Some(InAppend { event, events, one_stream })
        }
        (Some(event), Some(events)) => {
            return Err(Invalid::new("append_event", format!("is {event} of {events} events")));
        }
        (None, None) if one_stream => return Err(Invalid::new("append_events", "is missing")),
        (None, None) => None,
        (None, Some(_)) => return Err(Invalid::new("append_event", "is missing")),
        (Some(_), None) => return Err(Invalid::new("append_events", "is missing")),
    };
    let event = shape.into_recorded()?;
    if let Some(place) = place
        && !one_stream
        && event.append().get().checked_add(place.event - 1) != Some(event.position().get())
    {
        let problem = format!(
            "is {}, which does not fit an event at position {} of the append that begins at position {}",
            place.event,
            event.position(),
            event.append()
        );
        return Err(Invalid::new("append_event", problem));
    }
    Ok((event, place))
}
