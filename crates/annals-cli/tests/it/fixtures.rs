//! What released versions have written is verified, exported, imported and restored. Where one of these
//! fails, the files of users are about to break: `fixtures/README.md` says what to do.
//!
//! `write` writes the backups and the proofs.

mod write;

use std::path::Path;

use annals_testservers::kind::Kind;
use annals_testservers::{dump, fixtures};

use crate::support::Place;

/// Compares an export with what is written down beside a fixture: the same events, of the same appends.
/// Fields may be new.
#[track_caller]
fn is_the_log(export: &str, folder: &Path) {
    let then = std::fs::read_to_string(folder.join("log.jsonl")).unwrap();
    for (line, now) in then.lines().zip(export.lines()) {
        let [then, now] = [line, now].map(|line| annals_json::parse_export_line(line.as_bytes()));
        assert_eq!(then, now, "{}", fixtures::lost(line, folder));
    }
    assert_eq!(
        export.lines().count(),
        then.lines().count(),
        "{}",
        fixtures::lost("the end of the log", folder)
    );
}

#[test]
fn the_data_of_a_release_is_verified_and_exported() {
    for folder in fixtures::of_releases("embedded") {
        let place = Place::new();
        fixtures::copy(&folder.join("data"), &place.path("data"));
        let output = place.annals("verify");
        assert!(
            output.code == 0 && output.out.ends_with("no damage found\n"),
            "{}: {}",
            fixtures::lost("the log", &folder),
            output.err
        );
        is_the_log(&place.ok("export"), &folder);
        assert_eq!(place.ok("migrate"), "file:data is up to date\n", "no index is of an earlier version");
    }
}

#[test]
fn the_export_of_a_release_is_imported() {
    for folder in ["embedded", "postgres", "mariadb", "mysql"].into_iter().flat_map(fixtures::of_releases) {
        let place = Place::new();
        std::fs::copy(folder.join("log.jsonl"), place.path("log.jsonl")).unwrap();
        let output = place.annals("import log.jsonl");
        assert_eq!(output.code, 0, "{}: {}", fixtures::lost("an export", &folder), output.err);
        is_the_log(&place.ok("export"), &folder);
        assert!(place.ok("verify").ends_with("no damage found\n"));
    }
}

#[test]
fn a_backup_of_a_release_is_listed_verified_and_restored() {
    for folder in fixtures::of_releases("backup") {
        let place = Place::new();
        fixtures::copy(&folder, &place.path("backups"));
        let lost = fixtures::lost("a backup", &folder);
        let listed = place.annals("backup --list backups --verify");
        assert!(listed.code == 0 && listed.out.contains("is as it was written"), "{}: {lost}", listed.err);
        let restored = place.annals("restore backups --store file:data");
        assert_eq!(restored.code, 0, "{}: {lost}", restored.err);
        assert!(place.ok("verify").ends_with("no damage found\n"), "{lost}");
        is_the_log(&place.ok("export"), &folder.parent().unwrap().join("embedded"));
        // Up to a position too.
        let restored = place.annals("restore backups --store file:part --to 25");
        assert_eq!(restored.code, 0, "{}: {lost}", restored.err);
        assert_eq!(place.ok("export --store file:part").lines().count(), 25);
    }
}

#[test]
fn what_a_release_published_about_its_log_is_proved() {
    for folder in fixtures::of_releases("proof") {
        let place = Place::new();
        fixtures::copy(&folder, &place.path("proof"));
        fixtures::copy(&folder.parent().unwrap().join("embedded/data"), &place.path("data"));
        let lost = fixtures::lost("a published head or a receipt", &folder);
        for head in ["head", "early"] {
            let output = place.annals(&format!("verify --head proof/{head}.json"));
            assert!(
                output.code == 0 && output.out.contains("as it was when the head was published"),
                "{}: {lost}",
                output.err
            );
        }
        let proved = place.annals("receipt --check proof/receipt.json --head proof/head.json");
        let expected = "proved: account-müller version 3, account.deposited at position 4";
        assert!(proved.code == 0 && proved.out.starts_with(expected), "{}{}: {lost}", proved.out, proved.err);
        // Today's receipts fit the head of then.
        place.write("receipt.json", place.ok("receipt account-müller 3"));
        let proved = place.annals("receipt --check receipt.json --head proof/head.json");
        assert!(proved.code == 0 && proved.out.starts_with(expected), "{}{}: {lost}", proved.out, proved.err);
    }
}

/// Verifies what releases have left in databases of this kind.
fn a_dump_is_verified_and_exported(kind: Kind, releases: &str) {
    for folder in fixtures::of_releases(releases) {
        let (place, server) = (Place::new(), kind.start_quick(&[]));
        dump::load(&server.url(), &std::fs::read_to_string(folder.join("dump.sql")).unwrap());
        let url = match kind.is_postgres() {
            true => format!("{}?schema=annals_fixture", server.url()),
            false => format!("{}_fixture", server.url()),
        };
        let output = place.annals(&format!("verify --store {url}"));
        assert_eq!(output.code, 0, "{}: {}", fixtures::lost("the log", &folder), output.err);
        is_the_log(&place.ok(&format!("export --store {url}")), &folder);
    }
}

#[test]
fn a_log_in_postgres_of_a_release_is_verified_and_exported() {
    a_dump_is_verified_and_exported(Kind::Postgres, "postgres");
}

#[test]
fn a_log_in_mariadb_of_a_release_is_verified_and_exported() {
    a_dump_is_verified_and_exported(Kind::MariaDb, "mariadb");
}
