//! Passwords of addresses are in no message, whatever is wrong with the command line.

use crate::support::{Answer, Place, signalled};

/// Addresses with a mistake in them.
const ADDRESSES: [&str; 9] = [
    "postgress://kim:s3cret@127.0.0.1:1/shop",
    "POSTGRES://kim:s3cret@127.0.0.1:1/shop",
    "jdbc:postgresql://kim:s3cret@127.0.0.1:1/shop",
    "postgres://kim:s3cret?x@127.0.0.1:1/shop",
    "postgres:kim:s3cret@127.0.0.1:1/shop",
    "postgres://kim:a@127.0.0.1:1/shop?replica=postgres://kim:s3cret@127.0.0.1:1/shop",
    "postgres://127.0.0.1:1/shop?user=kim&PASSWORD=s3cret",
    "mysql://kim:s3cret@127.0.0.1:1/shop",
    "s3://key:s3cret@bucket/x",
];

fn shows(answer: &Answer) -> bool {
    answer.out.contains("s3cret") || answer.err.contains("s3cret")
}

#[test]
fn a_password_in_an_address_is_not_printed_however_it_is_wrong() {
    let place = Place::new();
    for address in ADDRESSES {
        // In its place, in the place of another argument, and as one too many.
        for line in [
            "read --all --store ADDRESS",
            "read --all --store=ADDRESS",
            "streams ADDRESS",
            "ADDRESS",
            "read a --from ADDRESS",
            "append a --type t --expect ADDRESS",
            "append a --type t --sotre=ADDRESS",
            "backup ADDRESS",
            "backup b --store ADDRESS",
            "restore ADDRESS --store file:x",
            "restore b --store ADDRESS",
            "repair --to ADDRESS",
            "head --store ADDRESS",
            "receipt a 1 --store ADDRESS",
            "migrate --store ADDRESS",
            "outbox status ADDRESS",
            "outbox drop ADDRESS x",
            "demo --once --store ADDRESS",
            "import none.csv --store ADDRESS",
        ] {
            let line = line.replace("ADDRESS", address);
            let answer = place.annals(&line);
            assert_ne!(answer.code, 0, "{line}");
            assert!(!shows(&answer), "{line}: {} {}", answer.out, answer.err);
            assert_eq!(answer.err.lines().count(), 1, "{line}: {}", answer.err);
        }
    }
}

#[test]
fn a_password_in_the_environment_is_not_printed_not_even_by_help() {
    let place = Place::new();
    for address in ADDRESSES {
        for line in
            ["read --all", "read --help", "demo --help", "backup b", "receipt --help", "backup -h", "migrate"]
        {
            let mut command = place.command(line.split_whitespace());
            let answer: Answer = command.env("ANNALS_STORE", address).output().unwrap().into();
            assert!(!shows(&answer), "{line} with {address}: {} {}", answer.out, answer.err);
        }
    }
}

#[test]
fn object_storage_without_its_slashes_is_not_taken_for_a_directory() {
    let place = Place::new();
    let answer = place.annals("backup s3:key:s3cret@bucket/x --store file:data");
    assert!(answer.code != 0 && answer.err.contains("without `//`") && !shows(&answer), "{}", answer.err);
}

/// The place for backups is a file, so none can be made, and its name is in the error.
#[test]
fn a_backup_that_fails_on_request_shows_no_password() {
    let place = Place::new();
    let destination = "./a:kim:s3cret@db";
    std::fs::write(place.path(destination), "no directory").unwrap();
    let log = place.path("server.log");
    let errors = std::fs::File::create(&log).unwrap();
    let mut command = place.command(["serve", "--listen", "127.0.0.1:0", "--backup", destination]);
    let mut server = command.env("RUST_LOG", "trace").stderr(errors).spawn().unwrap();
    let mut output = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.take().unwrap()), &mut output)
        .unwrap();
    let url = format!("http://{}", output.trim_end().rsplit_once("http://").unwrap().1);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.post(format!("{url}/v1/backup")).send("").unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    // The log is written by a thread of its own, which ends when all of it is there.
    signalled(&server, "-TERM");
    server.wait().unwrap();
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(answer.status() == 503 && text.contains("backup-failed"), "{text}");
    assert!(text.contains("***") && log.contains("there is no new backup"), "{text} {log}");
    assert!(!text.contains("s3cret") && !log.contains("s3cret"), "{text} {log}");
}
