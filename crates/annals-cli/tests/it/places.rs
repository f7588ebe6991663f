//! Places that the user names, to write to: what is there already is kept as what it is.
#![cfg(unix)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::{Answer, Place};

fn with_event() -> Place {
    let place = Place::new();
    place.ok("append a-1 --type t");
    place
}

fn export(place: &Place, to: &str) -> Answer {
    let answer = place.annals(&format!("export -o {to}"));
    assert_eq!((answer.code, answer.out.as_str()), (0, ""), "{to}: {}", answer.err);
    answer
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn an_export_into_a_pipe_goes_through_the_pipe() {
    let place = with_event();
    assert!(Command::new("mkfifo").arg(place.path("pipe")).status().unwrap().success());
    let pipe = place.path("pipe");
    let reader = std::thread::spawn(move || fs::read_to_string(pipe).unwrap());
    export(&place, "pipe");
    assert!(reader.join().unwrap().contains("a-1"));
    assert!(fs::symlink_metadata(place.path("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn an_export_onto_a_link_replaces_what_the_link_names() {
    let place = with_event();
    fs::create_dir(place.path("elsewhere")).unwrap();
    for (link, target) in [("link", "target"), ("far", "elsewhere/target"), ("dangling", "elsewhere/new")] {
        if link != "dangling" {
            place.write(target, "old");
        }
        symlink(target, place.path(link)).unwrap();
        export(&place, link);
        assert!(fs::symlink_metadata(place.path(link)).unwrap().is_symlink(), "{link}");
        assert!(place.read(target).contains("a-1"), "{link}");
    }
    symlink("loop", place.path("loop")).unwrap();
    place.fails(1, "export -o loop");
}

#[test]
fn an_export_onto_a_device_writes_to_the_device() {
    let place = with_event();
    export(&place, "/dev/null");
    let null = fs::metadata("/dev/null").unwrap().file_type();
    assert!(null.is_char_device());
    for name in ["/dev/stdout", "/dev/fd/1", "-"] {
        let answer = place.annals(&format!("export -o {name}"));
        assert_eq!((answer.code, answer.out.lines().count()), (0, 1), "{name}: {}", answer.err);
    }
    // One that takes nothing is an export that failed.
    if Path::new("/dev/full").exists() {
        assert!(place.fails(1, "export -o /dev/full").contains("No space left"));
    }
    // Standard output that is a file is written to at its place, and not replaced.
    place.write("log", "before\n");
    let log = fs::File::options().append(true).open(place.path("log")).unwrap();
    let status = place.command(["export", "-o", "/dev/stdout"]).stdout(log).status().unwrap();
    assert!(status.success());
    assert_eq!(place.read("log").lines().count(), 2);
}

#[test]
fn an_export_keeps_the_mode_of_what_it_replaces_and_is_private_when_new() {
    let place = with_event();
    place.write("private", "old");
    fs::set_permissions(place.path("private"), Permissions::from_mode(0o600)).unwrap();
    place.write("shared", "old");
    fs::set_permissions(place.path("shared"), Permissions::from_mode(0o664)).unwrap();
    for (name, expected) in [("private", 0o600), ("shared", 0o664), ("new", 0o600)] {
        export(&place, name);
        assert_eq!(mode(&place.path(name)), expected, "{name}");
        assert!(place.read(name).contains("a-1"));
    }
}

#[test]
fn an_export_takes_no_file_that_is_not_its_own() {
    let place = with_event();
    place.write("k.jsonl.partial", "precious");
    place.write("victim", "precious");
    symlink("victim", place.path("q.jsonl.partial")).unwrap();
    export(&place, "k.jsonl");
    export(&place, "q.jsonl");
    assert_eq!((place.read("k.jsonl.partial"), place.read("victim")), ("precious".into(), "precious".into()));
    // One that fails leaves what was there, and nothing of its own.
    fs::create_dir(place.path("directory")).unwrap();
    assert_eq!(place.fails(1, "export -o directory"), "cannot write directory: it is a directory");
    place.fails(3, "export -o none/x.jsonl");
    assert_eq!(place.fails(1, "export -o new/"), "cannot write new/: it is the name of a directory");
    let left = fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with(".annals-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_file_that_cannot_be_replaced_is_refused_with_what_to_do_and_stays_as_it_is() {
    let place = with_event();
    fs::create_dir(place.path("closed")).unwrap();
    place.write("closed/old.jsonl", "old");
    fs::set_permissions(place.path("closed"), Permissions::from_mode(0o555)).unwrap();
    // Root writes to what is closed, unless it gives that right up.
    let binary = env!("CARGO_BIN_EXE_annals");
    let as_root = ["unshare", "--mount", "--fork", "setpriv", "--bounding-set=-dac_override"];
    let before = if rustix::process::geteuid().is_root() { &as_root[..] } else { &["env"] };
    let run = |command: &str| {
        let mut run = Command::new(before[0]);
        run.args(&before[1..]).args(["sh", "-c", command]);
        run.current_dir(place.path("")).env("ANNALS_STORE", "file:data").output()
    };
    let output = |command: &str| {
        let answer = Answer::from(run(command).unwrap());
        assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{command}: {}", answer.err);
        assert!(
            answer.err.contains("cannot be replaced") && answer.err.contains("-o - > FILE"),
            "{}",
            answer.err
        );
        answer.err
    };
    // Without a mount namespace of its own nothing of this can be seen, as in a chroot.
    let is_able = run("true").is_ok_and(|ran| ran.status.success());
    if is_able && run("touch closed/x").is_ok_and(|touched| touched.status.code() == Some(1)) {
        assert!(
            output(&format!("{binary} export -o closed/old.jsonl"))
                .contains("its directory does not allow it")
        );
        assert_eq!(place.read("closed/old.jsonl"), "old");
    } else {
        eprintln!("skipped: every directory can be written to here");
    }
    place.write("mounted.jsonl", "old");
    place.write("over.jsonl", "old");
    let mount = "mount --bind over.jsonl mounted.jsonl";
    if run(mount).is_ok_and(|mounted| mounted.status.success()) {
        assert!(
            output(&format!("{mount} && {binary} export -o mounted.jsonl"))
                .contains("it is a mount of its own")
        );
        assert_eq!((place.read("over.jsonl"), place.read("mounted.jsonl")), ("old".into(), "old".into()));
    } else {
        eprintln!("skipped: this user may not mount");
    }
    let left = fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with(".annals-")));
}

#[test]
fn two_exports_onto_one_name_do_not_mix() {
    let place = Place::new();
    let rows: String = (0..20_000).map(|row| format!("{{\"n\":{row}}}\n")).collect();
    place.write("rows.jsonl", rows);
    let (many, few) = ("import rows.jsonl --stream s --type t", "append s --type t --store file:other");
    place.ok(many);
    place.ok(few);
    for _ in 0..5 {
        let mut exports: Vec<_> = ["file:data", "file:other", "file:data"]
            .map(|store| place.command(["export", "-o", "whole.jsonl", "--store", store]).spawn().unwrap())
            .into();
        // Two processes never have one store open: one of the two may be refused.
        let done =
            exports.iter_mut().filter_map(|export| export.wait().unwrap().success().then_some(())).count();
        assert!(done >= 1);
        assert!(matches!(place.read("whole.jsonl").lines().count(), 1 | 20_000));
    }
}

#[test]
fn nothing_is_written_into_the_directory_of_a_store() {
    let place = with_event();
    place.ok("backup backups");
    place.ok("append b-1 --type t --store file:other");
    symlink("data", place.path("link")).unwrap();
    for line in [
        "export -o data/x.jsonl",
        "export -o data/log/00000000000000000001.seg",
        "export -o link/log/x",
        "export -o other/x.jsonl",
        "export -o data/../data/LOCK",
        "backup data",
        "backup data/backups",
        "backup link/backups",
        "restore backups --store file:data/restored",
        "restore backups --store file:link/log/restored",
        "repair --to file:data/mended",
        "bench --dir data --quick",
        "torture --dir data/torture --minutes 1",
    ] {
        let output = place.fails(1, line);
        assert!(output.contains("it is in the directory of a store, "), "{line}: {output}");
    }
    assert!(place.ok("verify").ends_with("no damage found\n"));
    let left: Vec<_> =
        fs::read_dir(place.path("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "LOCK" || name == "log"), "{left:?}");
}

#[test]
fn what_is_made_new_is_private() {
    let place = with_event();
    place.ok("backup backups");
    place.ok("restore backups --store file:restored");
    place.ok("repair --to file:mended");
    let mut looked_at = 0;
    for made in ["data", "backups", "restored", "mended"] {
        let mut waiting = vec![place.path(made)];
        while let Some(path) = waiting.pop() {
            let found = fs::metadata(&path).unwrap();
            let expected = if found.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(found.mode() & 0o777, expected, "{}", path.display());
            looked_at += 1;
            if found.is_dir() {
                waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    }
    assert!(looked_at > 12);
}
