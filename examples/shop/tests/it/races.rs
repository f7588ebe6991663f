//! Many concurrent commands, from two systems on one store, so that only the store isolates them.

use std::sync::Arc;

use annals::{ExecuteError, MemoryStore, Seen};
use annals_shop::http::{Caller, Done};
use annals_shop::member::{ChangeEmail, Member, MemberRefused};
use annals_shop::product::{DecreaseStock, IncreaseStock, ProductRefused};
use tokio::task::JoinSet;

use crate::system::{self, AtOnce, count, create, product_state, register};
use crate::values::*;

type Registered = Result<Done, ExecuteError<MemberRefused>>;

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_is_right_when_many_change_it_at_once() {
    let store = Arc::new(MemoryStore::new());
    let (annals, one) = system::on(store.clone()).await;
    let (_other, two) = system::on(store).await;
    let blue = create(&one, "blue", 1_000).await;
    let mut tasks = JoinSet::new();
    for number in 0..100_u32 {
        let shop = if number.is_multiple_of(2) { one.clone() } else { two.clone() };
        let blue = blue.clone();
        tasks.spawn(async move {
            let caller = Caller::default();
            let by = quantity(number % 7 + 1);
            // The caller retries if a retry may succeed.
            loop {
                let done = if number.is_multiple_of(3) {
                    shop.products.give(&blue, IncreaseStock(by), &caller).await
                } else {
                    shop.products.give(&blue, DecreaseStock(by), &caller).await
                };
                match done {
                    Err(ExecuteError::Conflict { .. }) => {}
                    done => return done.map(drop),
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    let change = |number: u32| {
        let by = i64::from(number % 7 + 1);
        if number.is_multiple_of(3) { by } else { -by }
    };
    let expected = 1_000 + (0..100).map(change).sum::<i64>();
    assert_eq!(i64::try_from(product_state(&annals, &blue).await.stock).unwrap(), expected);
    annals.settle().await.unwrap();
    let rows = annals
        .view::<annals_shop::product::Products>()
        .query("SELECT stock FROM products", (), |row| row.get::<i64>(0))
        .await
        .unwrap();
    assert_eq!(rows, [expected]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_register_with_one_address_at_once_one_wins() {
    let store = Arc::new(MemoryStore::new());
    let (annals, one) = system::on(store.clone()).await;
    let (_other, two) = system::on(store).await;
    let mut tasks: JoinSet<Registered> = JoinSet::new();
    for number in 0..40_u32 {
        let shop = if number.is_multiple_of(2) { one.clone() } else { two.clone() };
        tasks.spawn(async move {
            let mail = if number.is_multiple_of(3) { "kim@example.com" } else { "Kim@Example.Com" };
            shop.members.register(&registration(&format!("kim{number}"), mail), &Caller::default()).await
        });
    }
    let mut winners = Vec::new();
    while let Some(registered) = tasks.join_next().await {
        match registered.unwrap() {
            Ok(done) => winners.push(done.id),
            Err(error) => {
                assert_eq!(error.rejection(), Some(&MemberRefused::DuplicateMemberEmail), "{error}")
            }
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(count(&annals, "member.registered").await, 1);
    let winner = annals.repository::<Member>().load(&winners[0]).await.unwrap();
    assert!(winner.state.account().is_ok());
}

#[tokio::test]
async fn of_two_that_both_saw_a_free_address_one_wins() {
    let (annals, shop) = system::on(Arc::new(AtOnce::new(Arc::new(MemoryStore::new())))).await;
    let (kim, lee) = (registration("kim", "one@example.com"), registration("lee", "one@example.com"));
    let caller = Caller::default();
    let (kim, lee) = tokio::join!(shop.members.register(&kim, &caller), shop.members.register(&lee, &caller));
    let (won, lost) = if kim.is_ok() { (kim, lee) } else { (lee, kim) };
    assert_eq!(won.unwrap().version, 1);
    assert_eq!(lost.unwrap_err().rejection(), Some(&MemberRefused::DuplicateMemberEmail));
    assert_eq!(count(&annals, "email.claimed").await, 1);
    assert_eq!(count(&annals, "member.registered").await, 1);
}

#[tokio::test]
async fn of_two_changes_of_the_last_one_in_stock_none_is_lost() {
    let shared: Arc<dyn annals::EventStore> = Arc::new(MemoryStore::new());
    let (_before, shop) = system::on(shared.clone()).await;
    let blue = create(&shop, "blue", 1).await;
    // Two systems, because in one system the second command would wait for the first.
    let at_once: Arc<dyn annals::EventStore> = Arc::new(AtOnce::new(shared));
    let (annals, one) = system::on(at_once.clone()).await;
    let (_other, two) = system::on(at_once).await;
    let (caller, take) = (Caller::default(), DecreaseStock(quantity(1)));
    let (one, two) =
        tokio::join!(one.products.give(&blue, take, &caller), two.products.give(&blue, take, &caller));
    let (won, lost) = if one.is_ok() { (one, two) } else { (two, one) };
    won.unwrap();
    assert_eq!(lost.unwrap_err().rejection(), Some(&ProductRefused::InsufficientInventory { left: 0 }));
    assert_eq!(product_state(&annals, &blue).await.stock, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_want_one_id_at_once_one_wins() {
    let (annals, shop) = system::shop().await;
    let mut tasks: JoinSet<Registered> = JoinSet::new();
    for number in 0..20 {
        let shop = shop.clone();
        tasks.spawn(async move {
            let command = registration("kim", &format!("kim{number}@example.com"));
            shop.members.register(&command, &Caller::default()).await
        });
    }
    let mut won = 0;
    while let Some(registered) = tasks.join_next().await {
        match registered.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error.rejection(), Some(&MemberRefused::DuplicateMemberId), "{error}"),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(count(&annals, "email.claimed").await, 1, "the losers have not taken their addresses");
}

#[tokio::test]
async fn a_released_address_is_free_again() {
    let (_annals, shop) = system::shop().await;
    let caller = Caller::default();
    register(&shop, "kim").await;
    register(&shop, "lee").await;
    let taken =
        shop.members.change_email(&member("lee"), &ChangeEmail(email("KIM@example.com")), &caller).await;
    assert_eq!(taken.unwrap_err().rejection(), Some(&MemberRefused::DuplicateMemberEmail));

    let change = |mail| ChangeEmail(email(mail));
    shop.members.change_email(&member("kim"), &change("kim@elsewhere.example"), &caller).await.unwrap();
    shop.members.change_email(&member("lee"), &change("kim@example.com"), &caller).await.unwrap();
    // Another spelling is still the member's own address.
    shop.members.change_email(&member("lee"), &change("Kim@example.com"), &caller).await.unwrap();
    shop.members.withdraw(&member("lee"), &caller).await.unwrap();
    let registered = shop.members.register(&registration("mo", "kim@example.com"), &caller).await;
    assert_eq!(registered.unwrap().version, 1);
    let again = shop.members.withdraw(&member("lee"), &caller).await;
    assert_eq!(again.unwrap_err().rejection(), Some(&MemberRefused::NotExistsMember));
}

#[tokio::test]
async fn a_registration_that_is_sent_again_is_answered_as_the_first_time() {
    let (annals, shop) = system::shop().await;
    let caller = Caller::once("request-1");
    let command = registration("kim", "kim@example.com");
    let first = shop.members.register(&command, &caller).await.unwrap();
    let again = shop.members.register(&command, &caller).await.unwrap();
    assert!(!first.duplicate && again.duplicate);
    assert_eq!((first.version, first.position), (again.version, again.position));
    assert_eq!(count(&annals, "member.registered").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_two_processes_hear_of_is_sold_once() {
    let store = Arc::new(MemoryStore::new());
    let (annals, one) = system::on(store.clone()).await;
    let (other, two) = system::on(store).await;
    let blue = create(&one, "blue", 1_000).await;
    let known = register(&one, "kim").await;
    for number in 0..40_u32 {
        let shop = if number.is_multiple_of(2) { &one } else { &two };
        let caller = Caller::once(format!("order {number}"));
        shop.orders.place(member("kim"), form(vec![line(&blue, 3)]), known, &caller).await.unwrap();
    }
    annals.settle().await.unwrap();
    other.settle().await.unwrap();
    assert_eq!(product_state(&annals, &blue).await.stock, 1_000 - 40 * 3);
    assert_eq!(count(&annals, "product.sold").await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_sent_many_times_at_once_is_placed_once() {
    let (annals, shop) = system::shop().await;
    let blue = create(&shop, "blue", 10).await;
    let known = register(&shop, "kim").await;
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let (shop, form) = (shop.clone(), form(vec![line(&blue, 2)]));
        tasks.spawn(async move {
            shop.orders.place(member("kim"), form, known, &Caller::once("request-1")).await
        });
    }
    let mut new = 0;
    let mut positions = std::collections::BTreeSet::<Seen>::new();
    while let Some(placed) = tasks.join_next().await {
        let placed = placed.unwrap().unwrap();
        new += u32::from(!placed.duplicate);
        positions.insert(placed.at());
    }
    assert_eq!((new, positions.len()), (1, 1));
    annals.settle().await.unwrap();
    assert_eq!(product_state(&annals, &blue).await.stock, 8);
}
