//! The process ends at every step between writing and being marked, and at any moment under load: nothing is
//! lost, and state and messages agree.
//!
//! A second process is started for it: this test binary, with one test that does as its environment says.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use annals_outbox::{Message, Options, Sink, SinkError};
use async_trait::async_trait;

use crate::support::{Place, about, options, until};

/// The environment variables of the process that dies. Only it has these.
const URL: &str = "ANNALS_TEST_URL";
const NAME: &str = "ANNALS_TEST_NAME";
const STEP: &str = "ANNALS_TEST_STEP";
const FILE: &str = "ANNALS_TEST_FILE";

/// Where a process dies: the last thing that it did.
const STEPS: [&str; 8] =
    ["state changed", "message written", "committed", "chosen", "published", "refused", "dead", "marked"];

/// A lease that a test can wait for.
fn short() -> Options {
    Options { timeout: Duration::from_millis(400), lease: Duration::from_millis(800), ..options() }
}

/// A sink that is a file: a line for each message. What is written to a file survives the process.
struct File {
    path: PathBuf,
    dies: Option<&'static str>,
}

impl File {
    fn write(&self, message: &Message) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path).unwrap();
        let line = format!("{} {} {}\n", message.aggregate_id, message.sequence, message.event_type);
        file.write_all(line.as_bytes()).unwrap();
    }

    /// What was published: order, sequence, type.
    fn lines(path: &Path) -> Vec<(String, u64, String)> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let words = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        words.map(|words| (words[0].to_owned(), words[1].parse().unwrap(), words[2].to_owned())).collect()
    }
}

#[async_trait]
impl Sink for File {
    async fn publish(&self, message: &Message) -> Result<(), SinkError> {
        if self.dies == Some("chosen") {
            std::process::abort();
        }
        if matches!(self.dies, Some("refused" | "dead")) {
            return Err(SinkError::refused("it is not liked"));
        }
        self.write(message);
        if self.dies == Some("published") {
            std::process::abort();
        }
        Ok(())
    }
}

/// A process for this place.
fn start(place: &Place, step: &str, file: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kill::child", "--ignored", "--nocapture"]);
    command.env(URL, &place.url).env(NAME, &place.name).env(STEP, step).env(FILE, file);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "ends its process; the tests above start it"]
async fn child() {
    let Ok(step) = std::env::var(STEP) else { return };
    let variable = |name| std::env::var(name).unwrap();
    let place = Place::at(&variable(URL), &variable(NAME)).await;
    let path = PathBuf::from(variable(FILE));
    match STEPS.into_iter().find(|known| *known == step) {
        Some(step) => die_at(&place, step, path).await,
        None => work(Arc::new(place), path).await,
    }
}

/// Changes the state, writes a message, publishes it, and ends after this step.
async fn die_at(place: &Place, step: &'static str, path: PathBuf) {
    let order = step.replace(' ', "-");
    let mut transaction = place.begin().await;
    transaction.run(&format!("INSERT INTO {}_orders VALUES ('{order}')", place.name)).await;
    let die = |here: &str| {
        if here == step {
            std::process::abort()
        }
    };
    die("state changed");
    transaction.write(&place.outbox, &about(&order, "order.placed")).await.unwrap();
    die("message written");
    transaction.commit().await;
    die("committed");
    let attempts_max = if step == "dead" { 1 } else { 10 };
    let slow = annals_core::Backoff::new(Duration::from_millis(500), Duration::from_millis(500));
    let options = Options { attempts_max, backoff: slow, ..short() };
    let publisher =
        place.outbox.publisher(File { path, dies: Some(step) }).options(options).start().await.unwrap();
    until("it comes so far", async || {
        let status = place.outbox.status().await.unwrap();
        match step {
            "refused" => status.failing.len() == 1,
            "dead" => status.dead_letters == 1,
            _ => status.pending == 0,
        }
    })
    .await;
    drop(publisher);
    std::process::abort();
}

