//! `head` and `receipt`.

use crate::support::Place;

#[test]
fn an_event_is_proved_with_only_a_published_head() {
    let place = Place::new();
    for version in 0..5 {
        place.ok(&format!(r#"append account-42 --type account.booked --data {{"n":{version}}}"#));
    }
    place.write("receipt.json", place.ok("receipt account-42 3"));
    place.write("early.json", place.ok("head --to 2 --json"));
    place.ok("append account-43 --type account.opened");
    place.write("late.json", place.ok("head --json"));
    place.write("later.json", place.ok("receipt account-42 3"));
    assert!(place.ok("head").starts_with("log "));

    let verified = place.ok("verify --head early.json");
    assert!(verified.contains("up to position 2 it is as it was when the head was published"), "{verified}");
    assert_eq!(place.json("verify --chain late.json --json")["as_published"], true);
    place.write("forged.json", place.read("early.json").replace("\"position\":2", "\"position\":3"));
    let forged = place.annals("verify --head forged.json");
    assert!(forged.code == 1 && forged.out.contains("it is not as it was"), "{}", forged.out);

    let proved = place.ok("receipt --check later.json --head late.json");
    assert!(proved.starts_with("proved: account-42 version 3, account.booked at position 3"), "{proved}");
    for (receipt, head, why) in [
        ("receipt.json", "late.json", "not that of the head"),
        ("later.json", "early.json", "ends before the event"),
    ] {
        let answer = place.annals(&format!("receipt --check {receipt} --head {head}"));
        assert_eq!(answer.code, 1);
        assert!(answer.out.starts_with("not proved: ") && answer.out.contains(why), "{}", answer.out);
    }
    let changed = place.ok("receipt account-42 3").replace("\"version\":3", "\"version\":2");
    place.write("changed.json", &changed);
    let answer = place.annals("receipt --check changed.json --head late.json --json");
    assert!(answer.code == 1 && answer.out.contains("\"proved\":false"), "{}", answer.out);
}

#[test]
fn what_cannot_be_proved_is_reported() {
    let place = Place::new();
    place.ok("append a-1 --type opened");
    place.write("head.json", place.ok("head --json"));
    for (code, line, why) in [
        (3, "receipt a-1 2", "there is no event 2 of stream a-1"),
        (1, "head --to 7", "no append ends at position 7"),
        (3, "receipt --check missing --head head.json", "cannot use missing as a receipt"),
        (1, "receipt --check head.json --head head.json", "cannot use head.json as a receipt"),
    ] {
        let answer = place.annals(line);
        assert_eq!(answer.code, code, "{line}");
        assert!(answer.err.contains(why), "{line}: {}", answer.err);
    }
    assert_eq!(place.annals("receipt").code, 2);
}
