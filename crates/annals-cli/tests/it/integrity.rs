//! What a store on disk holds against what is done to its files, its clock and its medium.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    Append, Clock as _, EventStore as _, Expected, NewEvent, StreamId, SystemClock, TestClock,
};
use annals_engine::{EngineStore, Options};

use crate::serve::Served;
use crate::support::Place;

fn filled(place: &Place, events: usize) {
    for number in 0..events {
        place.ok(&format!("append s-1 --type t --data {number}"));
    }
}

/// Posts an event to a server; the status of its answer.
fn post(server: &Served) -> u16 {
    let answer = ureq::post(format!("{}/v1/streams/s-1", server.url))
        .config()
        .http_status_as_error(false)
        .build()
        .content_type("application/json")
        .send(r#"[{"type":"t","data":"server"}]"#);
    answer.unwrap().status().as_u16()
}

fn ready(server: &Served) -> (u16, String) {
    let answer = ureq::get(format!("{}/health/ready", server.url));
    let mut answer = answer.config().http_status_as_error(false).build().call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
}

#[test]
fn a_served_store_without_its_lock_file_is_opened_by_no_other_process() {
    let place = Place::new();
    filled(&place, 3);
    let server = Served::start(&place, &[]);
    std::fs::remove_file(place.path("data/LOCK")).unwrap();
    let output = place.fails(5, "append s-1 --type t --data 1");
    assert!(output.contains("open in another process"), "{output}");
    assert_eq!(post(&server), 201);
    server.stop();
    place.ok("append s-1 --type t --data 5");
    assert!(place.ok("verify").ends_with("no damage found\n"));
    assert_eq!(place.ok("read s-1 --json").lines().count(), 5);
}

#[test]
fn a_server_whose_files_are_gone_acknowledges_nothing_and_is_not_ready() {
    type Away = fn(&Path, &Path);
    let removed: Away = |data, _| std::fs::remove_dir_all(data).unwrap();
    let renamed: Away = |data, other| std::fs::rename(data, other).unwrap();
    for away in [removed, renamed] {
        for asks_first in [true, false] {
            let place = Place::new();
            filled(&place, 3);
            let server = Served::start(&place, &[]);
            assert_eq!((ready(&server).0, post(&server)), (200, 201));
            away(&place.path("data"), &place.path("other"));
            if asks_first {
                let (status, body) = ready(&server);
                assert_eq!(status, 503, "{body}");
                assert!(body.contains("removed, renamed"), "{body}");
            }
            for _ in 0..2 {
                assert!(post(&server) >= 500);
            }
            assert_eq!(ready(&server).0, 503);
            server.stop();
        }
    }
}

#[test]
fn a_closed_store_that_lost_its_end_is_damaged() {
    let place = Place::new();
    filled(&place, 20);
    assert!(place.ok("verify").ends_with("no damage found\n"));
    let segment = place.path("data/log/00000000000000000001.seg");
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..1_200]).unwrap();
    for _ in 0..2 {
        let found = place.annals("verify");
        assert_eq!(found.code, 6);
        assert!(found.out.contains("are lost") && found.out.contains("durable up to"), "{}", found.out);
    }
    for command in ["append s-1 --type t --data 1", "read s-1", "export", "head"] {
        let output = place.fails(6, command);
        assert!(output.contains("was durable up to position 20"), "{command}: {output}");
    }
    let repaired = place.annals("repair --to file:mended");
    assert!(repaired.code == 6 && repaired.out.contains("lost"), "{}", repaired.out);
    // The file that says so may be removed by who knows better.
    std::fs::remove_file(place.path("data/log/durable")).unwrap();
    place.ok("append s-1 --type t --data 1");
    assert!(place.ok("verify").ends_with("no damage found\n"));
}

/// A store with an event that was recorded so much later than now.
fn ahead(directory: &Path, by: Duration) {
    let clock = Arc::new(TestClock::at(SystemClock.now().plus(by)));
    let options = Options { clock, clock_ahead_max: Duration::MAX, ..Options::default() };
    let store = EngineStore::open(directory, options).unwrap();
    let event = NewEvent::new("t", "1").unwrap();
    let append = Append::to(StreamId::new("s-1").unwrap(), Expected::Any, [event]);
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(store.append(append)).unwrap();
}

