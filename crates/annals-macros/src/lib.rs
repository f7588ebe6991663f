//! The derive of `annals`: [`Event`](derive@Event), which writes what could as well be written by hand.
//!
//! It knows names and shapes only; how an event becomes bytes is in `annals_core::derived`. The files, in the order
//! in which they are best read: `attribute` (what a user writes), `refuse` (what is wrong with it), `name` (stored names, and
//! names that are not facts), `upcast` (how a former version becomes the next), `expand` (what comes out).
#![forbid(unsafe_code)]

use quote::quote;

mod attribute;
mod expand;
mod name;
mod refuse;
mod upcast;

/// Writes `annals::Event` for an enum with one variant for each thing that can happen.
///
/// The enum must also be `Clone`, `serde::Serialize` and `serde::Deserialize`. Stored are the fields of the
/// variant alone, as JSON, and apart from them the stored name of its type.
///
/// On the enum:
/// - `#[event(prefix = "account")]`: the stored name of `WasOpened` is `account.was_opened`.
/// - `#[event(union)]`: every variant holds another event type, and the enum stands for all of them.
/// - `#[event(dropped = "account.viewed")]`: events of this type mean nothing any more, and are dropped when they are read. May be
///   given for several types.
/// - `#[event(upcasters = TABLE)]`: a constant of type `&[Upcaster]`, for what else became of former types: one that is
///   several events today, data that is not JSON.
///
/// On a variant:
/// - `#[event(name = "account.opened")]`: its stored name, which may then differ from the variant's.
/// - `#[event(former_name = "account.registered")]`: a name under which it is in the log too. May be given for several names.
/// - `#[event(version = 2)]`: the version of its shape; 1 if it is not given.
/// - `#[event(version = 2, upcast(1 = from_v1))]`: how version 1 becomes version 2. `from_v1` is a function from the data of
///   version 1 to a `Result` with the data of version 2, both of any type that serde can read and write
///   (`serde_json::Value` too). A version without a function is read as today's, as far as serde can; if a version has a
///   function, those before it need one too.
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
