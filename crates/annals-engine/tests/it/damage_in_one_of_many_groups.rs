//! Damage is damage, in whichever group it is.

use annals_core::{Error, EventStore};
use annals_engine::Options;
use annals_engine::disk::faulty::{FaultyDisk, Plan};

use crate::common::{append, join, open};

/// G9: what is acknowledged in many groups at once is not taken for a torn tail when a bit flips in the first
/// of them.
#[tokio::test(flavor = "multi_thread")]
async fn damage_in_one_of_many_groups_is_not_the_end_of_the_log() {
    let disk = FaultyDisk::new();
    let store = open(&disk, Options::default()).unwrap();
    store.append(append("first", 0, 1)).await.unwrap();
    disk.plan(Plan { sync_micros: 100_000, ..Plan::default() });
    let large = |number: usize| {
        let mut append = append(&format!("account-{number}"), number, 1);
        append.writes[0].event.data = format!("\"{number:04}{}\"", "x".repeat(2 << 20)).into();
        append
    };
    let answers = join((0..6).map(|number| store.append(large(number)))).await;
    let last = answers.iter().map(|answer| answer.as_ref().unwrap().last).max().unwrap();
    // The process is killed: nothing is closed.
    let after = disk.restart(0);
    let (name, bytes) = after.files().into_iter().find(|(name, _)| name.ends_with(".seg")).unwrap();
    let at = bytes.windows(8).position(|w| w == b"0001xxxx").unwrap();
    after.flip(&name, at, 0);
    disk.plan(Plan::default());
    match open(&after, Options::default()) {
        Err(Error::Damaged { .. }) => {}
        Err(other) => panic!("{other:?}"),
        Ok(reopened) => panic!(
            "acknowledged up to {last}; opened without a word, head {}",
            reopened.head().await.unwrap()
        ),
    }
}
