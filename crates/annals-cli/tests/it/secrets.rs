//! Passwords of addresses are in no message, whatever is wrong with the command line.

use crate::support::{Answer, Place};

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
