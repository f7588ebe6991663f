//! The shop over HTTP.

use annals::{Annals, EventStoreExt, Query};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::system;

struct Client {
    router: Router,
    annals: Annals,
    session: Option<String>,
    key: Option<&'static str>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    #[track_caller]
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    #[track_caller]
    fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.expect(status);
        assert_eq!(problem["code"], code);
        assert_eq!(problem["status"], status);
        problem
    }
}

impl Client {
    async fn new() -> Self {
        let (annals, shop) = system::shop().await;
        let router = Router::new().nest("/shop", shop.router());
        Self { router, annals, session: None, key: None }
    }

    async fn send(&self, method: &str, path: &str, body: Body) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("/shop{path}"));
        if let Some(session) = &self.session {
            request = request.header("authorization", format!("Bearer {session}"));
        }
        if let Some(key) = self.key {
            request = request.header("idempotency-key", key);
        }
        let answer = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        Answer { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, Body::from(body.to_string())).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, Body::empty()).await
    }

    /// Registers and signs in. Returns the position of the login.
    async fn sign_in(&mut self, id: &str) -> u64 {
        let form = json!({"id": id, "name": "Kim", "email": format!("{id}@example.com"),
                          "address": "1 Main Street", "password": "correct horse"});
        self.post("/members", form).await.expect(201);
        let login = json!({"password": "correct horse"});
        let done = self.post(&format!("/members/{id}/login"), login).await.expect(200);
        self.session = Some(done["session"].as_str().unwrap().to_owned());
        done["position"].as_u64().unwrap()
    }

    async fn product(&self, name: &str, stock: u32) -> (String, u64) {
        let form = json!({"name": name, "price_cents": 1_250, "stock": stock});
        let done = self.post("/products", form).await.expect(201);
        (done["id"].as_str().unwrap().to_owned(), done["position"].as_u64().unwrap())
    }
}