#[test]
fn a_clock_that_is_behind_the_log_is_reported_by_every_command() {
    let place = Place::new();
    ahead(&place.path("data"), Duration::from_secs(1_500 * 24 * 60 * 60));
    for line in [
        "append s-1 --type t --data 2",
        "read s-1",
        "streams",
        "export",
        "head",
        "receipt s-1 1",
        "backup bk",
    ] {
        let answer = place.annals(line);
        assert_eq!(answer.code, 0, "{line}: {}", answer.err);
        assert!(answer.err.contains("days behind the newest event"), "{line}: {}", answer.err);
    }
    assert!(place.annals("backup --list bk").out.contains("the clock of this machine says"));
    let server = Served::start(&place, &[]);
    let metrics =
        ureq::get(format!("{}/metrics", server.url)).call().unwrap().body_mut().read_to_string().unwrap();
    let figure = metrics.lines().find_map(|line| line.strip_prefix("annals_clock_behind_seconds ")).unwrap();
    assert!(figure.parse::<f64>().unwrap() > 1_400.0 * 86_400.0, "{figure}");
    let log = server.stop();
    assert!(log.contains("clock of this machine is behind the log"), "{log}");
}

#[test]
fn a_last_use_that_was_in_the_future_for_a_week_is_corrected_with_a_notice() {
    let place = Place::new();
    place.ok("append s-1 --type t");
    let lock = place.read("data/LOCK");
    let future = |day: &str| format!("{:<40}{}", format!("2099-01-01T00:00:00Z{day}"), &lock[40..]);
    place.write("data/LOCK", future(""));
    place.ok("append s-1 --type t");
    let doubted = place.read("data/LOCK");
    assert!(doubted.starts_with("2099-01-01T00:00:00Z 20"), "{doubted}");
    place.write("data/LOCK", future(" 2026-01-01"));
    let answer = place.annals("append s-1 --type t");
    assert!(answer.err.contains("last in use at 2099-01-01T00:00:00Z"), "{}", answer.err);
    assert!(!place.read("data/LOCK").contains("2099"));
    place.ok("append s-1 --type t");
}

#[test]
fn a_clock_that_is_years_ahead_is_refused_until_somebody_is_sure() {
    let place = Place::new();
    // The machine's clock is right, and years ahead of a log that knows an earlier time.
    let clock = Arc::new(TestClock::at("2021-03-01T00:00:00Z".parse().unwrap()));
    let store = EngineStore::open(place.path("data"), Options { clock, ..Options::default() }).unwrap();
    let event = NewEvent::new("t", "1").unwrap();
    let append = Append::to(StreamId::new("s-1").unwrap(), Expected::Any, [event]);
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(store.append(append)).unwrap();
    drop(store);
    let output = place.fails(5, "append s-1 --type t --data 2");
    assert!(output.contains("ANNALS_CLOCK_AHEAD_MAX_DAYS"), "{output}");
    let sure = |days: &str| {
        let mut command = place.command(["append", "s-1", "--type", "t", "--data", "2"]);
        command.env("ANNALS_CLOCK_AHEAD_MAX_DAYS", days).output().unwrap()
    };
    assert!(!sure("many").status.success());
    assert!(sure("36500").status.success());
    place.ok("append s-1 --type t --data 3");
}

#[test]
fn a_store_on_a_read_only_medium_is_read_exported_and_backed_up() {
    let place = Place::new();
    filled(&place, 3);
    let log = place.ok("read s-1");
    let Some(unmount) = mounted_read_only(&place) else {
        eprintln!("skipped: this user may not mount");
        return;
    };
    assert_eq!(place.ok("read s-1 --store file:ro"), log);
    for command in ["streams", "export", "head", "receipt s-1 2", "verify --last"] {
        place.ok(&format!("{command} --store file:ro"));
    }
    assert!(place.annals("verify --store file:ro").out.ends_with("no damage found\n"));
    place.ok("backup bk --store file:ro");
    place.ok("restore bk --store file:restored");
    assert_eq!(place.ok("read s-1 --store file:restored"), log);
    let output = place.fails(7, "append s-1 --type t --data 1 --store file:ro");
    assert!(output.contains("cannot open file:ro"), "{output}");
    // Several may read it at once; beside one who writes, nobody does.
    let server = Served::start(&place, &[]);
    assert!(place.fails(5, "read s-1 --store file:ro").contains("open in another process"));
    server.stop();
    drop(unmount);
}

