//! Refused attributes, with the remedy: those without a meaning at their location, repeated ones, and some of
//! serde.

use syn::spanned::Spanned;
use syn::{Attribute, Expr, LitStr, Result};

/// Refuses an attribute where it has no meaning.
pub fn refuse_attribute(attributes: &[Attribute], name: &str, problem: &str) -> Result<()> {
    match attributes.iter().find(|attribute| attribute.path().is_ident(name)) {
        Some(attribute) => Err(syn::Error::new(attribute.span(), problem)),
        None => Ok(()),
    }
}

/// Refuses a repeated name.
pub fn refuse_repeated(names: &[LitStr]) -> Result<()> {
    for (index, name) in names.iter().enumerate() {
        if names[..index].iter().any(|earlier| earlier.value() == name.value()) {
            let problem = format!("`{}` is given already: leave one out", name.value());
            return Err(syn::Error::new(name.span(), problem));
        }
    }
    Ok(())
}

/// The stored form of an event is the fields of one variant, identified by the index of the variant in the
/// enum; these attributes of serde would change either.
pub fn refuse_serde(attributes: &[Attribute], refused: &[&str]) -> Result<()> {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        attribute.parse_nested_meta(|meta| {
            if let Some(word) = refused.iter().find(|word| meta.path.is_ident(word)) {
                let problem =
                    format!("`#[serde({word})]` changes how events are stored and cannot be used here");
                return Err(meta.error(problem));
            }
            // All other attributes of serde are allowed.
            if meta.input.peek(syn::Token![=]) {
                meta.value()?.parse::<Expr>()?;
            } else if meta.input.peek(syn::token::Paren) {
                let content;
                syn::parenthesized!(content in meta.input);
                content.parse::<proc_macro2::TokenStream>()?;
            }
            Ok(())
        })?;
    }
    Ok(())
}
