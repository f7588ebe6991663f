//! `annals demo`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{Answer, Place, signalled, stopped};

const SAMPLE: &str = include_str!("../../../../examples/shop/data/cdnow-sample.txt");

/// The heading and the first purchases of the sample.
pub fn some(purchases: usize) -> String {
    SAMPLE.split_inclusive('\n').take(purchases + 1).collect()
}

fn dollars(cents: u64) -> f64 {
    format!("{}.{:02}", cents / 100, cents % 100).parse().unwrap()
}

/// What the demo must print as JSON, by a plain walk over the lines that shares nothing with the shop.
pub fn expected(text: &str) -> Value {
    let mut months = BTreeMap::<String, u64>::new();
    let mut customers = BTreeMap::<String, (u64, u64, u64)>::new();
    let (mut purchases, mut cds, mut revenue) = (0_u64, 0, 0);
    for line in text.lines().skip(1) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (pieces, cents): (u64, u64) =
            (columns[2].parse().unwrap(), columns[3].replace('.', "").parse().unwrap());
        let customer = customers.entry(columns[0].to_owned()).or_default();
        *customer = (customer.0 + 1, customer.1 + pieces, customer.2 + cents);
        *months.entry(format!("{}-{}", &columns[1][..4], &columns[1][4..6])).or_default() += cents;
        (purchases, cds, revenue) = (purchases + 1, cds + pieces, revenue + cents);
    }
    let mut best: Vec<_> = customers.iter().collect();
    best.sort_by_key(|(customer, (.., cents))| (std::cmp::Reverse(*cents), *customer));
    let best: Vec<_> = best[..best.len().min(10)]
        .iter()
        .map(|(customer, (purchases, cds, cents))| {
            json!({"customer": customer, "purchases": purchases, "cds": cds, "money": dollars(*cents)})
        })
        .collect();
    let months: BTreeMap<_, _> = months.into_iter().map(|(month, cents)| (month, dollars(cents))).collect();
    json!({
        "purchases": purchases, "customers": customers.len(), "cds": cds, "revenue": dollars(revenue),
        "revenue_by_month": months, "best_customers": best,
    })
}

#[track_caller]
fn demo(place: &Place, line: &str) -> Value {
    let answer = place.annals(line);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert_eq!(answer.out.lines().count(), 1, "one JSON object and nothing else: {}", answer.out);
    serde_json::from_str(&answer.out).unwrap()
}

#[test]
fn the_sample_says_what_its_readme_says() {
    let place = Place::new();
    let output = demo(&place, "demo --once --json");
    assert_eq!(output, expected(SAMPLE));
    let totals = (&output["purchases"], &output["customers"], &output["cds"], &output["revenue"]);
    assert_eq!(totals, (&json!(6_787), &json!(2_357), &json!(16_139), &json!(240_267.14)));
}

#[test]
fn a_demo_that_is_killed_again_and_again_ends_with_every_purchase_once() {
    let place = Place::new();
    let text = some(1_000);
    place.write("purchases.txt", &text);
    let line = "demo --once --json --input purchases.txt";
    // Any number will do; this one tells which, if it ever fails.
    let mut seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let first_seed = seed;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut kills = 0;
    for _ in 0..6 {
        let mut child = place.command(line.split_whitespace()).spawn().unwrap();
        // It says ten times how far it is. It is killed a moment after one of these, wherever it is then.
        let mut output = BufReader::new(child.stderr.take().unwrap()).lines();
        for _ in 0..=random(8) {
            output.next().unwrap().unwrap();
        }
        std::thread::sleep(Duration::from_micros(random(20_000)));
        kills += u64::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills > 0, "none was killed in the middle");
    assert_eq!(demo(&place, line), expected(&text), "seed {first_seed}");
    let events =
        |event_type: &str| place.ok(&format!("read --all --type {event_type} --json")).lines().count();
    assert_eq!(events("order.placed"), 1_000, "seed {first_seed}");
    assert_eq!(events("product.sold"), 1_000, "seed {first_seed}");
    assert_eq!(events("order.backordered"), 0, "seed {first_seed}");
    place.ok("verify");
}

#[test]
fn a_demo_that_is_run_again_adds_nothing() {
    let place = Place::new();
    place.write("purchases.txt", some(200));
    let first = demo(&place, "demo --once --json --input purchases.txt");
    let log = place.ok("read --all --json");
    let again = place.annals("demo --once --input purchases.txt");
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(again.out.contains("nothing was added"), "{}", again.out);
    assert_eq!(demo(&place, "demo --once --json --input purchases.txt"), first);
    assert!(log == place.ok("read --all --json"), "the log is as it was");
}

