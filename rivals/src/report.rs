//! Figures of a run as people and machines read them. Ratios are of rounds that were measured side by side;
//! more is better in all of them.

use std::fmt::Write as _;
use std::time::Duration;

use annals_bench::{Figures, Ratio};

use crate::peers::Peer;
use crate::targets::{Better, Target, WORKLOADS, Workload, workload};

/// Whose figure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A store.
    Store(Peer),
    /// The bare disk.
    Device,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Store(peer) => peer.name(),
            Self::Device => "device",
        }
    }
}

/// What one round came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// The figure, in the workload's unit.
    pub value: f64,
    /// Half of the requests were answered within this.
    pub p50: Option<Duration>,
    /// All but one in a hundred were.
    pub p99: Option<Duration>,
}

impl Round {
    /// A figure without latencies.
    pub fn of(value: f64) -> Self {
        Self { value, p50: None, p99: None }
    }

    /// This rate, with the latencies of the requests.
    pub fn rate(value: f64, figures: &Figures) -> Self {
        Self { value, p50: Some(figures.latency(0.5)), p99: Some(figures.latency(0.99)) }
    }

    fn tail(&self) -> Option<f64> {
        self.p99.map(|p99| p99.as_secs_f64())
    }
}

struct Row {
    workload: &'static str,
    group: usize,
    who: Who,
    rounds: Vec<Round>,
}

impl Row {
    fn values(&self) -> impl Iterator<Item = f64> {
        self.rounds.iter().map(|round| round.value)
    }

    fn latency(&self, pick: fn(&Round) -> Option<Duration>) -> String {
        let mut times: Vec<_> = self.rounds.iter().filter_map(pick).collect();
        times.sort_unstable();
        times.get(times.len() / 2).map_or_else(String::new, |time| format!("{:.3}", time.as_secs_f64() * 1e3))
    }
}

