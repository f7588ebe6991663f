//! Events as they come.

use crate::support::{Message, Running};

fn append(server: &Running, stream: &str, kind: &str) {
    let event = format!("[{{\"type\":\"{kind}\",\"data\":{{}}}}]");
    assert_eq!(server.post(&format!("/v1/streams/{stream}"), &[], &event).status, 201);
}

#[test]
fn what_is_stored_comes_first_and_then_what_happens() {
    let server = Running::start();
    append(&server, "a", "one");
    append(&server, "a", "two");
    let mut messages = server.follow("/v1/events/live?after=0", "");
    assert_eq!(messages.next().unwrap(), Message { kind: None, id: Some(0), event: None });
    for (position, kind) in [(1, "one"), (2, "two")] {
        let (id, event) = messages.event();
        assert_eq!(
            (id, event["type"].as_str().unwrap(), event["position"].as_u64()),
            (position, kind, Some(position))
        );
    }
    append(&server, "b", "three");
    assert_eq!(messages.event().0, 3);
}

#[test]
fn without_a_position_only_new_events_come_and_the_position_is_reported() {
    let server = Running::start();
    append(&server, "a", "one");
    let mut messages = server.follow("/v1/events/live", "");
    assert_eq!(messages.next().unwrap(), Message { kind: None, id: Some(1), event: None });
    append(&server, "a", "two");
    assert_eq!(messages.event().0, 2);
}

#[test]
fn a_client_that_reconnects_resumes_after_the_last_id() {
    let server = Running::start();
    for kind in ["one", "two", "three", "four"] {
        append(&server, "a", kind);
    }
    let mut messages = server.follow("/v1/events/live?after=0", "last-event-id: 2\r\n");
    assert_eq!(messages.event().0, 3);
    assert_eq!(messages.event().0, 4);
}

#[test]
fn only_the_events_that_are_meant_come() {
    let server = Running::start();
    let mut messages = server.follow("/v1/events/live?after=0&category=b&type=two&type=three", "");
    for (stream, kind) in [("a-1", "two"), ("b-1", "one"), ("b-1", "two"), ("a-1", "three"), ("b-2", "three")]
    {
        append(&server, stream, kind);
    }
    assert_eq!(messages.event().0, 3);
    assert_eq!(messages.event().0, 5);
}

#[test]
fn many_followers_see_every_event_once_and_in_order_while_others_write() {
    let server = Running::start();
    let mut followers: Vec<_> = (0..4).map(|_| server.follow("/v1/events/live?after=0", "")).collect();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let server = &server;
            scope.spawn(move || (0..50).for_each(|_| append(server, &format!("s-{writer}"), "x")));
        }
        for follower in &mut followers {
            scope.spawn(|| (1..=200).for_each(|position| assert_eq!(follower.event().0, position)));
        }
    });
}

#[test]
fn line_breaks_in_data_do_not_break_messages() {
    let server = Running::start();
    let mut messages = server.follow("/v1/events/live", "");
    server.post("/v1/streams/a", &[], "[{\"type\":\"x\",\"data\":{\r\n \"a\":\n\n 1}}]");
    assert_eq!(messages.event().1["data"]["a"], 1);
}

#[test]
fn a_place_in_another_log_is_refused() {
    let server = Running::start();
    let answer = server.get("/v1/events/live?after=7");
    assert_eq!(answer.problem(), (400, "invalid".into(), Some("after".into())));
}

#[test]
fn a_follower_that_goes_is_forgotten() {
    let server = Running::start();
    let gauge = |count: &str| {
        let started = std::time::Instant::now();
        while !server.get("/metrics").text.contains(&format!("annals_live_subscribers {count}\n")) {
            assert!(started.elapsed() < crate::support::HANG, "the gauge never says {count}");
            std::thread::yield_now();
        }
    };
    let followers = [server.follow("/v1/events/live", ""), server.follow("/v1/events/live", "")];
    gauge("2");
    drop(followers);
    gauge("0");
}

#[test]
fn a_filter_beyond_the_limits_is_refused_and_no_stream_begins() {
    let server = Running::start();
    let tags: String = (0..5_000).map(|number| format!("&tag=t{number}")).collect();
    let (code, status) = {
        let refused = server.get(&format!("/v1/events/live?after=0{tags}")).problem();
        (refused.1, refused.0)
    };
    assert_eq!((status, code.as_str()), (400, "invalid"));
}