/// Whatever the last step before a death was, what was committed is published, and what was not is not.
pub async fn nothing_is_lost_at_any_step(place: Place) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("published");
    for step in STEPS {
        let died = start(&place, step, &file).wait_with_output().unwrap();
        assert!(!died.status.success(), "it was to die: {step}");
        let order = step.replace(' ', "-");
        let commits = i64::from(!matches!(step, "state changed" | "message written"));
        let count = async |sql: &str| place.number(&format!("{sql} = '{order}'")).await;
        assert_eq!(count("SELECT COUNT(*) FROM outbox_orders WHERE id").await, commits, "state, {step}");
        assert_eq!(count("SELECT COUNT(*) FROM outbox WHERE aggregate_id").await, commits, "message, {step}");
        let before = File::lines(&file).iter().filter(|line| line.0 == order).count();
        assert_eq!(before, usize::from(matches!(step, "published" | "marked")), "{step}");

        for letter in place.outbox.dead_letters(9).await.unwrap() {
            place.outbox.retry(letter.message.id).await.unwrap();
        }
        // The next publisher begins when the lease of the one that died has run out. What is written now
        // comes last.
        let sink = File { path: file.clone(), dies: None };
        let publisher = place.outbox.publisher(sink).options(short()).start().await.unwrap();
        place.write(&order, "order.looked_for").await;
        until("all is published", async || place.outbox.status().await.unwrap().pending == 0).await;
        publisher.stop().await;
        let lines = File::lines(&file);
        let types: Vec<_> = lines.iter().filter(|line| line.0 == order).map(|line| line.2.as_str()).collect();
        let expected: &[&str] = match (step, commits) {
            (_, 0) => &["order.looked_for"],
            // It was not marked: it comes again, before what follows it.
            ("published", _) => &["order.placed", "order.placed", "order.looked_for"],
            _ => &["order.placed", "order.looked_for"],
        };
        assert_eq!(types, expected, "{step}");
    }
}

/// Writes orders from several tasks, reports each that is committed, and publishes all the time, until it is
/// killed.
async fn work(place: Arc<Place>, path: PathBuf) {
    let publisher = place.outbox.publisher(File { path, dies: None }).options(short()).start().await.unwrap();
    let waker = publisher.waker();
    for _ in 0..4 {
        let (place, waker) = (place.clone(), waker.clone());
        tokio::spawn(async move {
            loop {
                let id = annals_core::EventId::generate();
                let order = format!("{}", id.as_bytes()[15] % 5);
                let mut transaction = place.begin().await;
                transaction.run(&format!("INSERT INTO {}_orders VALUES ('{id}')", place.name)).await;
                transaction.write(&place.outbox, &about(&order, &id.to_string())).await.unwrap();
                transaction.commit().await;
                waker.wake();
                println!("committed {id}");
            }
        });
    }
    std::future::pending::<()>().await;
}

/// A process that writes and publishes is killed, again and again.
pub async fn nothing_is_lost_under_load(place: Place) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("published");
    let mut acknowledged = HashSet::new();
    for lines in [1, 40, 75, 130] {
        let mut child = start(&place, "work", &file);
        let output = BufReader::new(child.stdout.take().unwrap());
        let ids = output.lines().map_while(Result::ok);
        let mut ids = ids.filter_map(|line| line.rsplit_once("committed ").map(|(_, id)| id.to_owned()));
        acknowledged.extend(ids.by_ref().take(lines));
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(ids);
    }
    let publisher = place
        .outbox
        .publisher(File { path: file.clone(), dies: None })
        .options(short())
        .start()
        .await
        .unwrap();
    until("all is published", async || place.outbox.status().await.unwrap().pending == 0).await;
    publisher.stop().await;

    let lines = File::lines(&file);
    let mut newest: HashMap<&str, u64> = HashMap::new();
    for (order, sequence, _) in &lines {
        let newest = newest.entry(order).or_default();
        assert!(*sequence <= *newest + 1, "message {} of order {order} is skipped", *newest + 1);
        *newest = (*newest).max(*sequence);
    }
    let published: HashSet<&str> = lines.iter().map(|line| line.2.as_str()).collect();
    for id in &acknowledged {
        assert!(published.contains(id.as_str()), "{id} is lost");
        assert_eq!(
            place.number(&format!("SELECT COUNT(*) FROM outbox_orders WHERE id = '{id}'")).await,
            1,
            "{id}"
        );
    }
    let (state, messages) = (
        place.number("SELECT COUNT(*) FROM outbox_orders").await,
        place.number("SELECT COUNT(*) FROM outbox").await,
    );
    assert_eq!(
        (state, messages),
        (i64::try_from(published.len()).unwrap(), state),
        "state and messages agree"
    );
    println!(
        "{} acknowledged, {state} committed, {} published, {} again",
        acknowledged.len(),
        lines.len(),
        lines.len() - published.len()
    );
}
