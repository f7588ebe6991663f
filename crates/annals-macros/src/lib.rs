//! The derive of `annals`: [`Event`](derive@Event), which generates code that could also be written by hand.
//!
//! It only reads names and shapes; `annals_core::derived` converts events to bytes. The files, in reading
//! order: `attribute` (the user's input), `refuse` (errors in it), `name` (stored names, and names that are
//! not facts), `upcast` (conversions of former versions), `expand` (the output).
#![forbid(unsafe_code)]

use quote::quote;

mod attribute;
mod expand;
mod name;
mod refuse;
mod upcast;

/// Implements `annals::Event` for an enum with one variant for each thing that can happen.
///
/// The enum must also be `Clone`, `serde::Serialize` and `serde::Deserialize`. Only the fields of the variant
/// are stored, as JSON, with the stored name of the type beside them.
///
/// On the enum:
/// - `#[event(prefix = "account")]`: the stored name of `WasOpened` is `account.was_opened`.
/// - `#[event(union)]`: every variant holds another event type, and the enum combines them all.
/// - `#[event(dropped = "account.viewed")]`: events of this type are obsolete, and are dropped when they are
///   read. May be given for several types.
/// - `#[event(upcasters = TABLE)]`: a constant of type `&[Upcaster]`, for other former types: one that is
///   several events now, or data that is not JSON.
///
/// On a variant:
/// - `#[event(name = "account.opened")]`: its stored name, which may then differ from the variant's.
/// - `#[event(former_name = "account.registered")]`: another name under which it is in the log. May be given
///   for several names.
/// - `#[event(version = 2)]`: the version of its shape; 1 by default.
/// - `#[event(version = 2, upcast(1 = from_v1))]`: converts version 1 to version 2. `from_v1` is a function
///   from the data of version 1 to a `Result` with the data of version 2, both of any type that serde can
///   read and write (including `serde_json::Value`). A version without a function is read as the current one,
///   as far as serde can; if a version has a function, earlier ones need one too.
/// - `#[event(allow_name)]`: no warning although its name does not look like a fact.
///
/// On a field:
/// - `#[tag]`: the event can be found by `field:value`; `#[tag = "customer"]` replaces the first half.
#[proc_macro_derive(Event, attributes(event, tag))]
pub fn event(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    derive(input, &quote!(::annals))
}

/// The same derive for a crate that depends only on `annals-core`, which re-exports it as `Event`.
#[proc_macro_derive(CoreEvent, attributes(event, tag))]
pub fn core_event(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    derive(input, &quote!(::annals_core))
}

fn derive(input: proc_macro::TokenStream, root: &proc_macro2::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::event(&input, root).unwrap_or_else(syn::Error::into_compile_error).into()
}