fn order(product: &str, quantity: u32) -> Value {
    json!({
        "delivery": {"recipient": "Kim", "address": "1 Main Street"},
        "items": [{"product": product, "quantity": quantity}],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_orders_and_reads_what_was_ordered() {
    let mut client = Client::new().await;
    client.sign_in("kim").await;
    let (blue, position) = client.product("Blue", 5).await;
    let placed = client.post(&format!("/orders?at_least={position}"), order(&blue, 2)).await;
    let header = placed.headers["position"].to_str().unwrap().to_owned();
    let placed = placed.expect(201);
    assert_eq!(placed["witness"].as_str(), Some(&*header));
    let id = placed["id"].as_str().unwrap();

    let shown = client.get(&format!("/orders/{id}?at_least={header}")).await.expect(200);
    assert_eq!(shown["member"], json!({"id": "kim", "name": "Kim", "email": "kim@example.com"}));
    assert_eq!(shown["delivery"], json!({"recipient": "Kim", "address": "1 Main Street"}));
    let item = json!({"product": blue, "name": "Blue", "quantity": 2, "amount_cents": 2_500});
    assert_eq!(shown["items"], json!([item]));
    assert_eq!((&shown["amount_cents"], &shown["waiting"]), (&json!(2_500), &json!(0)));
    let of_kim = client.get(&format!("/orders?member=kim&at_least={header}")).await.expect(200);
    assert_eq!(of_kim, json!([shown]));
    assert_eq!(client.get("/orders?member=lee").await.expect(200), json!([]));

    client.annals.settle().await.unwrap();
    let product = client.get(&format!("/products/{blue}")).await.expect(200);
    assert_eq!((&product["stock"], &product["sold"]), (&json!(3), &json!(2)));
    let sales = client.get("/sales").await.expect(200);
    assert_eq!(sales, json!({"purchases": 1, "customers": 1, "pieces": 2, "revenue_cents": 2_500}));
    let best = client.get("/sales/customers").await.expect(200);
    assert_eq!(best, json!([{"customer": "kim", "purchases": 1, "pieces": 2, "money_cents": 2_500}]));
    assert_eq!(client.get("/sales/months").await.expect(200)[0]["purchases"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_errors_of_a_form_are_reported_at_once() {
    let client = Client::new().await;
    let form = json!({"id": "Kim Lee", "name": "", "email": "kim", "password": "short", "colour": "red"});
    let problem = client.post("/members", form).await.refused(400, "invalid");
    let fields: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["id", "name", "email", "password", "colour"]);
    assert!(!problem.to_string().contains("short\""), "a password is not repeated: {problem}");

    let problem = client.post("/products", json!({})).await.refused(400, "invalid");
    let errors = json!([
        {"field": "name", "problem": "is missing"},
        {"field": "price_cents", "problem": "is missing"},
    ]);
    assert_eq!(problem["errors"], errors);
    for body in ["{", "[]", "7", "\u{0}"] {
        client.send("POST", "/products", Body::from(body)).await.refused(400, "invalid");
    }
    client.send("DELETE", "/products", Body::empty()).await.refused(405, "method-not-allowed");
    client.get("/products?limit=many").await.refused(400, "invalid");
    client.get("/products?at_least=soon").await.refused(400, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_wrong_in_many_places_names_them_all() {
    let mut client = Client::new().await;
    let at = client.sign_in("kim").await;
    let same = "0193b1c2-7d3e-7f00-8a4b-5c6d7e8f9a0b";
    let form = json!({"delivery": {"recipient": ""}, "items": [
        {"product": "x", "quantity": 0}, {"quantity": 1.5}, 3,
    ]});
    let problem = client.post(&format!("/orders?at_least={at}"), form).await.refused(400, "invalid");
    let fields: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
    assert_eq!(
        fields,
        [
            "delivery.recipient",
            "delivery.address",
            "items[0].product",
            "items[0].quantity",
            "items[1].product",
            "items[1].quantity",
            "items[2]",
        ]
    );
    let mut twice = order(same, 1);
    twice["items"] = json!([{"product": same, "quantity": 1}, {"product": same, "quantity": 2}]);
    let problem = client.post("/orders", twice).await.refused(400, "invalid");
    assert_eq!(
        problem["errors"],
        json!([{"field": "items[1].product", "problem": "is in the order already"}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_domain_have_codes_of_their_own() {
    let mut client = Client::new().await;
    let missing = "0193b1c2-7d3e-7f00-8a4b-5c6d7e8f9a0b";
    client.post("/orders", order(missing, 1)).await.refused(401, "member-not-signed");
    client.session = Some("made up".into());
    client.post("/orders", order(missing, 1)).await.refused(401, "member-not-signed");
    client.session = None;

    let at = client.sign_in("kim").await;
    client.post(&format!("/orders?at_least={at}"), order(missing, 1)).await.refused(422, "product-not-found");
    let (blue, at) = client.product("Blue", 5).await;
    let too_many = client.post(&format!("/orders?at_least={at}"), order(&blue, 6)).await;
    too_many.refused(422, "order-inventory-exceed-limit");
    let path = format!("/products/{blue}/stock/decrease");
    client.post(&path, json!({"quantity": 6})).await.refused(422, "insufficient-inventory");
    client.post(&path, json!({"quantity": 5})).await.expect(200);
    client
        .post(&format!("/products/{missing}/name"), json!({"name": "x"}))
        .await
        .refused(404, "product-not-found");
    client.get(&format!("/orders/{missing}")).await.refused(404, "order-not-found");
    client.get("/members/nobody").await.refused(404, "not-exists-member");

    let again =
        |id: &str, mail: &str| json!({"id": id, "name": "Kim", "email": mail, "password": "correct horse"});
    client.post("/members", again("kim", "other@example.com")).await.refused(409, "duplicate-member-id");
    client.post("/members", again("lee", "KIM@example.com")).await.refused(409, "duplicate-member-email");
    let login = |password: &str| json!({"password": password});
    client.post("/members/kim/login", login("wrong horse")).await.refused(422, "not-match-password");
    client.post("/members/nobody/login", login("wrong horse")).await.refused(404, "not-exists-member");
}

/// With a key, the first result is kept, even if it was a refusal.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_with_a_key_is_answered_alike_when_the_request_comes_again() {
    let mut client = Client::new().await;
    let missing = "0193b1c2-7d3e-7f00-8a4b-5c6d7e8f9a0b";
    let at = client.sign_in("kim").await;
    let (blue, _) = client.product("Blue", 5).await;
    client.key = Some("request-1");
    let decrease = format!("/products/{blue}/stock/decrease");
    let first = client.post(&decrease, json!({"quantity": 6})).await.refused(422, "insufficient-inventory");
    let rename = format!("/products/{missing}/name");
    let unknown = client.post(&rename, json!({"name": "x"})).await.refused(404, "product-not-found");
    let order = order(missing, 1);
    let ordered = format!("/orders?at_least={at}");
    let not_ordered = client.post(&ordered, order.clone()).await.refused(422, "product-not-found");

    client.key = Some("request-2");
    client.post(&format!("/products/{blue}/stock/increase"), json!({"quantity": 9})).await.expect(200);
    client.key = Some("request-1");
    let again = client.post(&decrease, json!({"quantity": 6})).await;
    assert_eq!(again.refused(422, "insufficient-inventory"), first);
    assert_eq!(client.post(&rename, json!({"name": "x"})).await.refused(404, "product-not-found"), unknown);
    assert_eq!(client.post(&ordered, order).await.refused(422, "product-not-found"), not_ordered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_the_members_own_and_ends() {
    let mut client = Client::new().await;
    client.sign_in("lee").await;
    let of_lee = client.session.clone();
    client.sign_in("kim").await;
    client.post("/members/kim/name", json!({"name": "Kim Lee"})).await.expect(200);
    client.post("/members/kim/profile", json!({"profile": "likes CDs"})).await.expect(200);
    let done = client.post("/members/kim/email", json!({"email": "kim@new.example"})).await.expect(200);
    let shown = client.get(&format!("/members/kim?at_least={}", done["position"])).await.expect(200);
    assert_eq!((&shown["name"], &shown["email"]), (&json!("Kim Lee"), &json!("kim@new.example")));
    assert_eq!((&shown["profile"], &shown["signed_in"]), (&json!("likes CDs"), &json!(true)));

    let of_kim = std::mem::replace(&mut client.session, of_lee);
    client.post("/members/kim/name", json!({"name": "Lee"})).await.refused(401, "member-not-signed");
    client.session = of_kim;
    client.post("/members/kim/logout", json!({})).await.expect(200);
    client.post("/members/kim/logout", json!({})).await.refused(401, "member-not-signed");

    let login = client.post("/members/kim/login", json!({"password": "correct horse"})).await.expect(200);
    client.session = login["session"].as_str().map(str::to_owned);
    let wrong = json!({"present": "wrong horse", "new": "battery staple"});
    client.post("/members/kim/password", wrong).await.refused(422, "not-match-password");
    let right = json!({"present": "correct horse", "new": "battery staple"});
    client.post("/members/kim/password", right).await.expect(200);
    client.post("/members/kim/withdrawal", json!({})).await.refused(401, "member-not-signed");
    let login = client.post("/members/kim/login", json!({"password": "battery staple"})).await.expect(200);
    client.session = login["session"].as_str().map(str::to_owned);
    client.post("/members/kim/withdrawal", json!({})).await.expect(200);
    client
        .post("/members/kim/login", json!({"password": "battery staple"}))
        .await
        .refused(404, "not-exists-member");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_log() {
    let mut client = Client::new().await;
    client.sign_in("kim").await;
    let change = json!({"present": "correct horse", "new": "battery staple"});
    client.post("/members/kim/password", change).await.expect(200);
    let session = client.session.clone().unwrap();
    let events = client.annals.store().log_events(Query::all()).await.unwrap();
    assert!(events.len() >= 4);
    let mut hashes = Vec::new();
    for event in events {
        let whole = format!("{event:?} {}", String::from_utf8_lossy(event.data()));
        for secret in ["correct horse", "battery staple", session.as_str()] {
            assert!(!whole.contains(secret), "{whole}");
        }
        let data: Value = serde_json::from_slice(event.data()).unwrap();
        hashes.extend(data["password"].as_str().map(str::to_owned));
    }
    assert_eq!(hashes.len(), 2);
    assert!(hashes.iter().all(|hash| hash.starts_with("$argon2id$")));
    let list = client.get("/members").await.text;
    assert!(!list.contains("argon2") && list.contains("kim"), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_repeated_with_its_key_is_executed_once() {
    let mut client = Client::new().await;
    let at = client.sign_in("kim").await;
    client.key = Some("request-1");
    let form = json!({"name": "Blue", "price_cents": 1_250, "stock": 5});
    let first = client.post("/products", form.clone()).await.expect(201);
    let again = client.post("/products", form).await.expect(200);
    assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &json!(true)));
    let blue = first["id"].as_str().unwrap();
    let at = at.max(first["position"].as_u64().unwrap());
    let path = format!("/orders?at_least={at}");
    let first = client.post(&path, order(blue, 5)).await.expect(201);
    client.annals.settle().await.unwrap();
    // By now none are left, but the response is still the first one.
    let again = client.post(&path, order(blue, 5)).await.expect(200);
    assert_eq!((&again["id"], &again["position"]), (&first["id"], &first["position"]));
    client.key = Some("");
    client.post("/products", json!({})).await.refused(400, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_shop_and_nothing_breaks_out_of_it() {
    let mut client = Client::new().await;
    let empty = client.get("").await;
    assert_eq!(empty.status, 200);
    assert!(empty.text.contains("Nothing yet"));
    client.sign_in("kim").await;
    let (evil, position) = client.product("<script>alert(1)</script>", 5).await;
    let placed = client.post(&format!("/orders?at_least={position}"), order(&evil, 2)).await.expect(201);
    let page = client.get(&format!("?at_least={}", placed["position"])).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("25.00") && page.text.contains(&evil), "{}", page.text);
    assert!(!page.text.contains("<script"), "{}", page.text);
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    let style = client.get("/shop.css").await;
    assert!(style.headers["content-type"].to_str().unwrap().starts_with("text/css"));
    assert!(page.text.contains("href=\"/shop/shop.css\""));
}
