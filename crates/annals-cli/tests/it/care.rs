//! What the person on call does: verify, repair, back up, restore.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::serve::Served;
use crate::support::Place;

/// A store of this many appends, each of one event.
pub fn filled(place: &Place, appends: usize) {
    for number in 0..appends {
        let line =
            format!("append account-{} --type deposited --data {{\"word\":\"w{number}w\"}}", number % 2);
        place.ok(&line);
    }
}

fn segment(place: &Place) -> PathBuf {
    let files = std::fs::read_dir(place.path("data/log")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "seg")).max().unwrap()
}

/// Changes one letter of the event that was written as number so and so.
pub fn damage(place: &Place, number: usize) {
    let mut bytes = std::fs::read(segment(place)).unwrap();
    let text = format!("w{number}w");
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes[at] ^= 1;
    std::fs::write(segment(place), bytes).unwrap();
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn words(events: &str) -> Vec<String> {
    lines(events).iter().map(|event| event["data"]["word"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn verify_says_what_is_lost_and_when_it_was_done_last() {
    let place = Place::new();
    filled(&place, 4);
    assert_eq!(place.ok("verify --last"), "file:data was never verified to the end\n");
    assert_eq!(place.json("verify --last --json")["last"], Value::Null);
    assert_eq!(place.json("verify --json --rate 100 --resume")["finished"], true);
    assert!(place.ok("verify --last").ends_with(" up to position 4: whole\n"));
    damage(&place, 1);
    let answer = place.annals("verify");
    assert_eq!(answer.code, 6);
    assert!(answer.out.contains("the event at position 2 is lost"), "{}", answer.out);
    assert!(place.ok("verify --last").ends_with(" up to position 4: damaged in 1 place\n"));
    let output = place.fails(1, "verify --store memory: --resume");
    assert!(output.contains("not a store of the kind `file:DIRECTORY`"), "{output}");
    assert!(place.fails(2, "verify --rate 0").contains("from 1 up"));
}

#[test]
fn repair_copies_what_is_whole_and_lists_what_it_left() {
    let place = Place::new();
    filled(&place, 5);
    damage(&place, 1);
    let before = std::fs::read(segment(&place)).unwrap();
    let answer = place.annals("repair --to file:mended");
    assert_eq!((answer.code, answer.err.as_str()), (6, ""), "{}", answer.out);
    assert!(answer.out.contains("the event at position 2 is lost"), "{}", answer.out);
    assert!(answer.out.contains("4 events\nlost 1 event"), "{}", answer.out);
    assert_eq!(std::fs::read(segment(&place)).unwrap(), before, "the source was changed");
    let report = lines(&place.read("mended/repair.jsonl"));
    let kinds: Vec<_> = report.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["left", "copied", "shifted", "copied", "end"].map(str::to_owned), "{report:?}");
    let shifted = &report.iter().find(|line| line["kind"] == "shifted").unwrap();
    assert_eq!((shifted["stream"].as_str(), shifted["old_version"].as_u64()), (Some("account-1"), Some(2)));
    assert!(place.ok("verify --store file:mended").ends_with("no damage found\n"));
    assert_eq!(words(&place.ok("read --all --json --store file:mended")), ["w0w", "w2w", "w3w", "w4w"]);
    let again = place.fails(1, "repair --to file:mended");
    assert!(again.ends_with("mended exists already; name a directory that does not"), "{again}");
    // A store that is whole is copied, and nothing is lost.
    let whole = place.annals("repair --store file:mended --to file:copy");
    assert_eq!(whole.code, 0);
    assert!(whole.out.contains("no event is lost"), "{}", whole.out);
    assert!(!place.path("copy.unfinished").exists());
}

#[test]
fn a_backup_comes_back_up_to_a_position_and_a_time() {
    let place = Place::new();
    filled(&place, 3);
    assert_eq!(place.json("backup backups --json")["head"], 3);
    filled(&place, 2);
    let made = place.json("backup backups --verify --json");
    assert_eq!((&made["backup"], &made["head"], &made["segments"]), (&2.into(), &5.into(), &1.into()));
    let listed = place.ok("backup --list backups --verify");
    assert!(listed.lines().count() == 4 && listed.contains("is as it was written"), "{listed}");
    let log = place.ok("read --all --json");
    assert!(place.ok("restore backups --store file:whole").contains("up to position 5, recorded "));
    assert_eq!(place.ok("read --all --json --store file:whole"), log);
    let expected: String = log.lines().take(2).map(|line| format!("{line}\n")).collect();
    let time = lines(&log)[1]["recorded_at"].as_str().unwrap().to_owned();
    for (name, to) in
        [("a", "--to 2".to_owned()), ("b", "--to 2 --backup 1".to_owned()), ("c", format!("--to {time}"))]
    {
        assert_eq!(
            place.json(&format!("restore backups --store file:{name} {to} --json"))["head"],
            2,
            "{to}"
        );
        assert_eq!(place.ok(&format!("read --all --json --store file:{name}")), expected);
    }
    for (code, arguments, output) in [
        (1, "--store file:whole", "whole exists already; name a directory that does not"),
        (2, "--store file:x --to 6", "the point is 6, and backup 2 ends at position 5"),
        (2, "--store file:x --backup 7", "backup 7 is not there"),
        (1, "--store memory:", "it is not a store of the kind `file:DIRECTORY`"),
    ] {
        let found = place.fails(code, &format!("restore backups {arguments}"));
        assert!(found.ends_with(output), "{arguments}: {found}");
    }
    assert!(
        !place.path("x").exists() && !place.path("x.unfinished").exists(),
        "nothing is left of a failure"
    );
    assert!(place.fails(2, "restore backups").contains("required arguments"), "the environment is not asked");
    assert!(place.fails(2, "restore backups --store file:x --to soon").contains("nor a time like"));
    assert!(place.fails(2, "backup ftp://x").contains("not a destination for backups"));
    assert_eq!(place.json("backup backups --keep 1 --json")["removed"], serde_json::json!([1, 2]));
}

#[test]
fn a_backup_that_rots_is_not_restored() {
    let place = Place::new();
    filled(&place, 3);
    place.ok("backup backups");
    let objects = std::fs::read_dir(place.path("backups")).unwrap().map(|entry| entry.unwrap().path());
    let object = objects.filter(|path| path.to_string_lossy().contains("segment-")).max().unwrap();
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    let output = place.fails(6, "restore backups --store file:x");
    assert!(output.contains("damage at segment-00000000000000000001-"), "{output}");
    let listed = place.annals("backup --list backups --verify");
    assert_eq!(listed.code, 6);
    assert!(listed.out.starts_with("backup 1 cannot be restored: damage at segment-"), "{}", listed.out);
    assert!(!place.path("x").exists() && !place.path("x.unfinished").exists());
}

#[test]
fn a_store_is_verified_and_backed_up_while_it_is_served() {
    let place = Place::new();
    filled(&place, 3);
    let server = Served::start(&place, &["--verify-rate", "100", "--backup", "backups"]);
    let figure = |name: &str| {
        let mut answer = ureq::get(format!("{}/metrics", server.url)).call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name)).map(str::to_owned);
        line.map(|line| line.split(' ').nth(1).unwrap().parse::<f64>().unwrap())
    };
    let begun = Instant::now();
    while figure("annals_verify_passes_total") != Some(1.0) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the pass does not end");
        std::thread::yield_now();
    }
    assert_eq!(figure("annals_verify_damage"), Some(0.0));
    assert!(figure("annals_verify_last_age_seconds").unwrap() < 60.0);
    assert_eq!(figure("annals_backup_last_age_seconds"), Some(f64::INFINITY), "there was none yet");
    let event = r#"[{"type":"deposited","data":{"word":"more"}}]"#;
    let posted = ureq::post(format!("{}/v1/streams/account-9", server.url))
        .content_type("application/json")
        .send(event);
    assert_eq!(posted.unwrap().status(), 201);
    let mut made = ureq::post(format!("{}/v1/backup", server.url)).send("").unwrap();
    assert_eq!(made.status(), 201);
    let made: Value = serde_json::from_str(&made.body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!((&made["backup"], &made["head"]), (&1.into(), &4.into()));
    assert!(figure("annals_backup_last_age_seconds").unwrap() < 60.0);
    let log = server.stop();
    assert!(log.contains("verified: no damage found") && log.contains("backed up"), "{log}");
    assert!(place.ok("verify --last").contains("whole"));
    place.ok("restore backups --store file:restored");
    assert_eq!(place.ok("read --all --json --store file:restored"), place.ok("read --all --json"));
}

/// A server that speaks S3, in a process of its own.
struct Objects(std::process::Child, String);

impl Objects {
    /// Starts `moto_server`; `None` if it is not installed.
    fn start(place: &Place) -> Option<Self> {
        let program = std::env::var("ANNALS_MOTO").unwrap_or_else(|_| "moto_server".to_owned());
        // It takes no port 0: one that was free a moment ago is.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(place.path("moto.log")).unwrap();
        let child = std::process::Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .ok()?;
        let server = Self(child, format!("http://127.0.0.1:{port}"));
        let begun = Instant::now();
        while ureq::put(format!("{}/bucket", server.1)).send("").is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", place.read("moto.log"));
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }

    fn annals(&self, place: &Place, line: &str) -> crate::support::Answer {
        let mut command = place.command(line.split_whitespace());
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_REGION", "us-east-1")];
        command.envs(keys).env("AWS_ENDPOINT", &self.1).env("AWS_ALLOW_HTTP", "true");
        command.output().unwrap().into()
    }

    fn ok(&self, place: &Place, line: &str) -> String {
        let answer = self.annals(place, line);
        assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{line}: {}", answer.out);
        answer.out
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Against a server that speaks S3: `pip install 'moto[server]'`, in the path or in ANNALS_MOTO.
#[cfg_attr(not(feature = "object-storage"), ignore = "needs the feature `object-storage`")]
#[test]
fn backups_go_to_object_storage_and_come_back() {
    let place = Place::new();
    let Some(objects) = Objects::start(&place) else {
        println!(
            "skipped: there is no `moto_server` (pip install 'moto[server]'; or its path in ANNALS_MOTO)"
        );
        return;
    };
    filled(&place, 2);
    // Larger than one part of an upload.
    let text = format!("\"{}\"", "x".repeat(15 << 20));
    let large = place.annals_with("append account-0 --type noted --data -", &text);
    assert_eq!(large.code, 0, "{}", large.err);
    assert!(
        objects
            .ok(&place, "backup s3://bucket/annals --verify")
            .starts_with("backup 1 in s3://bucket/annals: ")
    );
    place.ok("append account-1 --type deposited");
    objects.ok(&place, "backup s3://bucket/annals --verify");
    assert_eq!(objects.ok(&place, "backup --list s3://bucket/annals --verify").lines().count(), 4);
    // Beside it, and not mixed up with it.
    objects.ok(&place, "backup s3://bucket/annals-2");
    objects.ok(&place, "restore s3://bucket/annals --store file:restored");
    assert_eq!(place.ok("read --all --json --store file:restored"), place.ok("read --all --json"));
    objects.ok(&place, "restore s3://bucket/annals --store file:earlier --to 3 --backup 2");
    let removed = objects.ok(&place, "backup s3://bucket/annals --keep 1 --json");
    assert_eq!(lines(&removed)[0]["removed"], serde_json::json!([1, 2]));
    assert!(objects.ok(&place, "restore s3://bucket/annals --store file:newest").contains("from backup 3"));
    let missing = objects.annals(&place, "restore s3://nobucket/annals --store file:x");
    assert!(missing.code == 1 && missing.err.contains("cannot list the backups"), "{}", missing.err);
    assert!(!Path::new(&place.path("x")).exists());
}

#[test]
fn a_backup_of_another_history_says_that_the_older_ones_are_kept() {
    let place = Place::new();
    place.ok("append s --type t --data 1");
    let copied = Command::new("cp").args(["-a", "data", "other"]).current_dir(place.path(".")).status();
    assert!(copied.unwrap().success());
    place.ok("append s --type t --data 2");
    place.ok("append s --type t --data 22 --store file:other");
    assert!(!place.ok("backup bk").contains("history"));
    let output = place.ok("backup bk --keep 1 --store file:other");
    assert!(
        output.contains("the backups up to 1 are of another history") && output.contains("kept-000001"),
        "{output}"
    );
    assert_eq!(
        place.json("backup bk --keep 1 --store file:other --json")["other_history_up_to"],
        Value::Null
    );
    place.ok("restore bk --backup 1 --store file:first");
    assert_eq!(place.json("read s --from 2 --json --store file:first")["data"], 2);
}
