//! The chain of upcasters of an event type, and the validation of a table of them.
//!
//! - V1  A table is checked when a reader starts ([`check`]): every chain ends in a current type and version,
//!       no chain is a cycle, no event is the input of two upcasters, and no version is left out below the
//!       input of an upcaster.
//! - V2  A chain that did not pass the check still ends, because the number of its steps is limited to that
//!       of the upcasters.
//! - V3  A dropped event uses up the number of a part, like one that is kept.
//! - V4  An empty list does not drop an event: a function that returns no event has failed.

use annals_core::{CodecError, Event, EventId, Invalid, RawEvent, Upcaster};

use crate::failure::caught;

/// Whether events of this type and version are decoded without an upcaster.
pub(super) fn is_current(table: &[Upcaster], event_type: &str, version: u16) -> bool {
    !table.iter().any(|upcaster| upcaster.takes(event_type, version))
}

/// One of the events that result from a stored event.
#[derive(Debug)]
pub(super) struct Part {
    /// Its index among all of them, including dropped ones.
    pub number: u32,
    pub raw: RawEvent,
}

/// Applies the upcasters to a stored event, until none matches. Returns the resulting events in order.
pub(super) fn chain(table: &[Upcaster], raw: RawEvent) -> Result<Vec<Part>, CodecError> {
    let mut chain = Chain { table, next_number: 0, left: Vec::new() };
    chain.follow(raw, table.len())?;
    Ok(chain.left)
}

struct Chain<'a> {
    table: &'a [Upcaster],
    next_number: u32,
    left: Vec<Part>,
}

impl Chain<'_> {
    fn follow(&mut self, mut raw: RawEvent, steps_left: usize) -> Result<(), CodecError> {
        let taking = self.table.iter().find(|upcaster| upcaster.takes(&raw.event_type, raw.schema_version));
        let Some(upcaster) = taking else {
            let number = self.number();
            self.left.push(Part { number, raw });
            return Ok(());
        };
        let Some(steps_left) = steps_left.checked_sub(1) else {
            let problem = "its upcasters form a cycle";
            return Err(failed(&raw.event_type, raw.schema_version, problem.into()));
        };
        match *upcaster {
            Upcaster::Dropped { .. } => {
                self.number();
                Ok(())
            }
            Upcaster::Renamed { event_type, .. } => {
                raw.event_type = event_type.into();
                self.follow(raw, steps_left)
            }
            Upcaster::Converted { event_type, version, into, convert } => {
                // The function is the user's code and may panic.
                let made = caught(|| Ok(convert(raw)?));
                let made = made.map_err(|failure| failed(event_type, version, failure.into_text().into()))?;
                if let Some(problem) = not_as_declared(&made, into) {
                    return Err(failed(event_type, version, problem.into()));
                }
                if made.is_empty() {
                    self.number();
                }
                made.into_iter().try_for_each(|raw| self.follow(raw, steps_left))
            }
            _ => {
                let problem = "its upcaster is of a kind that is not known";
                Err(failed(&raw.event_type, raw.schema_version, problem.into()))
            }
        }
    }

    fn number(&mut self) -> u32 {
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        number
    }
}

/// Why these events are not those that the upcaster declares.
fn not_as_declared(made: &[RawEvent], into: &[(&str, u16)]) -> Option<String> {
    if let (true, Some((event_type, version))) = (made.is_empty(), into.first()) {
        return Some(format!(
            "it was made no event, and its upcaster makes `{event_type}` (schema version {version}): to drop an event, make one \
             of a type that the table drops (`Upcaster::Dropped`), and name that type in `into` too"
        ));
    }
    let is_declared = |raw: &RawEvent| {
        into.iter().any(|(name, version)| raw.event_type.as_str() == *name && raw.schema_version == *version)
    };
    made.iter().find(|raw| !is_declared(raw)).map(|raw| {
        format!(
            "it was made `{}` (schema version {}), which is not in the `into` of its upcaster",
            raw.event_type, raw.schema_version
        )
    })
}

fn failed(event_type: &str, schema_version: u16, cause: annals_core::Cause) -> CodecError {
    CodecError::Upcast { event_type: event_type.to_owned(), schema_version, cause }
}

/// A digest of the table and the versions of an event type; `None` if all of its types have their first
/// shape. A state that was folded with another digest may differ from that of a replay by the current
/// program.
pub(crate) fn fingerprint<E: Event>() -> Option<String> {
    let mut text = String::new();
    for event_type in E::TYPES {
        match E::current_version(event_type) {
            1 => {}
            version => text.push_str(&format!("{event_type}\0{version}\n")),
        }
    }
    for upcaster in E::UPCASTERS {
        text.push_str(&match upcaster {
            Upcaster::Converted { event_type, version, into, .. } => {
                format!("{event_type}\0{version}\0{into:?}\n")
            }
            Upcaster::Renamed { former, event_type } => format!("{former}\0*\0{event_type}\n"),
            other => format!("{}\0*\n", other.event_type()),
        });
    }
    // A short digest is enough: it distinguishes the few tables of one aggregate.
    (!text.is_empty()).then(|| EventId::from_name(text.as_bytes()).to_string()[..8].to_owned())
}

