//! An event as a client sends it: without a position, and with the path of any error in it.

use std::borrow::Cow;

use annals_core::{ContentType, EventId, EventType, Invalid, NewEvent, Tag, check_json};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::{Cause, at, content_type, decode_base64, embedded, one};
use crate::list::List;
use crate::object::{object, present};
use crate::whole::small;

/// An event from a client. `stream` is for requests that do not name it elsewhere.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incoming<'a> {
    /// The stream of the event.
    #[serde(default, borrow, deserialize_with = "present")]
    pub stream: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "present")]
    id: Option<Cow<'a, str>>,
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    #[serde(default = "one", deserialize_with = "small")]
    schema_version: u16,
    #[serde(default, borrow, deserialize_with = "present")]
    content_type: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    data_base64: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    tags: List<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "object")]
    metadata: Cause<'a>,
    #[serde(default, borrow, deserialize_with = "present")]
    occurred_at: Option<Cow<'a, str>>,
}

impl<'a> Incoming<'a> {
    /// Converts it to an event.
    ///
    /// # Errors
    /// [`Unreadable`], naming the field within the event.
    pub fn into_event(self) -> Result<NewEvent, Unreadable<'a>> {
        let content_type = content_type(self.content_type.as_deref());
        if let Some(json) = self.data
            && content_type.is_json()
            && let Err(invalid) = check_json(json.get().as_bytes())
        {
            let place = &json.get()[invalid.offset..];
            return Err(Unreadable { invalid: Invalid::new("data", invalid.problem), place: Some(place) });
        }
        Ok(self.into_checked(content_type)?)
    }

    fn into_checked(self, content_type: ContentType) -> Result<NewEvent, Invalid> {
        let data = match (self.data, self.data_base64) {
            (Some(_), Some(_)) => {
                return Err(Invalid::new("data_base64", "stands beside `data`; give one of them"));
            }
            (None, Some(text)) => {
                let data = decode_base64(&text)?;
                if content_type.is_json() {
                    check_json(&data).map_err(|invalid| {
                        let hint = "give the `content_type` of data that is not JSON";
                        Invalid::new("data_base64", format!("is not JSON: it {invalid} of the data; {hint}"))
                    })?;
                }
                data
            }
            (json, None) => embedded(&content_type, json)?,
        };
        let mut event = NewEvent::new(EventType::new(&*self.event_type)?, data)?;
        if let Some(id) = self.id {
            event.id = id.parse::<EventId>()?;
        }
        for (index, tag) in self.tags.0.iter().enumerate() {
            event = event.with_tag(Tag::new(&**tag).map_err(at(format!("tags[{index}]")))?);
        }
        event.schema_version = self.schema_version;
        event.content_type = content_type;
        event.metadata = self.metadata.into_metadata().into();
        event.occurred_at =
            self.occurred_at.map(|time| time.parse()).transpose().map_err(at("occurred_at"))?;
        Ok(event)
    }
}

/// Why an event is refused.
pub struct Unreadable<'a> {
    /// The field, and what is wrong with it.
    pub invalid: Invalid,
    /// The rest of the request from the error on, if its place is known.
    pub place: Option<&'a str>,
}

impl From<Invalid> for Unreadable<'_> {
    fn from(invalid: Invalid) -> Self {
        Self { invalid, place: None }
    }
}
