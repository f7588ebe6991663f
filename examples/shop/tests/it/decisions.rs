//! The decisions of the aggregates: given these events, when this command, then those events.

use std::collections::BTreeMap;

use annals::testing::given;
use annals_shop::member::{
    AddressEvent, ChangeName, ChangePassword, Claim, LogIn, LogOut, MailAddress, Member, MemberEvent,
    MemberRefused, Release, Withdraw,
};
use annals_shop::order::{
    Known, NoteBackorder, NoteFilled, Offer, Order, OrderEvent, OrderRefused, PlaceOrder,
};
use annals_shop::product::{
    ChangePrice, CreateProduct, DecreaseStock, IncreaseStock, Product, ProductEvent, ProductRefused,
    RenameProduct, Sell,
};
use annals_shop::session::Token;
use annals_shop::values::Cents;

use crate::values::*;

fn created() -> ProductEvent {
    ProductEvent::Created { name: name("Blue"), price: Cents(1_499) }
}

fn stocked(pieces: u32) -> ProductEvent {
    ProductEvent::StockIncreased { quantity: quantity(pieces) }
}

fn sold(key: &str, pieces: u32) -> ProductEvent {
    ProductEvent::Sold { order: order(key), quantity: quantity(pieces) }
}

fn backordered(key: &str, pieces: u32) -> ProductEvent {
    ProductEvent::Backordered { order: order(key), quantity: quantity(pieces) }
}

fn sell(key: &str, pieces: u32) -> Sell {
    Sell { order: order(key), quantity: quantity(pieces) }
}

#[test]
fn a_product_is_created_once_with_its_stock() {
    let create = |stock| CreateProduct { name: name("Blue"), price: Cents(1_499), stock };
    given::<Product>([]).when(create(Some(quantity(3)))).then([created(), stocked(3)]);
    given::<Product>([]).when(create(None)).then([created()]);
    given::<Product>([created()]).when(create(None)).then_rejected(ProductRefused::ProductExists);
}

#[test]
fn nothing_is_done_to_a_product_that_does_not_exist() {
    let missing = || given::<Product>([]);
    missing().when(RenameProduct(name("Red"))).then_rejected(ProductRefused::ProductNotFound);
    missing().when(ChangePrice(Cents(1))).then_rejected(ProductRefused::ProductNotFound);
    missing().when(IncreaseStock(quantity(1))).then_rejected(ProductRefused::ProductNotFound);
    missing().when(DecreaseStock(quantity(1))).then_rejected(ProductRefused::ProductNotFound);
    missing().when(sell("a", 1)).then_rejected(ProductRefused::ProductNotFound);
}

#[test]
fn a_change_to_what_is_already_so_is_no_event() {
    given::<Product>([created()]).when(RenameProduct(name("Blue"))).then_nothing();
    given::<Product>([created()]).when(ChangePrice(Cents(1_499))).then_nothing();
    let red = given::<Product>([created()])
        .when(RenameProduct(name("Red")))
        .then([ProductEvent::Renamed { name: name("Red") }]);
    assert_eq!(red.offer, Some((name("Red"), Cents(1_499))));
    given::<Product>([created()])
        .when(ChangePrice(Cents(999)))
        .then([ProductEvent::Repriced { price: Cents(999) }]);
}

#[test]
fn stock_does_not_fall_below_zero() {
    let two_left = || given::<Product>([created(), stocked(3), sold("a", 1)]);
    let none = two_left()
        .when(DecreaseStock(quantity(2)))
        .then([ProductEvent::StockDecreased { quantity: quantity(2) }]);
    assert_eq!(none.stock, 0);
    two_left()
        .when(DecreaseStock(quantity(3)))
        .then_rejected(ProductRefused::InsufficientInventory { left: 2 });
}