/// A store of somebody else, who lets others read it.
#[cfg(unix)]
#[test]
fn a_store_that_may_be_read_and_not_written_is_read_exported_and_backed_up() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let place = Place::new();
    filled(&place, 3);
    let log = place.ok("read s-1");
    let set = |name: &str, mode| {
        std::fs::set_permissions(place.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for directory in ["", "data", "data/log"] {
        set(directory, 0o755);
    }
    for file in std::fs::read_dir(place.path("data/log")).unwrap() {
        set(&format!("data/log/{}", file.unwrap().file_name().display()), 0o644);
    }
    set("data/LOCK", 0o644);
    std::fs::create_dir(place.path("theirs")).unwrap();
    set("theirs", 0o777);
    let other = |line: &str| {
        let mut command = place.command(line.split(' '));
        command.uid(65_534).gid(65_534).output().map(crate::support::Answer::from)
    };
    if other("--version").map_or(true, |answer| answer.code != 0) {
        eprintln!("skipped: this user may not run the program as another one");
        return;
    }
    let lock = place.read("data/LOCK");
    for command in
        ["read s-1", "streams", "export -o theirs/x", "head", "receipt s-1 2", "verify", "backup theirs/bk"]
    {
        let answer = other(command).unwrap();
        assert_eq!(answer.code, 0, "{command}: {}", answer.err);
        assert!(command != "read s-1" || answer.out == log);
    }
    assert_eq!(place.read("data/LOCK"), lock);
    let refused = other("append s-1 --type t").unwrap();
    assert!(refused.code == 7 && refused.err.contains("Permission denied"), "{}", refused.err);
    // One that may not be looked at is not one that is not there.
    set("data", 0o700);
    let refused = other("read s-1").unwrap();
    assert_eq!(refused.err, "annals: cannot look at file:data: Permission denied (os error 13)\n");
}

/// Mounts the store `data` read-only at `ro`; `None` if this user may not.
fn mounted_read_only(place: &Place) -> Option<Unmount> {
    let medium = place.path("ro");
    std::fs::create_dir(&medium).unwrap();
    let mount = |arguments: &[&str]| {
        let mounted = Command::new("mount").args(arguments).arg(&medium).output();
        mounted.is_ok_and(|mounted| mounted.status.success())
    };
    if !mount(&["--bind", place.path("data").to_str().unwrap()]) {
        return None;
    }
    let unmount = Unmount(medium.clone());
    assert!(mount(&["-o", "remount,ro,bind"]));
    Some(unmount)
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_log_that_lost_its_end_is_read_from_a_read_only_medium_with_a_notice() {
    let place = Place::new();
    filled(&place, 3);
    let log = place.ok("read --all --json");
    let segment = place.path("data/log/00000000000000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    // The mark of the close, and a part of the last frame.
    bytes.truncate(bytes.iter().rposition(|&byte| byte != 0).unwrap() - 40);
    std::fs::write(&segment, bytes).unwrap();
    assert!(place.fails(6, "read --all").contains("annals repair"));
    let Some(_unmount) = mounted_read_only(&place) else {
        eprintln!("skipped: this user may not mount");
        return;
    };
    for command in ["read --all --json", "streams", "export", "head", "backup bk"] {
        let read = place.annals(&format!("{command} --store file:ro"));
        assert_eq!(read.code, 0, "{command}: {}", read.err);
        assert!(read.err.contains("the end of the log is not as it was recorded"), "{command}: {}", read.err);
        assert!(!command.starts_with("read") || read.out.len() < log.len() && log.starts_with(&read.out));
    }
    place.ok("restore bk --store file:restored");
    assert_eq!(place.annals("verify --store file:ro").code, 6);
    assert_eq!(place.annals("repair --store file:ro --to file:repaired").code, 6);
    assert_eq!(place.ok("read --all --json --store file:restored").lines().count(), 2);
}

#[test]
fn a_restore_and_a_repair_that_were_killed_are_done_again() {
    let place = Place::new();
    filled(&place, 5);
    let log = place.ok("read s-1");
    place.ok("backup bk");
    for command in ["restore bk --store", "repair --to"] {
        let target = command.split(' ').next().unwrap();
        // What a run leaves that is killed in the middle.
        let unfinished = place.path(&format!("{target}.unfinished"));
        std::fs::create_dir_all(unfinished.join("log")).unwrap();
        for name in ["LOCK", "UNFINISHED", "repair.jsonl", "log/identity", "log/00000000000000000001.seg.tmp"]
        {
            std::fs::write(unfinished.join(name), "half").unwrap();
        }
        place.ok(&format!("{command} file:{target}"));
        assert!(!unfinished.exists() && !place.path(&format!("{target}/UNFINISHED")).exists());
        assert_eq!(place.ok(&format!("read s-1 --store file:{target}")), log);
        // What is done is not done again over it.
        assert!(place.fails(1, &format!("{command} file:{target}")).contains("exists already"));
    }
}

#[test]
fn a_restore_that_is_killed_at_any_time_can_be_repeated() {
    let place = Place::new();
    filled(&place, 5);
    place.ok("backup bk");
    let log = place.ok("read s-1");
    for micros in [0, 500, 2_000, 5_000, 10_000, 20_000, 40_000] {
        let target = format!("re{micros}");
        let mut child =
            place.command(["restore", "bk", "--store", &format!("file:{target}")]).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(micros));
        let _ = child.kill();
        child.wait().unwrap();
        if !place.path(&target).exists() {
            place.ok(&format!("restore bk --store file:{target}"));
        }
        assert_eq!(place.ok(&format!("read s-1 --store file:{target}")), log);
    }
}