/// The figures of a run.
#[derive(Default)]
pub struct Report {
    /// Who is measured side by side at the moment: rounds are paired within a group.
    pub group: usize,
    rows: Vec<Row>,
    /// Costs in the large store over those in the small one.
    flats: Vec<(&'static str, Peer, Ratio)>,
    notes: Vec<(&'static str, String)>,
}

impl Report {
    /// Takes in a round.
    pub fn add(&mut self, workload: &'static str, who: Who, round: Round) {
        let group = self.group;
        let same = |row: &&mut Row| (row.workload, row.group, row.who) == (workload, group, who);
        match self.rows.iter_mut().find(same) {
            Some(row) => row.rounds.push(round),
            None => self.rows.push(Row { workload, group, who, rounds: vec![round] }),
        }
    }

    /// Takes in rates in a small and in a large store, measured side by side.
    pub fn add_flat(&mut self, workload: &'static str, peer: Peer, rates: &[(f64, f64)]) {
        self.flats.extend(Ratio::of(rates.iter().copied()).map(|ratio| (workload, peer, ratio)));
    }

    /// Takes in something to be said under the workload's table.
    pub fn note(&mut self, workload: &'static str, note: String) {
        self.notes.push((workload, note));
    }

    fn row(&self, workload: &str, who: Who) -> Option<&Row> {
        self.rows.iter().find(|row| row.workload == workload && row.who == who)
    }

    /// Annals over another, round by round; more is better.
    pub fn ratio(&self, workload: &Workload, who: Who) -> Option<Ratio> {
        let theirs = self.row(workload.name, who)?;
        let is_ours = |row: &&Row| row.who == Who::Store(Peer::Annals) && row.group == theirs.group;
        let ours = self.rows.iter().filter(|row| row.workload == workload.name).find(is_ours)?;
        let pairs = ours.values().zip(theirs.values());
        Ratio::of(pairs.map(|(ours, theirs)| match workload.better {
            Better::More => (ours, theirs),
            Better::Less => (theirs, ours),
        }))
    }

    fn flat(&self, workload: &str, peer: Peer) -> Option<Ratio> {
        self.flats.iter().find(|flat| flat.0 == workload && flat.1 == peer).map(|flat| flat.2)
    }

    /// What was reached of a target, and whether that is enough; `None` if it was not measured.
    pub fn reached(&self, workload: &Workload, target: Target) -> Option<(f64, bool)> {
        Some(match target {
            Target::Peer(peer, times) => {
                let ratio = self.ratio(workload, Who::Store(peer))?.median;
                (ratio, ratio >= times)
            }
            Target::Device(share) => {
                let ratio = self.ratio(workload, Who::Device)?.median;
                (ratio, ratio >= share)
            }
            Target::Flat(times) => {
                let ratio = self.flat(workload.name, Peer::Annals)?.median;
                (ratio, ratio <= times)
            }
            Target::Tail(peer) => {
                let tail = |row: &Row| Ratio::spread(row.rounds.iter().filter_map(Round::tail));
                let theirs = self.row(workload.name, Who::Store(peer))?;
                let ours = self.row(workload.name, Who::Store(Peer::Annals))?;
                let ratio = tail(theirs)?.median / tail(ours)?.median;
                (ratio, ratio >= 1.0)
            }
            Target::AtMost(most) => {
                let value =
                    Ratio::spread(self.row(workload.name, Who::Store(Peer::Annals))?.values())?.median;
                (value, value <= most)
            }
        })
    }

    /// The table of one workload.
    pub fn table(&self, name: &str) -> String {
        let workload = workload(name);
        let mut table = format!("\n{name}: {}\n", workload.what);
        let better = match workload.better {
            Better::More => "annals/it (spread)",
            Better::Less => "it/annals (spread)",
        };
        let unit = workload.unit;
        let _ = writeln!(table, "  {:<9} {unit:>12} {:>9} {:>9}  {better}", "", "p50 ms", "p99 ms");
        let mut rows: Vec<_> = self.rows.iter().filter(|row| row.workload == name).collect();
        rows.sort_by_key(|row| (row.group, row.who));
        for row in rows {
            let median = Ratio::spread(row.values()).map_or(0.0, |spread| spread.median);
            let ratio = match row.who {
                Who::Store(Peer::Annals) => None,
                who => self.ratio(workload, who),
            };
            let ratio = ratio.map_or_else(String::new, |ratio| ratio.to_string());
            let (p50, p99) = (row.latency(|round| round.p50), row.latency(|round| round.p99));
            let line = format!("  {:<9} {:>12} {p50:>9} {p99:>9}  {ratio}", row.who.name(), figure(median));
            let _ = writeln!(table, "{}", line.trim_end());
        }
        for (_, peer, ratio) in self.flats.iter().filter(|flat| flat.0 == name) {
            let _ = writeln!(table, "  {peer:<9} cost in the large store over the small one: {ratio}");
        }
        for (_, note) in self.notes.iter().filter(|note| note.0 == name) {
            let _ = writeln!(table, "  {note}");
        }
        table
    }

    /// The table of targets, for these workloads.
    pub fn targets(&self, workloads: &[&Workload], busy: bool) -> String {
        let mut table = format!("\n  {:<20} {:<26} {:>9}\n", "workload", "target", "reached");
        for workload in workloads {
            for target in workload.targets_when(busy) {
                let wanted = match target {
                    Target::Peer(peer, times) => format!("at least {times:.2} x {peer}"),
                    Target::Device(share) => format!("at least {share:.2} x bare device"),
                    Target::Flat(times) => format!("large/small at most {times:.2}"),
                    Target::Tail(peer) => format!("p99 not above {peer}"),
                    Target::AtMost(most) => format!("at most {most} {}", workload.unit),
                };
                let (reached, verdict) = match self.reached(workload, target) {
                    Some((value, enough)) => (format!("{value:.2}"), if enough { "yes" } else { "no" }),
                    None => ("-".into(), "not measured"),
                };
                let _ = writeln!(table, "  {:<20} {wanted:<26} {reached:>9}  {verdict}", workload.name);
            }
        }
        table
    }

    /// The lines for machines.
    pub fn lines(&self) -> String {
        let mut lines = String::new();
        let mut rows: Vec<_> = self.rows.iter().collect();
        let place = |row: &Row| WORKLOADS.iter().position(|workload| workload.name == row.workload);
        rows.sort_by_key(|row| (place(row), row.who));
        for row in rows {
            let ratio = self.ratio(workload(row.workload), row.who);
            let value = ratio.map_or_else(|| "unmeasured".into(), |ratio| format!("{:.3}", ratio.median));
            let _ = match row.who {
                Who::Store(Peer::Annals) => Ok(()),
                Who::Store(peer) => writeln!(lines, "ratio {} {peer} {value}", row.workload),
                Who::Device => writeln!(lines, "limit {} {value}", row.workload),
            };
        }
        for (name, _, ratio) in self.flats.iter().filter(|flat| flat.1 == Peer::Annals) {
            let _ = writeln!(lines, "flat {name} {:.3}", ratio.median);
        }
        lines
    }
}

/// A figure with about four digits, thousands apart.
pub fn figure(value: f64) -> String {
    if value < 1_000.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEPHRA: Who = Who::Store(Peer::Tephra);
    const ANNALS: Who = Who::Store(Peer::Annals);

    fn report(name: &'static str, rounds: &[(f64, f64, f64)]) -> Report {
        let mut report = Report::default();
        for &(ours, theirs, device) in rounds {
            report.add(name, ANNALS, Round::of(ours));
            report.add(name, TEPHRA, Round::of(theirs));
            report.add(name, Who::Device, Round::of(device));
        }
        report
    }

    #[test]
    fn rounds_are_paired_before_they_are_compared() {
        let report = report("append-1x1", &[(10.0, 5.0, 10.0), (100.0, 100.0, 125.0), (30.0, 10.0, 60.0)]);
        let ratio = report.ratio(workload("append-1x1"), TEPHRA).unwrap();
        assert_eq!(ratio, Ratio { least: 1.0, median: 2.0, most: 3.0 });
        assert_eq!(report.lines(), "ratio append-1x1 tephra 2.000\nlimit append-1x1 0.800\n");
    }

    #[test]
    fn rounds_are_paired_within_their_group() {
        let mut report = report("bulk", &[(20.0, 10.0, 40.0)]);
        report.group = 1;
        report.add("bulk", ANNALS, Round::of(30.0));
        report.add("bulk", Who::Store(Peer::Sqlite), Round::of(10.0));
        assert_eq!(report.ratio(workload("bulk"), TEPHRA).unwrap().median, 2.0);
        assert_eq!(report.ratio(workload("bulk"), Who::Store(Peer::Sqlite)).unwrap().median, 3.0);
    }

    #[test]
    fn a_smaller_size_is_a_larger_ratio() {
        let report = report("size", &[(100.0, 300.0, 1.0)]);
        assert_eq!(report.ratio(workload("size"), TEPHRA).unwrap().median, 3.0);
    }

    #[test]
    fn a_target_says_what_was_reached() {
        let mut report = report("append-1x1", &[(90.0, 100.0, 100.0)]);
        let append = workload("append-1x1");
        assert_eq!(report.reached(append, Target::Peer(Peer::Tephra, 1.0)), Some((0.9, false)));
        assert_eq!(report.reached(append, Target::Device(0.87)), Some((0.9, true)));
        assert_eq!(report.reached(append, Target::Peer(Peer::Umadb, 1.0)), None);
        assert_eq!(report.reached(append, Target::AtMost(90.0)), Some((90.0, true)));
        report.add_flat("refuse", Peer::Annals, &[(20.0, 10.0)]);
        assert_eq!(report.reached(workload("refuse"), Target::Flat(1.5)), Some((2.0, false)));
        assert!(report.lines().ends_with("flat refuse 2.000\n"));
        assert!(
            report.targets(&[append], false).contains("not measured")
                || report.targets(&[append], false).contains("no")
        );
    }

    #[test]
    fn figures_are_read_by_people() {
        assert_eq!(figure(12.34), "12.3");
        assert_eq!(figure(1_234.5), "1,234");
        assert_eq!(figure(1_234_567.0), "1,234,567");
    }
}
