//! The test kit takes events the way that they take to a log: what passes there is not refused later.

use annals::testing::{given, given_view};
use annals::{
    Aggregate, Bytes, CodecError, Context, Decide, Decision, Event, HandlerError, Projection, Recorded, Tag,
    Tx, emit,
};

/// What can be wrong with a note.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Noted {
    Well,
    WithTags(usize),
    WithBytes(usize),
    UnderNoType,
    Unfoldable,
    Lost,
}

impl Event for Noted {
    const TYPES: &'static [&'static str] = &["note.written"];
    fn event_type(&self) -> &'static str {
        if *self == Self::UnderNoType { "note.scribbled" } else { "note.written" }
    }
    fn tags(&self) -> Result<Vec<Tag>, CodecError> {
        let Self::WithTags(count) = self else { return Ok(Vec::new()) };
        Ok((0..*count).map(|number| Tag::new(format!("tag:{number}")).unwrap()).collect())
    }
    fn encode(&self) -> Result<Bytes, CodecError> {
        let Self::WithBytes(count) = self else { return Ok(Bytes::from(format!("\"{self:?}\""))) };
        Ok(Bytes::from(format!("\"{}\"", "x".repeat(*count))))
    }
    fn decode(_: &str, _: u16, data: &[u8]) -> Result<Self, CodecError> {
        let text = std::str::from_utf8(data).unwrap().trim_matches('"');
        Ok(match text {
            "Unfoldable" => Self::Unfoldable,
            "UnderNoType" => Self::UnderNoType,
            "Well" | "Lost" => Self::Well,
            text if text.starts_with("WithTags") => {
                Self::WithTags(text.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap())
            }
            text => Self::WithBytes(text.len()),
        })
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Note(u32);

impl Aggregate for Note {
    const NAME: &'static str = "note";
    type Event = Noted;
    fn initial(_: &str) -> Self {
        Self::default()
    }
    fn evolve(&mut self, event: &Noted) {
        assert!(*event != Noted::Unfoldable, "it cannot be folded");
        self.0 += 1;
    }
}

impl Decide<Noted> for Note {
    type Error = std::convert::Infallible;
    fn decide(&self, command: &Noted, _: &Context) -> Decision<Self, Self::Error> {
        emit(*command)
    }
}

struct Notes;

impl Projection for Notes {
    const NAME: &'static str = "notes";
    const SCHEMA: &'static str = "CREATE TABLE notes (note TEXT)";
    type Event = Noted;
    fn apply(&self, _: &Recorded<Noted>, _: &Tx<'_>) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// What the kit says to this event, in each place in which it may be given.
fn refusals(event: Noted) -> Vec<String> {
    let message = |run: Box<dyn FnOnce() + std::panic::UnwindSafe>| {
        let panic = std::panic::catch_unwind(run).expect_err("the kit lets it pass");
        let message = panic.downcast_ref::<String>().cloned();
        message.or_else(|| panic.downcast_ref::<&str>().map(|message| (*message).to_owned())).unwrap()
    };
    vec![
        message(Box::new(move || {
            given::<Note>([event]);
        })),
        message(Box::new(move || {
            given::<Note>([]).when(event).then([event]);
        })),
    ]
}

#[test]
fn what_a_log_takes_passes() {
    assert_eq!(given::<Note>([Noted::Well]).when(Noted::WithTags(3)).then([Noted::WithTags(3)]), Note(2));
    given_view(Notes, [("note-1", Noted::Well)]).then_rows("SELECT COUNT(*) FROM notes", [(0,)]);
}

#[test]
fn what_a_log_refuses_does_not_pass() {
    let limits = annals::contract::Limits::default();
    for (event, why) in [
        (Noted::WithTags(limits.event_tags_max + 1), "tags, the limit is"),
        (Noted::WithBytes(limits.event_bytes_max + 1), "the limit is"),
        (Noted::UnderNoType, "Event::TYPES"),
        (Noted::Unfoldable, "it cannot be folded"),
    ] {
        for message in refusals(event) {
            assert!(message.contains(why), "{event:?}: {message}");
        }
    }
    let read_back = std::panic::catch_unwind(|| given::<Note>([]).when(Noted::Lost).then([Noted::Lost]));
    assert!(read_back.is_err(), "it is another event when it is read back");
    let too_many = Noted::WithTags(limits.event_tags_max + 1);
    let view = std::panic::catch_unwind(|| {
        given_view(Notes, [("note-1", too_many)]);
    });
    assert!(view.is_err(), "no log has it, so no projection meets it");
}
