//! Upcasters: rewrites of the types and shapes that a program no longer writes, as data beside the event
//! type.
//!
//! ```text
//! account.registered  v1 --Renamed----> account.opened v1
//! account.opened      v1 --Converted--> account.opened v2 --Converted--> account.opened v3      (written today)
//! order.placed_paid   v1 --Converted--> order.placed v1, order.paid v1                          (one to many)
//! order.viewed           --Dropped---->
//! ```
//!
//! They apply to stored events, before these are decoded. This file only defines them; the codec of the crate
//! `annals`, through which every reader of domain events goes, checks the table and applies the chain.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Bytes, Cause, ContentType, RecordedEvent, Text};

/// An event in stored form, not decoded: the input and output of an [`Upcaster`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawEvent {
    /// The stored name of its type.
    pub event_type: Text,
    /// The version of the shape of `data`.
    pub schema_version: u16,
    /// The format of `data`.
    pub content_type: ContentType,
    /// What happened, in detail.
    pub data: Bytes,
}

impl RawEvent {
    /// An event of this type and version, with JSON data.
    pub fn new(event_type: impl Into<Text>, schema_version: u16, data: impl Into<Bytes>) -> Self {
        Self {
            event_type: event_type.into(),
            schema_version,
            content_type: ContentType::Json,
            data: data.into(),
        }
    }

    /// An event of this type and version, whose data is this value as JSON.
    ///
    /// # Errors
    /// If serde fails.
    pub fn json(
        event_type: impl Into<Text>,
        schema_version: u16,
        data: &impl Serialize,
    ) -> Result<Self, Cause> {
        Ok(Self::new(event_type, schema_version, serde_json::to_vec(data)?))
    }

    /// The same event with data of this content type.
    #[must_use]
    pub fn with_content_type(mut self, content_type: ContentType) -> Self {
        self.content_type = content_type;
        self
    }

    /// The data, read as JSON. Empty data is read as `{}`: some programs write an event without fields this
    /// way.
    ///
    /// # Errors
    /// If the data is not JSON or does not fit.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Cause> {
        if !self.content_type.is_json() {
            return Err(format!("its content type is {}, not JSON", self.content_type).into());
        }
        if self.data.is_empty() {
            let read = serde_json::from_slice(b"{}");
            return read
                .map_err(|error| format!("its data is empty, which is read as `{{}}`: {error}").into());
        }
        Ok(serde_json::from_slice(&self.data)?)
    }
}

impl From<&RecordedEvent> for RawEvent {
    fn from(stored: &RecordedEvent) -> Self {
        Self {
            event_type: stored.event_type().into(),
            schema_version: stored.schema_version(),
            content_type: stored.content_type(),
            data: stored.data_bytes(),
        }
    }
}

/// The upcaster for a type, or a version of its shape, that is in the log and no longer written.
///
/// `#[derive(Event)]` creates upcasters for `#[event(former_name = "…")]`,
/// `#[event(version = 2, upcast(1 = from_v1))]` and `#[event(dropped = "…")]`. A table for other cases is
/// given with `#[event(upcasters = TABLE)]`:
///
/// ```
/// use annals_core::{Cause, Event, RawEvent, Upcaster};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
/// #[event(prefix = "order", upcasters = SPLIT)]
/// enum OrderEvent {
///     Placed { item: String },
///     Paid { cents: u64 },
/// }
///
/// const SPLIT: &[Upcaster] = &[Upcaster::Converted {
///     event_type: "order.placed_and_paid",
///     version: 1,
///     into: &[("order.placed", 1), ("order.paid", 1)],
///     convert: placed_and_paid,
/// }];
///
/// #[derive(Deserialize)]
/// struct PlacedAndPaid {
///     item: String,
///     cents: u64,
/// }
///
/// fn placed_and_paid(stored: RawEvent) -> Result<Vec<RawEvent>, Cause> {
///     let PlacedAndPaid { item, cents } = stored.read()?;
///     let placed = serde_json::json!({ "item": item });
///     let paid = serde_json::json!({ "cents": cents });
///     Ok(vec![RawEvent::json("order.placed", 1, &placed)?, RawEvent::json("order.paid", 1, &paid)?])
/// }
///
/// assert_eq!(OrderEvent::UPCASTERS.len(), 1);
/// ```
#[doc(alias("migration", "schema evolution"))]
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Upcaster {
    /// Events of one type and version are rewritten: into the next version, into another type, or into
    /// several events. The table is applied to the new events again, until no upcaster takes them.
    Converted {
        /// The stored name.
        event_type: &'static str,
        /// The version of the shape.
        version: u16,
        /// The events that it may be rewritten into, by type and version. If the list is empty, events of
        /// this version are dropped.
        into: &'static [(&'static str, u16)],
        /// Rewrites the event. Must depend on the event alone: it is called each time the event is read. An
        /// empty result is an error unless `into` is empty too. To drop some events of a type and keep
        /// others, rewrite those to drop into a type that the table drops, and name that type in `into`.
        convert: fn(RawEvent) -> Result<Vec<RawEvent>, Cause>,
    },
    /// A type has another stored name now. The versions of its shape are counted across both names.
    Renamed {
        /// The name in the log.
        former: &'static str,
        /// The current name.
        event_type: &'static str,
    },
    /// Events of a type are obsolete, in any version, and are skipped by every reader. If such an event is
    /// one of several that another upcaster makes, the others keep their part numbers.
    Dropped {
        /// The stored name.
        event_type: &'static str,
    },
}

impl Upcaster {
    /// The stored name of the events that it takes.
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::Converted { event_type, .. } | Self::Dropped { event_type } => event_type,
            Self::Renamed { former, .. } => former,
        }
    }

    /// The version that it takes; `None` if it takes every version.
    pub const fn version(&self) -> Option<u16> {
        match self {
            Self::Converted { version, .. } => Some(*version),
            Self::Renamed { .. } | Self::Dropped { .. } => None,
        }
    }

    /// Whether it takes events of this type and version.
    pub fn takes(&self, event_type: &str, version: u16) -> bool {
        self.event_type() == event_type && self.version().is_none_or(|taken| taken == version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read_as_json_only_if_it_says_so() {
        let raw = RawEvent::new("a.b", 1, "[1]");
        assert_eq!(raw.read::<Vec<u8>>().unwrap(), [1]);
        let binary = raw.with_content_type(ContentType::Binary).read::<Vec<u8>>().unwrap_err();
        assert_eq!(binary.to_string(), "its content type is application/octet-stream, not JSON");
        assert!(
            RawEvent::new("a.b", 1, "").read::<std::collections::BTreeMap<String, u8>>().unwrap().is_empty()
        );
        let empty = RawEvent::new("a.b", 1, "").read::<u8>().unwrap_err().to_string();
        assert!(empty.starts_with("its data is empty, which is read as `{}`: invalid type: map"), "{empty}");
    }

    #[test]
    fn what_takes_every_version_takes_every_version() {
        let dropped = Upcaster::Dropped { event_type: "a.b" };
        assert!(dropped.takes("a.b", 0) && dropped.takes("a.b", u16::MAX) && !dropped.takes("a.c", 1));
    }
}
