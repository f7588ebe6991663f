//! The derive of `annals`: [`Event`](derive@Event), which writes what could as well be written by hand.
//!
//! It knows names and shapes only; how an event becomes bytes is in `annals_core::derived`. The files, in the order
//! in which they are best read: `attribute` (what a user writes), `name` (stored names, and names that are not
//! facts), `expand` (what comes out).
#![forbid(unsafe_code)]

use quote::quote;

mod attribute;
mod expand;
mod name;

/// Writes `annals::Event` for an enum with one variant for each thing that can happen.
///
/// The enum must also be `Clone`, `serde::Serialize` and `serde::Deserialize`. Stored are the fields of the
/// variant alone, as JSON, and apart from them the stored name of its type.
///
/// On the enum:
/// - `#[event(prefix = "account")]`: the stored name of `WasOpened` is `account.was_opened`.
/// - `#[event(union)]`: every variant holds another event type, and the enum stands for all of them.
///
/// On a variant:
/// - `#[event(name = "account.opened")]`: its stored name, which may then differ from the variant's.
/// - `#[event(version = 2)]`: the version of its shape, 1 if nothing is said.
/// - `#[event(allow_name)]`: no warning although its name does not look like a fact.
///
/// On a field:
/// - `#[tag]`: the event can be found by `field:value`; `#[tag = "customer"]` names the first half.
#[proc_macro_derive(Event, attributes(event, tag))]
pub fn event(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    derive(input, &quote!(::annals))
}

/// The same for a crate that depends on `annals-core` alone, which re-exports it as `Event`.
#[proc_macro_derive(CoreEvent, attributes(event, tag))]
pub fn core_event(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    derive(input, &quote!(::annals_core))
}

fn derive(input: proc_macro::TokenStream, root: &proc_macro2::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::event(&input, root).unwrap_or_else(syn::Error::into_compile_error).into()
}
