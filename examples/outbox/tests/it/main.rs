//! The service crashes between any two steps, and is started again: the order exists and its message is
//! published once, or neither exists.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use annals::{EventStoreExt as _, Query};
use annals_testservers::server;
use serde_json::{Value, json};

/// A running service.
struct Service {
    child: Child,
    address: String,
}

impl Service {
    /// Starts it on this database and the log in this directory; with `dies`, it aborts at that step.
    fn start(database: &str, directory: &Path, dies: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_annals-orders"));
        command.arg(database).arg(log(directory)).arg("127.0.0.1:0").stdout(Stdio::piped());
        if let Some(step) = dies {
            command.env("ORDERS_DIE_AT", step);
        }
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut address = String::new();
        output.read_line(&mut address).unwrap();
        // The rest of its output is read, so that it never blocks on a full pipe.
        std::thread::spawn(move || output.lines().count());
        Self { child, address: address.trim().to_owned() }
    }

    /// The status of the response; `None` if the service has crashed.
    fn post(&self, path: &str, body: &Value) -> Option<u16> {
        let body = body.to_string();
        let request =
            ureq::post(format!("{}{path}", self.address)).header("Content-Type", "application/json");
        let request = request.config().http_status_as_error(false).build();
        request.send(body).ok().map(|response| response.status().as_u16())
    }

    fn get(&self, path: &str) -> Option<Value> {
        let answer = ureq::get(format!("{}{path}", self.address)).call();
        answer
            .ok()
            .map(|mut answer| serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap())
    }

    /// Waits until it has ended by itself.
    fn dies(mut self, step: &str) {
        assert!(!self.child.wait().unwrap().success(), "it was to die: {step}");
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success(), "it ends in order");
    }
}

fn log(directory: &Path) -> String {
    format!("file:{}", directory.join("log").display())
}

/// The types of an order's events in the log, which no process may have open.
async fn delivered(directory: &Path, order: &str) -> Vec<String> {
    let log = annals::open_store(&log(directory).parse().unwrap()).await.unwrap();
    let events = log.log_events(Query::all()).await.unwrap();
    let of_order = events.iter().filter(|event| event.stream() == format!("order-{order}"));
    of_order.map(|event| event.event_type().to_owned()).collect()
}

async fn nothing_is_lost_between_any_two_steps(database: &str) {
    let directory = tempfile::tempdir().unwrap();
    for step in ["before-write", "after-write", "after-commit", "after-publish", "after-mark"] {
        let order = json!({"id": step, "customer": "kim", "cents": 1250});
        let service = Service::start(database, directory.path(), Some(step));
        // The response may arrive before the crash or not at all.
        service.post("/orders", &order);
        service.dies(step);
        let committed = !matches!(step, "before-write" | "after-write");
        let expected: &[&str] =
            if matches!(step, "after-publish" | "after-mark") { &["order.placed"] } else { &[] };
        assert_eq!(delivered(directory.path(), step).await, expected, "{step}");

        let service = Service::start(database, directory.path(), None);
        assert_eq!(service.get(&format!("/orders/{step}")).is_some(), committed, "{step}");
        // A client without a response retries the request.
        let again = service.post("/orders", &order);
        assert_eq!(again, Some(if committed { 409 } else { 204 }), "{step}");
        assert_eq!(service.post(&format!("/orders/{step}/pay"), &json!({})), Some(204));
        assert_eq!(service.post(&format!("/orders/{step}/cancel"), &json!({})), Some(409));
        assert_eq!(service.get(&format!("/orders/{step}")).unwrap()["state"], "paid");
        while service.get("/outbox").unwrap()["pending"] != 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        service.stop();
        assert_eq!(delivered(directory.path(), step).await, ["order.placed", "order.paid"], "{step}");
    }
}

#[tokio::test]
async fn nothing_is_lost_between_any_two_steps_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}?mode=rwc", directory.path().join("orders.db").display());
    nothing_is_lost_between_any_two_steps(&database).await;
}

#[tokio::test]
async fn nothing_is_lost_between_any_two_steps_on_postgres() {
    nothing_is_lost_between_any_two_steps(&server::newest_postgres(&["fsync=off"]).url()).await;
}

#[tokio::test]
async fn nothing_is_lost_between_any_two_steps_on_mariadb() {
    nothing_is_lost_between_any_two_steps(&server::mariadb(&[]).url()).await;
}
