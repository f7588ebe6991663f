//! The output: `impl annals::Event` (or `annals_core::Event`), as it could be written by hand.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{DeriveInput, Ident, Result};

use crate::attribute::{EventEnum, Fact, Member, Shape};
use crate::name;
use crate::upcast::Conversion;

/// `root` is the path of the crate that defines the trait.
pub fn event(input: &DeriveInput, root: &TokenStream) -> Result<TokenStream> {
    let read = EventEnum::read(input)?;
    let upcasters = upcasters(&read, root);
    Ok(match &read.shape {
        Shape::Facts(facts) => of_facts(read.ident, facts, &upcasters, root),
        Shape::Union(members) => of_members(read.ident, members, &upcasters, root),
    })
}

fn of_facts(ident: &Ident, facts: &[Fact<'_>], upcasters: &TokenStream, root: &TokenStream) -> TokenStream {
    let stored: Vec<_> = facts.iter().map(|fact| &fact.stored_name).collect();
    let variants: Vec<_> = facts.iter().map(|fact| fact.ident).collect();
    let versions: Vec<_> = facts.iter().map(|fact| fact.schema_version).collect();
    let places = 0..u32::try_from(facts.len()).expect("an enum has fewer variants than that");
    let tags = facts.iter().filter(|fact| !fact.tags.is_empty()).map(|fact| tags_of(fact, root));
    let warnings = facts.iter().filter(|fact| !fact.allow_name).filter_map(warning);
    quote! {
        impl #root::Event for #ident {
            const TYPES: &'static [&'static str] = &[#(#stored),*];

            #upcasters

            fn event_type(&self) -> &'static str {
                match self { #(Self::#variants { .. } => #stored,)* }
            }

            fn current_version(event_type: &str) -> u16 {
                match event_type { #(#stored => #versions,)* _ => 1 }
            }

            fn schema_version(&self) -> u16 {
                match self { #(Self::#variants { .. } => #versions,)* }
            }

            fn tags(&self) -> ::core::result::Result<::std::vec::Vec<#root::Tag>, #root::CodecError> {
                #[allow(unreachable_patterns)]
                match self {
                    #(#tags)*
                    _ => ::core::result::Result::Ok(::std::vec::Vec::new()),
                }
            }

            fn encode(&self) -> ::core::result::Result<#root::Bytes, #root::CodecError> {
                #root::derived::encode(self, #root::Event::event_type(self))
            }

            fn decode(
                event_type: &str,
                schema_version: u16,
                data: &[::core::primitive::u8],
            ) -> ::core::result::Result<Self, #root::CodecError> {
                let (variant, newest) = match event_type {
                    #(#stored => (#places, #versions),)*
                    _ => return ::core::result::Result::Err(#root::derived::unknown(event_type)),
                };
                #root::derived::decode(variant, newest, event_type, schema_version, data)
            }
        }
        #(#warnings)*
    }
}

fn tags_of(fact: &Fact<'_>, root: &TokenStream) -> TokenStream {
    let variant = fact.ident;
    let stored = &fact.stored_name;
    let keys = fact.tags.iter().map(|tag| &tag.key);
    let members = fact.tags.iter().map(|tag| &tag.member);
    let bound: Vec<_> = (0..fact.tags.len()).map(|index| format_ident!("tag_{index}")).collect();
    quote! {
        Self::#variant { #(#members: #bound,)* .. } => {
            #root::derived::tags(#stored, &[#((#keys, #bound as &dyn ::core::fmt::Display)),*])
        }
    }
}

/// A warning at the variant. In stable Rust, a macro can warn only by using a deprecated item.
fn warning(fact: &Fact<'_>) -> Option<TokenStream> {
    let note = name::not_a_fact(fact.ident)?;
    let span = fact.ident.span();
    let marker = Ident::new("not_a_fact", span);
    Some(quote_spanned! {span=>
        const _: () = {
            #[deprecated(note = #note)]
            #[allow(non_upper_case_globals)]
            const #marker: () = ();
            #marker
        };
    })
}

