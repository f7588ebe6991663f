//! `cargo xtask sim`: the simulation of the engine on a faulty disk, for a given time. It is described in
//! `docs/proof.md`.

use crate::run::{self, Outcome};

/// Runs it with these arguments: `--hours N`, which may be a fraction, and `--seed S`, the first seed.
pub fn run(arguments: &[String]) -> Outcome {
    let (seconds, seed) = asked(arguments)?;
    println!("sim: {seconds} s from seed {seed} on; --seed {seed} does the same again");
    let mut test = run::cargo("test");
    test.args(["--release", "--locked", "-p", "annals-engine", "--test", "it", "--"]);
    test.args(["sim::as_long_as_asked", "--exact", "--ignored", "--nocapture"]);
    test.env("ANNALS_SIM_SECONDS", seconds.to_string()).env("ANNALS_SIM_SEED", seed.to_string());
    run::succeed(&mut test)
}

/// The seconds and the first seed of the arguments; without a seed, the current time.
fn asked(arguments: &[String]) -> Result<(u64, u64), String> {
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    let (mut seconds, mut seed) = (None, now);
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err(format!("`{}` needs a value", pair[0])) };
        let wrong = || format!("`{name} {value}` is not `--hours N` or `--seed S`");
        match name.as_str() {
            "--hours" => {
                let hours = value.parse::<f64>().ok().filter(|hours| *hours > 0.0 && *hours < 10_000.0);
                seconds = Some((hours.ok_or_else(wrong)? * 3_600.0).ceil() as u64);
            }
            "--seed" => seed = value.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        }
    }
    Ok((seconds.ok_or("for how long? `--hours N`")?, seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_and_seed_are_read() {
        let asked = |text: &str| asked(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(asked("--hours 2 --seed 7"), Ok((7_200, 7)));
        assert_eq!(asked("--seed 7 --hours 0.01"), Ok((36, 7)));
        for wrong in ["--seed 7", "--hours", "--hours -1", "--hours x", "--hours 1 --seed", "--days 1"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