/// Checks the table of an event type.
///
/// # Errors
/// [`Invalid`], with the upcaster that is wrong and why.
pub(crate) fn check<E: Event>() -> Result<(), Invalid> {
    // The versions come from the user's code, which may panic.
    caught(|| Ok(check_table::<E>())).unwrap_or_else(|panic| {
        Err(Invalid::new("event type", format!("`{}` {panic}", std::any::type_name::<E>())))
    })
}

fn check_table<E: Event>() -> Result<(), Invalid> {
    let table = E::UPCASTERS;
    for (index, upcaster) in table.iter().enumerate() {
        let problem = wrong_source::<E>(upcaster)
            .or_else(|| {
                let twice = table[..index].iter().any(|earlier| overlap(earlier, upcaster));
                twice.then(|| "another upcaster takes these events too: remove one of them".to_owned())
            })
            .or_else(|| gap::<E>(upcaster))
            .or_else(|| wrong_target::<E>(upcaster))
            .or_else(|| circle(table, index));
        if let Some(problem) = problem {
            let problem = format!("of {}: {problem}", described(upcaster));
            return Err(Invalid::new("upcaster", problem));
        }
    }
    Ok(())
}

fn described(upcaster: &Upcaster) -> String {
    match upcaster.version() {
        Some(version) => format!("`{}` (schema version {version})", upcaster.event_type()),
        None => format!("`{}`", upcaster.event_type()),
    }
}

fn overlap(one: &Upcaster, other: &Upcaster) -> bool {
    one.event_type() == other.event_type()
        && one.version().zip(other.version()).is_none_or(|(one, other)| one == other)
}

/// Why its input is not a former shape.
fn wrong_source<E: Event>(upcaster: &Upcaster) -> Option<String> {
    let event_type = upcaster.event_type();
    if !E::TYPES.contains(&event_type) {
        return None;
    }
    let current = E::current_version(event_type);
    match upcaster.version() {
        None => {
            Some("events of this type are written today, so it is neither renamed nor dropped".to_owned())
        }
        Some(version) if version >= current => Some(format!(
            "version {current} is the one that is written today, and an upcaster takes a version before it"
        )),
        Some(_) => None,
    }
}

/// The problem of an earlier version of the same type without an upcaster. It would be decoded as the current
/// version, without this conversion.
fn gap<E: Event>(upcaster: &Upcaster) -> Option<String> {
    let (event_type, version) = (upcaster.event_type(), upcaster.version()?);
    // A version of a former type without an upcaster is an error when it is read.
    if !E::TYPES.contains(&event_type) {
        return None;
    }
    let passed = (1..version).find(|earlier| is_current(E::UPCASTERS, event_type, *earlier))?;
    Some(format!(
        "no upcaster takes version {passed}, which would be read as today's without this one: convert it too, if only to \
         hand the data on as version {}",
        passed + 1
    ))
}

/// Why its output cannot be read.
fn wrong_target<E: Event>(upcaster: &Upcaster) -> Option<String> {
    let is_continued = |event_type: &str, version: Option<u16>| {
        E::UPCASTERS.iter().any(|next| {
            next.event_type() == event_type
                && version.zip(next.version()).is_none_or(|(made, taken)| made == taken)
        })
    };
    let unknown = |event_type: &str| {
        format!("its output `{event_type}` is neither in `Event::TYPES` nor the input of another upcaster")
    };
    match upcaster {
        Upcaster::Renamed { event_type, .. } => {
            let known = E::TYPES.contains(event_type) || is_continued(event_type, None);
            (!known).then(|| unknown(event_type))
        }
        Upcaster::Converted { into, .. } => into.iter().find_map(|(event_type, version)| {
            if is_continued(event_type, Some(*version)) {
                return None;
            }
            if !E::TYPES.contains(event_type) {
                return Some(unknown(event_type));
            }
            let current = E::current_version(event_type);
            (*version > current).then(|| {
                format!(
                    "its output is version {version} of `{event_type}`, whose newest version is {current}"
                )
            })
        }),
        _ => None,
    }
}

/// Why a chain that begins with this upcaster does not end.
fn circle(table: &[Upcaster], begin: usize) -> Option<String> {
    let mut ways = vec![begin];
    let mut seen = vec![false; table.len()];
    while let Some(at) = ways.pop() {
        for next in following(table, &table[at]) {
            if next == begin {
                let cycle =
                    if at == begin { "its output is its own input" } else { "its output leads back to it" };
                return Some(format!("{cycle}, so its events could never be read"));
            }
            if !std::mem::replace(&mut seen[next], true) {
                ways.push(next);
            }
        }
    }
    None
}

/// The upcasters whose input may be the output of this one.
fn following(table: &[Upcaster], upcaster: &Upcaster) -> Vec<usize> {
    let takes = |next: &Upcaster| match upcaster {
        Upcaster::Converted { into, .. } => into.iter().any(|(name, version)| next.takes(name, *version)),
        Upcaster::Renamed { event_type, .. } => next.event_type() == *event_type,
        _ => false,
    };
    (0..table.len()).filter(|next| takes(&table[*next])).collect()
}

#[cfg(test)]
mod tests;
