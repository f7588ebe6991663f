//! What a user writes: the attributes `event` and `tag`, checked.
//!
//! Every mistake is an error at the place where it was made, and says what would be right.

use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Expr, Fields, Ident, Lit, LitInt, LitStr, Meta, Path, Result};

use crate::name;
use crate::upcast::{self, Conversion};

/// The enum as a whole.
pub struct EventEnum<'a> {
    pub ident: &'a Ident,
    pub shape: Shape<'a>,
    /// Types whose events are read over.
    pub dropped: Vec<String>,
    /// A table of the user's own.
    pub upcasters: Option<Path>,
}

/// What the variants are.
pub enum Shape<'a> {
    /// Events of its own.
    Facts(Vec<Fact<'a>>),
    /// One other event type each.
    Union(Vec<Member<'a>>),
}

/// A variant that is an event.
pub struct Fact<'a> {
    pub ident: &'a Ident,
    pub stored_name: String,
    pub schema_version: u16,
    pub former_names: Vec<String>,
    pub conversions: Vec<Conversion>,
    pub tags: Vec<TagField>,
    pub allow_name: bool,
}

/// A field that becomes a tag.
pub struct TagField {
    pub member: syn::Member,
    pub key: String,
}

/// A variant that holds another event type.
pub struct Member<'a> {
    pub ident: &'a Ident,
    pub holds: &'a syn::Type,
}

impl<'a> EventEnum<'a> {
    pub fn read(input: &'a DeriveInput) -> Result<Self> {
        let Data::Enum(data) = &input.data else {
            let problem = "an event type is an enum with one variant for each thing that can happen";
            return Err(syn::Error::new(input.ident.span(), problem));
        };
        if !input.generics.params.is_empty() {
            let problem = "an event type has no generics: a stored name stands for one shape";
            return Err(syn::Error::new(input.generics.span(), problem));
        }
        if data.variants.is_empty() {
            return Err(syn::Error::new(input.ident.span(), "an event type needs at least one variant"));
        }
        let on_enum = OnEnum::read(&input.attrs)?;
        let variants = data.variants.iter();
        let shape = if on_enum.union {
            Shape::Union(variants.map(Member::read).collect::<Result<_>>()?)
        } else {
            refuse_serde(&input.attrs, &["tag", "content", "untagged", "from", "try_from", "into"])?;
            let prefix = on_enum.prefix.as_deref();
            let facts = variants.map(|variant| Fact::read(variant, prefix)).collect::<Result<Vec<_>>>()?;
            refuse_duplicates(&facts, &on_enum.dropped)?;
            Shape::Facts(facts)
        };
        let dropped = on_enum.dropped.iter().map(LitStr::value).collect();
        Ok(Self { ident: &input.ident, shape, dropped, upcasters: on_enum.upcasters })
    }
}

#[derive(Default)]
struct OnEnum {
    prefix: Option<String>,
    union: bool,
    dropped: Vec<LitStr>,
    upcasters: Option<Path>,
}

impl OnEnum {
    fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut read = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("event")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("prefix") {
                    let prefix: LitStr = meta.value()?.parse()?;
                    name::check(&prefix)?;
                    read.prefix = Some(prefix.value());
                    Ok(())
                } else if meta.path.is_ident("union") {
                    read.union = true;
                    Ok(())
                } else if meta.path.is_ident("dropped") {
                    let dropped: LitStr = meta.value()?.parse()?;
                    name::check(&dropped)?;
                    read.dropped.push(dropped);
                    Ok(())
                } else if meta.path.is_ident("upcasters") {
                    read.upcasters = Some(meta.value()?.parse()?);
                    Ok(())
                } else {
                    let known = "known here are `prefix = \"...\"`, `union`, `dropped = \"...\"` and `upcasters = TABLE`";
                    Err(meta.error(known))
                }
            })?;
            if read.union && read.prefix.is_some() {
                let problem = "a union stores nothing of its own, so it has no prefix";
                return Err(syn::Error::new(attribute.span(), problem));
            }
        }
        Ok(read)
    }
}

/// What a variant that is an event says of itself.
struct OnFact {
    stored_name: Option<String>,
    schema_version: u16,
    former_names: Vec<LitStr>,
    conversions: Vec<Conversion>,
    allow_name: bool,
}

impl OnFact {
    fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut read = Self {
            stored_name: None,
            schema_version: 1,
            former_names: Vec::new(),
            conversions: Vec::new(),
            allow_name: false,
        };
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("event")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    let name: LitStr = meta.value()?.parse()?;
                    name::check(&name)?;
                    read.stored_name = Some(name.value());
                    Ok(())
                } else if meta.path.is_ident("version") {
                    let version: LitInt = meta.value()?.parse()?;
                    read.schema_version = version.base10_parse()?;
                    if read.schema_version == 0 {
                        return Err(syn::Error::new(version.span(), "the first schema version is 1"));
                    }
                    Ok(())
                } else if meta.path.is_ident("former_name") {
                    let name: LitStr = meta.value()?.parse()?;
                    name::check(&name)?;
                    read.former_names.push(name);
                    Ok(())
                } else if meta.path.is_ident("upcast") {
                    read.conversions.extend(upcast::conversions(&meta)?);
                    Ok(())
                } else if meta.path.is_ident("allow_name") {
                    read.allow_name = true;
                    Ok(())
                } else {
                    let known = "known here are `name = \"...\"`, `former_name = \"...\"`, `version = 2`, \
                                 `upcast(1 = from_v1)` and `allow_name`";
                    Err(meta.error(known))
                }
            })?;
        }
        upcast::check(&read.conversions, read.schema_version)?;
        Ok(read)
    }
}