#[test]
fn an_order_for_more_than_the_stock_waits_and_is_not_overtaken() {
    let product = given::<Product>([created(), stocked(3)]).when(sell("a", 2)).then([sold("a", 2)]);
    assert_eq!(product.stock, 1);
    let waiting = [created(), stocked(3), backordered("big", 5)];
    given::<Product>([created(), stocked(3)]).when(sell("big", 5)).then([backordered("big", 5)]);
    given::<Product>(waiting).when(sell("small", 1)).then([backordered("small", 1)]);
}

#[test]
fn what_comes_in_goes_to_those_who_wait_in_their_order_as_far_as_it_reaches() {
    let filled =
        |key, pieces| ProductEvent::BackorderFilled { order: order(key), quantity: quantity(pieces) };
    let waiting = || {
        given::<Product>([
            created(),
            stocked(1),
            backordered("a", 2),
            backordered("b", 3),
            backordered("c", 1),
        ])
    };
    let product = waiting().when(IncreaseStock(quantity(2))).then([stocked(2), filled("a", 2)]);
    assert_eq!((product.stock, product.waiting.len()), (1, 2));
    let product = waiting().when(IncreaseStock(quantity(9))).then([
        stocked(9),
        filled("a", 2),
        filled("b", 3),
        filled("c", 1),
    ]);
    assert_eq!((product.stock, product.waiting.len()), (4, 0));
}

fn place(lines: Vec<(&str, u32)>, stock: &[(&str, u64)], is_member: bool) -> PlaceOrder {
    let offer =
        |&(key, stock): &(&str, u64)| (product(key), Offer { name: name(key), price: Cents(1_000), stock });
    let offers: BTreeMap<_, _> = stock.iter().map(offer).collect();
    let lines = lines.into_iter().map(|(key, pieces)| line(&product(key), pieces)).collect();
    let known = Known { member: is_member, offers };
    PlaceOrder { member: member("kim"), delivery: delivery(), lines, known }
}

fn placed(items: &[(&str, u32, u64)]) -> OrderEvent {
    let items = items.iter().map(|&(key, pieces, cents)| item(&product(key), key, pieces, cents)).collect();
    OrderEvent::Placed { member: member("kim"), delivery: delivery(), items }
}

#[test]
fn an_order_keeps_names_and_prices_as_they_were() {
    let order = given::<Order>([])
        .when(place(vec![("blue", 2), ("red", 1)], &[("blue", 2), ("red", 5)], true))
        .then([placed(&[("blue", 2, 2_000), ("red", 1, 1_000)])]);
    assert_eq!(order.items.len(), 2);
    let mut agreed = place(vec![("blue", 2)], &[("blue", 2)], true);
    agreed.lines[0].agreed = Some(Cents(1_777));
    given::<Order>([]).when(agreed).then([placed(&[("blue", 2, 1_777)])]);
}

#[test]
fn an_order_is_refused_by_what_the_order_service_knows() {
    let refused = |command, refusal| given::<Order>([]).when(command).then_rejected(refusal);
    refused(place(vec![("blue", 1)], &[("blue", 1)], false), OrderRefused::NotExistsMember);
    refused(
        place(vec![("blue", 1), ("red", 1)], &[("blue", 1)], true),
        OrderRefused::ProductNotFound(product("red")),
    );
    refused(
        place(vec![("blue", 3)], &[("blue", 2)], true),
        OrderRefused::OrderInventoryExceedLimit { product: product("blue"), left: 2 },
    );
    refused(
        place(vec![("blue", 1), ("blue", 1)], &[("blue", 5)], true),
        OrderRefused::ProductTwice(product("blue")),
    );
    given::<Order>([placed(&[("blue", 1, 1_000)])])
        .when(place(vec![("blue", 1)], &[("blue", 1)], true))
        .then_rejected(OrderRefused::OrderExists);
}

