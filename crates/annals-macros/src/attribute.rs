//! The user's input: the attributes `event` and `tag`, checked.
//!
//! Every mistake is reported at its source location, with the correct form.

use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Expr, Fields, Ident, Lit, LitInt, LitStr, Meta, Path, Result};

use crate::name;
use crate::refuse::{refuse_attribute, refuse_repeated, refuse_serde};
use crate::upcast::{self, Conversion};

/// The enum as a whole.
pub struct EventEnum<'a> {
    pub ident: &'a Ident,
    pub shape: Shape<'a>,
    /// Types whose events are dropped when they are read.
    pub dropped: Vec<String>,
    /// A table defined by the user.
    pub upcasters: Option<Path>,
}

/// The kind of the variants.
pub enum Shape<'a> {
    /// Each variant is an event.
    Facts(Vec<Fact<'a>>),
    /// Each variant holds another event type.
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
        refuse_attribute(&input.attrs, "tag", "a tag is made of a field: put `#[tag]` on one")?;
        let on_enum = OnEnum::read(&input.attrs)?;
        refuse_repeated(&on_enum.dropped)?;
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
                    once(&meta, read.prefix.is_some(), "leave one out")?;
                    read.prefix = Some(prefix.value());
                    Ok(())
                } else if meta.path.is_ident("union") {
                    once(&meta, read.union, "leave one out")?;
                    read.union = true;
                    Ok(())
                } else if meta.path.is_ident("dropped") {
                    let dropped: LitStr = meta.value()?.parse()?;
                    name::check(&dropped)?;
                    read.dropped.push(dropped);
                    Ok(())
                } else if meta.path.is_ident("upcasters") {
                    once(&meta, read.upcasters.is_some(), "put the upcasters of both into one table")?;
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

/// Refuses a repeated attribute.
fn once(meta: &ParseNestedMeta<'_>, was_given: bool, instead: &str) -> Result<()> {
    if !was_given {
        return Ok(());
    }
    let name = meta.path.get_ident().map(Ident::to_string).unwrap_or_default();
    Err(meta.error(format!("`{name}` is given already: {instead}")))
}

/// The attributes of a variant that is an event.
#[derive(Default)]
struct OnFact {
    stored_name: Option<String>,
    schema_version: Option<u16>,
    former_names: Vec<LitStr>,
    conversions: Vec<Conversion>,
    allow_name: bool,
}

impl OnFact {
    fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut read = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("event")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    let name: LitStr = meta.value()?.parse()?;
                    name::check(&name)?;
                    once(
                        &meta,
                        read.stored_name.is_some(),
                        "keep the name that is in the log, and give the other as `former_name`",
                    )?;
                    read.stored_name = Some(name.value());
                    Ok(())
                } else if meta.path.is_ident("version") {
                    let version: LitInt = meta.value()?.parse()?;
                    once(&meta, read.schema_version.is_some(), "keep the one that is written today")?;
                    read.schema_version = Some(upcast::schema_version(&version)?);
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
                    once(&meta, read.allow_name, "leave one out")?;
                    read.allow_name = true;
                    Ok(())
                } else {
                    let known = "known here are `name = \"...\"`, `former_name = \"...\"`, `version = 2`, \
                                 `upcast(1 = from_v1)` and `allow_name`";
                    Err(meta.error(known))
                }
            })?;
        }
        upcast::check(&read.conversions, read.schema_version.unwrap_or(1))?;
        Ok(read)
    }
}

impl<'a> Fact<'a> {
    fn read(variant: &'a syn::Variant, prefix: Option<&str>) -> Result<Self> {
        let OnFact { stored_name, schema_version, former_names, conversions, allow_name } =
            OnFact::read(&variant.attrs)?;
        let schema_version = schema_version.unwrap_or(1);
        refuse_attribute(&variant.attrs, "tag", "a tag is made of a field: put `#[tag]` on one")?;
        for field in &variant.fields {
            let problem =
                "a field has no `#[event(…)]`: put it on the variant or on the enum; a field has `#[tag]`";
            refuse_attribute(&field.attrs, "event", problem)?;
        }
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
                "the stored name `{stored_name}` begins with `annals.`, which is reserved for Annals"
            );
            return Err(syn::Error::new(variant.ident.span(), problem));
        }
        let tags = TagField::read(&variant.fields)?;
        refuse_repeated(&former_names)?;
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
        let problem = "a variant of a union has no attributes: put them on the event type that it holds, or `dropped` and \
                       `upcasters` on the union";
        for attributes in
            std::iter::once(&variant.attrs).chain(variant.fields.iter().map(|field| &field.attrs))
        {
            refuse_attribute(attributes, "event", problem)?;
            refuse_attribute(attributes, "tag", problem)?;
        }
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

/// A stored name belongs to one type, and so does a former name.
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