impl<'a> Fact<'a> {
    fn read(variant: &'a syn::Variant, prefix: Option<&str>) -> Result<Self> {
        let OnFact { stored_name, schema_version, former_names, conversions, allow_name } =
            OnFact::read(&variant.attrs)?;
        refuse_serde(
            &variant.attrs,
            &["skip", "skip_serializing", "skip_deserializing", "other", "untagged", "with"],
        )?;
        let stored_name = match (stored_name, prefix) {
            (Some(name), _) => name,
            (None, Some(prefix)) => format!("{prefix}.{}", name::snake_case(&variant.ident)),
            (None, None) => {
                let problem = "no stored name, which outlives the code: give the enum \
                               `#[event(prefix = \"account\")]` or this variant \
                               `#[event(name = \"account.opened\")]`";
                return Err(syn::Error::new(variant.ident.span(), problem));
            }
        };
        if stored_name.starts_with("annals.") {
            let problem = format!(
                "the stored name `{stored_name}` begins with `annals.`, which is kept for Annals itself"
            );
            return Err(syn::Error::new(variant.ident.span(), problem));
        }
        let tags = TagField::read(&variant.fields)?;
        if let Some(former) = former_names.iter().find(|former| former.value() == stored_name) {
            let problem =
                format!("`{stored_name}` is the stored name of today; a former name differs from it");
            return Err(syn::Error::new(former.span(), problem));
        }
        let former_names = former_names.iter().map(LitStr::value).collect();
        let ident = &variant.ident;
        Ok(Self { ident, stored_name, schema_version, former_names, conversions, tags, allow_name })
    }
}

impl TagField {
    fn read(fields: &Fields) -> Result<Vec<Self>> {
        let mut tags = Vec::new();
        for (field, member) in fields.iter().zip(fields.members()) {
            for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("tag")) {
                let key = match (&attribute.meta, &member) {
                    (Meta::NameValue(given), _) => {
                        let Expr::Lit(syn::ExprLit { lit: Lit::Str(key), .. }) = &given.value else {
                            return Err(syn::Error::new(given.value.span(), "expected a string"));
                        };
                        name::check(key)?;
                        key.value()
                    }
                    (Meta::Path(_), syn::Member::Named(ident)) => {
                        ident.to_string().trim_start_matches("r#").to_owned()
                    }
                    (Meta::Path(_), syn::Member::Unnamed(_)) => {
                        let problem = "a field without a name needs `#[tag = \"customer\"]`";
                        return Err(syn::Error::new(attribute.span(), problem));
                    }
                    (Meta::List(_), _) => {
                        let problem = "write `#[tag]` or `#[tag = \"customer\"]`";
                        return Err(syn::Error::new(attribute.span(), problem));
                    }
                };
                tags.push(Self { member: member.clone(), key });
            }
        }
        Ok(tags)
    }
}

impl<'a> Member<'a> {
    fn read(variant: &'a syn::Variant) -> Result<Self> {
        match &variant.fields {
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                Ok(Self { ident: &variant.ident, holds: &fields.unnamed[0].ty })
            }
            _ => {
                let problem = "a variant of a union holds one other event type: `Account(AccountEvent)`";
                Err(syn::Error::new(variant.ident.span(), problem))
            }
        }
    }
}

/// A name stands for one type, also a former one.
fn refuse_duplicates(facts: &[Fact<'_>], dropped: &[LitStr]) -> Result<()> {
    for (index, fact) in facts.iter().enumerate() {
        if let Some(earlier) = facts[..index].iter().find(|earlier| earlier.stored_name == fact.stored_name) {
            let problem =
                format!("the stored name `{}` is that of `{}` already", fact.stored_name, earlier.ident);
            return Err(syn::Error::new(fact.ident.span(), problem));
        }
        for former in &fact.former_names {
            let stored = facts.iter().find(|other| other.stored_name == *former);
            let mut earlier = facts[..index].iter();
            let other = stored.or_else(|| earlier.find(|earlier| earlier.former_names.contains(former)));
            if let Some(other) = other {
                let problem = format!("the former name `{former}` is that of `{}` already", other.ident);
                return Err(syn::Error::new(fact.ident.span(), problem));
            }
        }
    }
    for name in dropped {
        let is_of =
            |fact: &&Fact<'_>| fact.stored_name == name.value() || fact.former_names.contains(&name.value());
        if let Some(fact) = facts.iter().find(is_of) {
            let problem = format!("`{}` is a name of `{}`, so it is not dropped", name.value(), fact.ident);
            return Err(syn::Error::new(name.span(), problem));
        }
    }
    Ok(())
}

/// The stored form of an event is one variant's fields, found by the place of the variant in the enum; these
/// attributes of serde would change either.
fn refuse_serde(attributes: &[Attribute], refused: &[&str]) -> Result<()> {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        attribute.parse_nested_meta(|meta| {
            if let Some(word) = refused.iter().find(|word| meta.path.is_ident(word)) {
                let problem =
                    format!("`#[serde({word})]` changes how events are stored and cannot be used here");
                return Err(meta.error(problem));
            }
            // Whatever else serde knows is taken as it is.
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