#[test]
fn an_order_notes_what_waits_once() {
    let note = || NoteBackorder(product("blue"));
    let waits = OrderEvent::Backordered { product: product("blue") };
    let filled = OrderEvent::BackorderFilled { product: product("blue") };
    let placed = || placed(&[("blue", 1, 1_000)]);
    given::<Order>([placed()]).when(note()).then([waits.clone()]);
    given::<Order>([placed(), waits.clone()]).when(note()).then_nothing();
    let order = given::<Order>([placed(), waits]).when(NoteFilled(product("blue"))).then([filled]);
    assert!(order.waiting.is_empty());
    given::<Order>([placed()]).when(NoteFilled(product("blue"))).then_nothing();
    given::<Order>([placed()]).when(NoteBackorder(product("red"))).then_rejected(OrderRefused::OrderNotFound);
}

fn registered() -> MemberEvent {
    MemberEvent::Registered {
        name: name("Kim"),
        email: email("kim@example.com"),
        address: None,
        password: None,
    }
}

#[test]
fn a_member_registers_once_and_an_id_is_never_given_again() {
    let register = || registration("kim", "kim@example.com");
    given::<Member>([]).when(register()).then([registered()]);
    given::<Member>([registered()]).when(register()).then_rejected(MemberRefused::DuplicateMemberId);
    given::<Member>([registered(), MemberEvent::Withdrawn])
        .when(register())
        .then_rejected(MemberRefused::DuplicateMemberId);
}

#[test]
fn a_non_member_is_refused() {
    for past in [vec![], vec![registered(), MemberEvent::Withdrawn]] {
        let past = || past.clone();
        given::<Member>(past()).when(Withdraw).then_rejected(MemberRefused::NotExistsMember);
        given::<Member>(past()).when(ChangeName(name("Lee"))).then_rejected(MemberRefused::NotExistsMember);
        let session = Token::generate().digest();
        given::<Member>(past()).when(LogOut { session }).then_rejected(MemberRefused::NotExistsMember);
    }
}

#[tokio::test]
async fn a_proof_for_a_password_that_was_changed_meanwhile_is_worth_nothing() {
    let (old, new) = (password("first password").hash().await, password("second password").hash().await);
    let proof = password("first password").matches(old.clone()).await.unwrap();
    assert!(password("second password").matches(old.clone()).await.is_none());
    let registered = MemberEvent::Registered {
        name: name("Kim"),
        email: email("kim@example.com"),
        address: None,
        password: Some(old),
    };
    let changed = MemberEvent::PasswordChanged { password: new.clone() };
    let session = Token::generate().digest();
    let log_in = || LogIn { matched: proof.clone(), session: session.clone() };
    let logged_in = || MemberEvent::LoggedIn { session: session.clone() };

    given::<Member>([registered.clone()]).when(log_in()).then([logged_in()]);
    given::<Member>([registered.clone(), changed.clone()])
        .when(log_in())
        .then_rejected(MemberRefused::NotMatchPassword);
    let change = ChangePassword { matched: proof.clone(), new: new.clone() };
    let member =
        given::<Member>([registered.clone(), logged_in()]).when(change.clone()).then([changed.clone()]);
    assert_eq!(member.account().unwrap().session, None, "another password ends the session");
    given::<Member>([registered.clone(), changed])
        .when(change)
        .then_rejected(MemberRefused::NotMatchPassword);

    let log_out = LogOut { session: session.clone() };
    given::<Member>([registered.clone(), logged_in()]).when(log_out.clone()).then([MemberEvent::LoggedOut]);
    given::<Member>([registered]).when(log_out).then_rejected(MemberRefused::MemberNotSigned);
}

#[test]
fn an_address_belongs_to_one_member_at_a_time() {
    let claimed = |id| AddressEvent::Claimed { member: member(id) };
    given::<MailAddress>([]).when(Claim(member("kim"))).then([claimed("kim")]);
    given::<MailAddress>([claimed("kim")]).when(Claim(member("kim"))).then_nothing();
    given::<MailAddress>([claimed("kim")])
        .when(Claim(member("lee")))
        .then_rejected(MemberRefused::DuplicateMemberEmail);
    given::<MailAddress>([claimed("kim")]).when(Release(member("lee"))).then_nothing();
    given::<MailAddress>([claimed("kim"), AddressEvent::Released])
        .when(Claim(member("lee")))
        .then([claimed("lee")]);
}
