//! `/streams`: the names of streams, searched by prefix or by category.

use std::sync::Arc;

use annals_core::{Category, EventStore, Position, Result, StreamId, StreamInfo, StreamList};
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use maud::html;

use super::{Answer, Frame, answer, number, page};
use crate::access::Access;
use crate::app::App;
use crate::links::{self, encode};
use crate::params::Params;

/// The number of streams on a page.
const PAGE_STREAMS: usize = 50;

/// A page of streams.
pub(crate) async fn streams(
    State(app): State<Arc<App>>,
    access: Access,
    RawQuery(query): RawQuery,
) -> Answer {
    answer(app, access, async |app: &App, access: &Access| {
        let mut params = Params::without_empty(query.as_deref());
        let prefix = params.text("prefix")?.unwrap_or_default();
        let category = params.one::<Category>("category")?;
        let after = params.one::<StreamId>("after")?;
        params.finish()?;
        if let Some(category) = &category {
            access.rights.read_category("category", category)?;
        }
        let named = category.as_ref().map_or("", Category::as_str).to_owned();
        let further = after.is_some();
        let list = StreamList { category, after, limit: PAGE_STREAMS + 1 };
        let mut found = beginning_with(&*access.log, &prefix, list).await?;
        let more = found.len() > PAGE_STREAMS;
        found.truncate(PAGE_STREAMS);
        let base = format!("/streams?prefix={}&category={}", encode(&prefix), encode(&named));
        let head = access.log.head().await?;
        let main = html! {
            h1 { "Streams" }
            form.filter method="get" action="/streams" {
                label { "Begins with " input name="prefix" value=(prefix) autocomplete="off"; }
                label { "Category " input name="category" value=(named) autocomplete="off"; }
                button type="submit" { "Search" }
            }
            @if found.is_empty() {
                p.empty { @if head == Position::ZERO { "No streams yet." } @else { "No such stream." } }
            } @else {
                div.scroll {
                    table {
                        thead { tr {
                            th scope="col" { "Stream" }
                            th scope="col" { "Category" }
                            th.number scope="col" { "Version" }
                            th.number scope="col" { "Newest event" }
                        } }
                        tbody { @for info in &found { tr {
                            td.name { a href=(links::stream(info.stream.as_str())) { (info.stream) } }
                            @let category = info.stream.category();
                            td.name { a href={ "/streams?category=" (encode(category.as_str())) } { (category) } }
                            td.number { (number(info.version.get())) }
                            td.number { a href=(links::position(info.position)) { (number(info.position.get())) } }
                        } } }
                    }
                }
            }
            nav.pages aria-label="Pages" {
                @if further { a href=(base) { "First" } }
                @if more && let Some(last) = found.last() {
                    a rel="next" href={ (base) "&after=" (encode(last.stream.as_str())) } { "More" }
                }
            }
        };
        let frame = Frame { shown: Some((app, access)), title: "Streams", here: "/streams", head: Some(head) };
        Ok(page(StatusCode::OK, &frame, &main))
    })
    .await
}

/// The streams whose names begin with this prefix. Stores list names in byte order, so these are adjacent:
/// the listing starts just before the first possible one, and other names at its end are dropped.
async fn beginning_with(
    store: &dyn EventStore,
    prefix: &str,
    mut list: StreamList,
) -> Result<Vec<StreamInfo>> {
    let before = just_before(prefix);
    if list.after.as_ref().is_none_or(|after| before.as_ref().is_some_and(|before| before > after)) {
        list.after = before;
    }
    let mut found = store.list_streams(list).await?;
    found.retain(|info| info.stream.as_str().starts_with(prefix));
    Ok(found)
}

/// A name that sorts before every name with this prefix, and after all other names that sort before these.
fn just_before(prefix: &str) -> Option<StreamId> {
    let last = prefix.chars().next_back()?;
    let stem = &prefix[..prefix.len() - last.len_utf8()];
    let code = u32::from(last);
    let previous = (0..code).rev().find_map(char::from_u32)?;
    // Names contain no NUL, so only the stem itself sorts before U+0001.
    let bound = if previous == '\0' { stem.to_owned() } else { format!("{stem}{previous}\u{10FFFF}") };
    StreamId::new(bound).ok()
}

#[cfg(test)]
mod tests {
    use annals_core::{Append, Expected, MemoryStore, NewEvent};

    use super::*;

    #[tokio::test]
    async fn a_search_finds_the_names_that_begin_so_and_no_others() {
        let store = MemoryStore::new();
        for name in ["a", "ab", "ab-1", "ab-2", "abc", "ac", "b", "계-1", "계좌-1", "고-1"] {
            let event = NewEvent::new("opened", "{}").unwrap();
            let append = Append::to(StreamId::new(name).unwrap(), Expected::Any, [event]);
            store.append(append).await.unwrap();
        }
        for (prefix, names) in [
            ("ab", &["ab", "ab-1", "ab-2", "abc"][..]),
            ("ab-", &["ab-1", "ab-2"]),
            ("a", &["a", "ab", "ab-1", "ab-2", "abc", "ac"]),
            ("계", &["계-1", "계좌-1"]),
            ("x", &[]),
        ] {
            let found = beginning_with(&store, prefix, StreamList::default()).await.unwrap();
            let found: Vec<_> = found.iter().map(|info| info.stream.as_str()).collect();
            assert_eq!(found, names, "{prefix}");
        }
    }

    #[tokio::test]
    async fn a_search_resumes_after_the_last_name_of_a_page() {
        let store = MemoryStore::new();
        for name in ["a-1", "a-2", "a-3"] {
            let event = NewEvent::new("opened", "{}").unwrap();
            let append = Append::to(StreamId::new(name).unwrap(), Expected::Any, [event]);
            store.append(append).await.unwrap();
        }
        let list = StreamList { after: Some(StreamId::new("a-2").unwrap()), ..StreamList::default() };
        let found = beginning_with(&store, "a", list).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].stream.as_str(), "a-3");
    }
}