#[test]
fn the_summary_shows_the_figures_and_where_the_data_is() {
    let place = Place::new();
    place.write("purchases.txt", some(200));
    let answer = place.annals("demo --once --input purchases.txt --store file:shop --concurrency 7");
    assert_eq!(answer.code, 0, "{}", answer.err);
    let cents = (expected(&some(200))["revenue"].as_f64().unwrap() * 100.0).round() as u64;
    let revenue = format!("{},{:03}.{:02}", cents / 100_000, cents / 100 % 1_000, cents % 100);
    let directory = place.path("shop").display().to_string();
    for piece in ["Revenue by month", "Best customers", "a second", &revenue, &directory] {
        assert!(answer.out.contains(piece), "{piece}: {}", answer.out);
    }
    assert!(answer.err.contains("200 of 200 purchases"), "{}", answer.err);
}

#[test]
fn a_file_with_a_bad_line_is_refused_before_anything_is_done() {
    let place = Place::new();
    place.write("purchases.txt", some(5) + " 00099 19970230  1   11.77\r\n");
    let output = place.fails(1, "demo --once --input purchases.txt");
    assert_eq!(output, "purchases.txt: line 7 column 2, `19970230`, is not a date like 19970131");
    assert!(!place.path("data").exists(), "not even a store was made");
    let output = place.fails(3, "demo --once --input nowhere.txt");
    assert!(output.starts_with("cannot read nowhere.txt: "), "{output}");
}

/// A demo of 50 purchases that has fed them and serves on: the process, its further output and its address.
fn staying(place: &Place) -> (Child, BufReader<ChildStdout>, String) {
    place.write("purchases.txt", some(50));
    let line = "demo --listen 127.0.0.1:0 --input purchases.txt";
    let mut child = place.command(line.split_whitespace()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = String::new();
    let url = loop {
        assert!(output.read_line(&mut lines).unwrap() > 0, "{lines}");
        if let Some(rest) = lines.lines().last().unwrap().strip_prefix("The shop is at ") {
            break rest.split_once("/shop").unwrap().0.to_owned();
        }
    };
    (child, output, url)
}

#[test]
fn the_demo_stays_up_and_shows_shop_and_console() {
    let place = Place::new();
    let (child, mut output, url) = staying(&place);
    let get = |path: &str| {
        let mut answer = ureq::get(format!("{url}{path}")).call().unwrap();
        answer.body_mut().read_to_string().unwrap()
    };
    assert!(get("/shop").contains("Revenue by month"));
    assert!(get("/").contains("order.placed") && get("/").contains("href=\"/shop\""));
    let sales: Value = serde_json::from_str(&get("/shop/sales")).unwrap();
    assert_eq!(sales["purchases"], 50);
    let Answer { code, err, .. } = stopped(child, "-INT");
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(code, 0, "{rest}{err}");
}

#[test]
fn a_second_signal_ends_a_demo_that_waits_for_a_client() {
    let place = Place::new();
    let (child, _said, url) = staying(&place);
    let address = url.strip_prefix("http://").unwrap();
    // A body that never comes to its end keeps the server from ending.
    let mut upload = TcpStream::connect(address).unwrap();
    write!(upload, "POST /v1/append HTTP/1.1\r\nHost: {address}\r\nContent-Length: 100\r\n\r\n{{").unwrap();
    signalled(&child, "-INT");
    while TcpStream::connect(address).is_ok() {
        std::thread::yield_now();
    }
    let Answer { code, err, .. } = stopped(child, "-TERM");
    assert_eq!(code, 143, "{err}");
}

#[test]
fn a_state_file_that_is_no_database_is_named_with_what_to_do() {
    let place = Place::new();
    place.write("small.txt", " 00001 19970101  1   11.77\n 00002 19970112  1   12.00\n");
    let demo = "demo --once --json --input small.txt --store file:st";
    assert_eq!(place.annals(demo).code, 0);
    place.write("st/state.sqlite", "garbage\n");
    let output = place.annals(demo);
    assert_eq!((output.code, output.out.as_str()), (6, ""), "{}", output.err);
    for part in ["st/state.sqlite", "subscriber", "remove it", "docs/operations.md"] {
        assert!(output.err.contains(part), "{part}: {}", output.err);
    }
    for name in ["state.sqlite", "state.sqlite-wal", "state.sqlite-shm"] {
        let _ = std::fs::remove_file(place.path("st").join(name));
    }
    assert_eq!(place.annals(demo).code, 0, "as the message says");
}
