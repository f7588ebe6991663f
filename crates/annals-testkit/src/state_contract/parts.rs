//! Clauses on the parts of a name: C1 and C2 of several checkpoints at once.

use std::collections::BTreeSet;

use annals_state::{Advanced, Checkpoint};

use super::{at, create, read};
use crate::StateTrial;

type Parts = Vec<(String, Checkpoint)>;

/// Parts of `mail` with these names.
fn parts(names: &[&str]) -> Parts {
    (1..).zip(names).map(|(position, name)| ((*name).to_owned(), at(position))).collect()
}

/// C1: the name itself and the names that begin with it and a slash, in the order of bytes.
pub async fn the_parts_of_a_name_are_found_and_no_others(trial: &mut StateTrial) {
    let state = trial.state();
    let own = parts(&["mail", "mail/1 of 2", "mail/2 of 2", "mail/division", "mail/é", "mail/\u{1F4E7}"]);
    for (name, checkpoint) in own.iter().rev() {
        create(&**state, name, checkpoint).await;
    }
    for other in ["mail0", "mail.", "mail-1", "Mail/1 of 2", "mai", "mailing/1 of 2", "mail /1", "/mail"] {
        create(&**state, other, &at(1)).await;
    }
    assert_eq!(state.parts("mail").await.expect("it answers"), own);
    assert_eq!(state.parts("post").await.expect("it answers"), Parts::new());
}

/// C2: the found parts are removed, and the given parts are written.
pub async fn parts_are_replaced_all_at_once(trial: &mut StateTrial) {
    let state = trial.state();
    let other = at(9);
    create(&**state, "mail0", &other).await;
    let mut found = Parts::new();
    for names in [
        &["mail"][..],
        &["mail/1 of 2", "mail/2 of 2", "mail/division"],
        &["mail/1 of 1", "mail/division"],
        &["mail"],
        &[],
    ] {
        let instead = parts(names);
        assert!(state.replace_parts("mail", &found, &instead).await.expect("it answers"), "{names:?}");
        assert_eq!(state.parts("mail").await.expect("it answers"), instead);
        found = instead;
    }
    assert_eq!(read(&**state, "mail0").await, Some(other));
}

/// C2: one of them has advanced.
pub async fn parts_that_were_moved_meanwhile_are_not_replaced(trial: &mut StateTrial) {
    let state = trial.state();
    let found = parts(&["mail/1 of 2", "mail/2 of 2"]);
    assert!(state.replace_parts("mail", &[], &found).await.expect("it answers"));
    assert_eq!(state.advance("mail/2 of 2", &at(5), None).await.expect("it answers"), Advanced::Moved);
    let there = state.parts("mail").await.expect("it answers");
    assert!(!state.replace_parts("mail", &found, &parts(&["mail"])).await.expect("it answers"));
    assert_eq!(state.parts("mail").await.expect("it answers"), there);
    assert!(state.replace_parts("mail", &there, &parts(&["mail"])).await.expect("it answers"));
}

/// C2: there is one part more than was found, or one less.
pub async fn a_part_that_came_meanwhile_keeps_the_parts(trial: &mut StateTrial) {
    let state = trial.state();
    let there = parts(&["mail/1 of 2", "mail/2 of 2"]);
    assert!(state.replace_parts("mail", &[], &there).await.expect("it answers"));
    let more = [there.clone(), parts(&["mail/3 of 2"])].concat();
    for found in [&there[..1], &[], &more[..]] {
        assert!(!state.replace_parts("mail", found, &parts(&["mail"])).await.expect("it answers"));
        assert_eq!(state.parts("mail").await.expect("it answers"), there);
    }
}

/// C2: all start without parts, and one division is written.
pub async fn of_many_that_divide_one_succeeds(trial: &mut StateTrial) {
    let mut dividing = Vec::new();
    for of in 1..=6 {
        let state = trial.beside().await;
        let names: Vec<String> = (1..=of).map(|number| format!("mail/{number} of {of}")).collect();
        dividing.push(tokio::spawn(async move {
            let wanted: Parts = names.into_iter().map(|name| (name, at(of))).collect();
            for _ in 0..100 {
                match state.replace_parts("mail", &[], &wanted).await {
                    Ok(made) => return made.then_some(wanted),
                    // The database has rolled back one of two concurrent transactions.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                }
            }
            panic!("a hundred tries fail");
        }));
    }
    let mut made = Vec::new();
    for task in dividing {
        made.extend(task.await.expect("it ends"));
    }
    assert_eq!(made.len(), 1, "one division is made: {made:?}");
    let there: BTreeSet<_> =
        trial.state().parts("mail").await.expect("it answers").into_iter().map(|(name, _)| name).collect();
    assert_eq!(there, made.remove(0).into_iter().map(|(name, _)| name).collect());
}