fn of_members(
    ident: &Ident,
    members: &[Member<'_>],
    upcasters: &TokenStream,
    root: &TokenStream,
) -> TokenStream {
    let variants: Vec<_> = members.iter().map(|member| member.ident).collect();
    let holds: Vec<_> = members.iter().map(|member| member.holds).collect();
    quote! {
        impl #root::Event for #ident {
            const TYPES: &'static [&'static str] = {
                const PARTS: &[&[&str]] = &[#(<#holds as #root::Event>::TYPES),*];
                const ALL: [&str; #root::derived::count(PARTS)] = #root::derived::join(PARTS);
                &ALL
            };

            #upcasters

            fn event_type(&self) -> &'static str {
                match self { #(Self::#variants(event) => #root::Event::event_type(event),)* }
            }

            fn current_version(event_type: &str) -> u16 {
                #(
                    if <#holds as #root::Event>::TYPES.contains(&event_type) {
                        return <#holds as #root::Event>::current_version(event_type);
                    }
                )*
                1
            }

            fn schema_version(&self) -> u16 {
                match self { #(Self::#variants(event) => #root::Event::schema_version(event),)* }
            }

            fn content_type(event_type: &str) -> #root::ContentType {
                #(
                    if <#holds as #root::Event>::TYPES.contains(&event_type) {
                        return <#holds as #root::Event>::content_type(event_type);
                    }
                )*
                #root::ContentType::Json
            }

            fn tags(&self) -> ::core::result::Result<::std::vec::Vec<#root::Tag>, #root::CodecError> {
                match self { #(Self::#variants(event) => #root::Event::tags(event),)* }
            }

            fn encode(&self) -> ::core::result::Result<#root::Bytes, #root::CodecError> {
                match self { #(Self::#variants(event) => #root::Event::encode(event),)* }
            }

            fn decode(
                event_type: &str,
                schema_version: u16,
                data: &[::core::primitive::u8],
            ) -> ::core::result::Result<Self, #root::CodecError> {
                #(
                    if <#holds as #root::Event>::TYPES.contains(&event_type) {
                        return <#holds as #root::Event>::decode(event_type, schema_version, data)
                            .map(Self::#variants);
                    }
                )*
                ::core::result::Result::Err(#root::derived::unknown(event_type))
            }
        }
    }
}

/// The constant `UPCASTERS`; no tokens if there are no upcasters.
fn upcasters(read: &EventEnum<'_>, root: &TokenStream) -> TokenStream {
    let dropped =
        read.dropped.iter().map(|dropped| quote!(#root::Upcaster::Dropped { event_type: #dropped }));
    let mut own: Vec<_> = dropped.collect();
    let mut tables = Vec::new();
    match &read.shape {
        Shape::Facts(facts) => own.extend(facts.iter().flat_map(|fact| of_fact(fact, root))),
        Shape::Union(members) => tables.extend(members.iter().map(|member| {
            let holds = member.holds;
            quote!(<#holds as #root::Event>::UPCASTERS)
        })),
    }
    if let Some(path) = &read.upcasters {
        tables.push(quote!(#path));
    }
    if own.is_empty() && tables.is_empty() {
        return TokenStream::new();
    }
    // Problems of the table as a whole are reported at the name of the enum.
    let ident = read.ident;
    let check = quote_spanned! {ident.span()=>
        const _: () = #root::derived::check_upcasters(<#ident as #root::Event>::TYPES, &ALL);
    };
    quote! {
        const UPCASTERS: &'static [#root::Upcaster] = {
            const TABLES: &[&[#root::Upcaster]] = &[&[#(#own),*], #(#tables),*];
            const ALL: [#root::Upcaster; #root::derived::count_upcasters(TABLES)] =
                #root::derived::join_upcasters(TABLES);
            #check
            &ALL
        };
    }
}

fn of_fact<'a>(fact: &'a Fact<'_>, root: &'a TokenStream) -> impl Iterator<Item = TokenStream> + 'a {
    let stored = &fact.stored_name;
    let renamed = fact
        .former_names
        .iter()
        .map(move |former| quote!(#root::Upcaster::Renamed { former: #former, event_type: #stored }));
    let converted = fact.conversions.iter().map(move |conversion| {
        let Conversion { version, function, .. } = conversion;
        let next = version + 1;
        quote! {
            #root::Upcaster::Converted {
                event_type: #stored,
                version: #version,
                into: &[(#stored, #next)],
                convert: |stored| #root::derived::convert(&stored, #function),
            }
        }
    });
    renamed.chain(converted)
}
