//! What the directory of the tenants keeps: it is append only.

use annals::Tenants;

use annals_testservers::place::Place;

annals_testservers::on_each_database! {
    no_password_comes_into_the_directory,
    whatever_may_be_a_password_is_refused,
}

async fn no_password_comes_into_the_directory(place: Place) {
    let directory = place.another().await;
    let tenants = Tenants::open(&directory.url).await.unwrap();
    let mark = if place.url.contains('?') { '&' } else { '?' };
    let url = format!("{}{mark}password=hunter2", place.url);
    let added = tenants.add("acme", &url).await.map_err(|error| error.chain());
    let kept = tenants.place("acme").await.unwrap();
    assert!(added.is_err() && kept.is_none(), "{added:?}; the directory keeps {kept:?}");
}

async fn whatever_may_be_a_password_is_refused(place: Place) {
    let directory = place.another().await;
    let tenants = Tenants::open(&directory.url).await.unwrap();
    let other = place.another().await;
    tenants.add("there", &other.url).await.unwrap();
    let mark = if place.url.contains('?') { '&' } else { '?' };
    let with = |parameter: &str| format!("{}{mark}{parameter}", place.url);
    let (scheme, rest) = place.url.split_once("://").unwrap();
    let (user, host) = rest.split_once('@').unwrap();
    for url in [
        with("PASSWORD=hunter2"),
        with("pass%77ord=hunter2"),
        with("sslpassword=hunter2"),
        with("passfile=/home/kim/hunter2"),
        with("options=-c%20shop.key=hunter2"),
        with("replica=kim:hunter2@two"),
        with("replica=postgres://kim:hunter2@two/shop"),
        format!("{scheme}://{user}:hunter2@{host}"),
        format!("{scheme}://{user}%3Ahunter2@{host}"),
        format!("{scheme}://{user}:hun/ter2@{host}"),
        format!("{scheme}:{user}:hunter2@{host}"),
    ] {
        for answer in [tenants.add("acme", &url).await, tenants.move_to("there", &url, |_| {}).await] {
            let refused = answer.unwrap_err().chain();
            assert!(!refused.contains("hunter2") && refused.contains("password"), "{url}: {refused}");
        }
    }
    let log = annals::open_store(&directory.url.parse().unwrap()).await.unwrap();
    let events = annals::EventStoreExt::log_events(&*log, annals::Query::all()).await.unwrap();
    assert!(events.iter().all(|event| !format!("{event:?}").contains("hunter2")), "{events:?}");
}
