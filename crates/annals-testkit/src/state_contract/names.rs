//! Clauses on names: C4.

use annals_state::NAME_BYTES_MAX;

use super::{acquire, at, create, read};
use crate::StateTrial;

/// Names that a collation, a trim, an escape or a pattern would treat as equal.
const ALIKE: [&str; 26] = [
    "mail",
    "Mail",
    "MAIL",
    "mail ",
    " mail",
    "mail\t",
    "máil",
    "ma\u{301}il",
    "maıl",
    "mаil",
    "strasse",
    "straße",
    "ﬁx",
    "fix",
    "%",
    "_",
    "m%",
    "ma_l",
    "mail'",
    "mail\"",
    "mail`",
    "mail\\",
    "mail;--",
    "\u{1F4E7}",
    "\u{1F4E8}",
    "메일",
];

/// C4: case, accents, blanks and characters with a meaning in SQL distinguish names.
pub async fn names_are_compared_byte_for_byte(trial: &mut StateTrial) {
    let state = trial.state();
    let mut made = Vec::new();
    for (position, name) in (1..).zip(ALIKE) {
        assert_eq!(read(&**state, name).await, None, "`{name}` has no checkpoint yet");
        let checkpoint = at(position);
        create(&**state, name, &checkpoint).await;
        made.push((name, checkpoint));
    }
    for (name, checkpoint) in made {
        assert_eq!(read(&**state, name).await, Some(checkpoint), "`{name}`");
        let parts = state.parts(name).await.expect("it answers");
        assert_eq!(parts.len(), 1, "`{name}` has no other part than itself: {parts:?}");
    }
}

/// C4: the last byte of the longest names counts, also beyond the prefix that an index would keep.
pub async fn names_of_the_greatest_length_are_distinguished(trial: &mut StateTrial) {
    let state = trial.state();
    for length in [63, 64, 191, 255, 256, 767, NAME_BYTES_MAX] {
        for (position, last) in [(1, "a"), (2, "b")] {
            let name = format!("{}{last}", "n".repeat(length - 1));
            let checkpoint = at(position);
            create(&**state, &name, &checkpoint).await;
            assert_eq!(read(&**state, &name).await, Some(checkpoint), "{length} bytes");
            let lease = acquire(&**state, &name, &name).await;
            assert_eq!((lease.token, lease.name.len(), lease.holder), (1, length, name));
        }
    }
    let wide = "é".repeat(NAME_BYTES_MAX / 2);
    create(&**state, &wide, &at(3)).await;
    assert!(read(&**state, &wide).await.is_some());
}

/// C4: a name that is too long, empty or contains NUL is refused, neither truncated nor stored.
pub async fn a_name_that_has_no_room_is_refused(trial: &mut StateTrial) {
    let state = trial.state();
    for name in [String::new(), "n".repeat(NAME_BYTES_MAX + 1), "ma\0il".to_owned()] {
        let shown = name.get(..5).unwrap_or(&name);
        assert!(state.create(&name, &at(1), None).await.is_err(), "`{shown}`");
        assert!(state.checkpoint(&name).await.is_err(), "`{shown}`");
        assert!(state.acquire(&name, "a", super::LENGTH).await.is_err(), "`{shown}`");
        assert!(state.acquire("mail", &name, super::LENGTH).await.is_err(), "`{shown}`");
    }
    assert_eq!(read(&**state, &"n".repeat(NAME_BYTES_MAX)).await, None);
    assert_eq!(read(&**state, "ma").await, None);
    assert_eq!(acquire(&**state, "mail", "b").await.token, 1, "nobody has acquired it");
}

/// C4: names of leases and of holders are compared in the same way.
pub async fn names_of_leases_are_compared_byte_for_byte(trial: &mut StateTrial) {
    let state = trial.state();
    for name in ALIKE {
        assert_eq!(acquire(&**state, name, "a").await.token, 1, "`{name}` was free");
    }
    for holder in ALIKE {
        let name = format!("held by {holder}");
        let lease = acquire(&**state, &name, holder).await;
        assert_eq!(lease.holder, holder);
        assert_eq!(state.holder(&name).await.expect("it answers").as_deref(), Some(holder));
        for other in ALIKE.into_iter().filter(|other| *other != holder) {
            assert_eq!(super::refused(&**state, &name, other).await, holder, "`{other}` is another");
        }
    }
}
