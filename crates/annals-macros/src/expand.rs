//! What comes out: `impl annals::Event`, as one could write it by hand.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{DeriveInput, Ident, Result};

use crate::attribute::{EventEnum, Fact, Member, Shape};
use crate::name;

pub fn event(input: &DeriveInput) -> Result<TokenStream> {
    let read = EventEnum::read(input)?;
    Ok(match &read.shape {
        Shape::Facts(facts) => of_facts(read.ident, facts),
        Shape::Union(members) => of_members(read.ident, members),
    })
}

fn of_facts(ident: &Ident, facts: &[Fact<'_>]) -> TokenStream {
    let stored: Vec<_> = facts.iter().map(|fact| &fact.stored_name).collect();
    let variants: Vec<_> = facts.iter().map(|fact| fact.ident).collect();
    let versions: Vec<_> = facts.iter().map(|fact| fact.schema_version).collect();
    let places = 0..u32::try_from(facts.len()).expect("an enum has fewer variants than that");
    let tags = facts.iter().filter(|fact| !fact.tags.is_empty()).map(tags_of);
    let warnings = facts.iter().filter(|fact| !fact.allow_name).filter_map(warning);
    quote! {
        impl ::annals::Event for #ident {
            const TYPES: &'static [&'static str] = &[#(#stored),*];

            fn event_type(&self) -> &'static str {
                match self { #(Self::#variants { .. } => #stored,)* }
            }

            fn schema_version(&self) -> u16 {
                match self { #(Self::#variants { .. } => #versions,)* }
            }

            fn tags(&self) -> ::core::result::Result<::std::vec::Vec<::annals::Tag>, ::annals::CodecError> {
                #[allow(unreachable_patterns)]
                match self {
                    #(#tags)*
                    _ => ::core::result::Result::Ok(::std::vec::Vec::new()),
                }
            }

            fn encode(&self) -> ::core::result::Result<::annals::Bytes, ::annals::CodecError> {
                ::annals::derived::encode(self, ::annals::Event::event_type(self))
            }

            fn decode(
                event_type: &str,
                schema_version: u16,
                data: &::annals::Bytes,
            ) -> ::core::result::Result<Self, ::annals::CodecError> {
                let (variant, newest) = match event_type {
                    #(#stored => (#places, #versions),)*
                    _ => return ::core::result::Result::Err(::annals::derived::unknown(event_type)),
                };
                ::annals::derived::decode(variant, newest, event_type, schema_version, data)
            }
        }
        #(#warnings)*
    }
}

fn tags_of(fact: &Fact<'_>) -> TokenStream {
    let variant = fact.ident;
    let stored = &fact.stored_name;
    let keys = fact.tags.iter().map(|tag| &tag.key);
    let members = fact.tags.iter().map(|tag| &tag.member);
    let bound: Vec<_> = (0..fact.tags.len()).map(|index| format_ident!("tag_{index}")).collect();
    quote! {
        Self::#variant { #(#members: #bound,)* .. } => {
            ::annals::derived::tags(#stored, &[#((#keys, #bound as &dyn ::core::fmt::Display)),*])
        }
    }
}

/// A warning at the variant. Stable Rust lets a macro warn only by the use of something deprecated.
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

fn of_members(ident: &Ident, members: &[Member<'_>]) -> TokenStream {
    let variants: Vec<_> = members.iter().map(|member| member.ident).collect();
    let holds: Vec<_> = members.iter().map(|member| member.holds).collect();
    quote! {
        impl ::annals::Event for #ident {
            const TYPES: &'static [&'static str] = {
                const PARTS: &[&[&str]] = &[#(<#holds as ::annals::Event>::TYPES),*];
                const ALL: [&str; ::annals::derived::count(PARTS)] = ::annals::derived::join(PARTS);
                &ALL
            };

            fn event_type(&self) -> &'static str {
                match self { #(Self::#variants(event) => ::annals::Event::event_type(event),)* }
            }

            fn schema_version(&self) -> u16 {
                match self { #(Self::#variants(event) => ::annals::Event::schema_version(event),)* }
            }

            fn tags(&self) -> ::core::result::Result<::std::vec::Vec<::annals::Tag>, ::annals::CodecError> {
                match self { #(Self::#variants(event) => ::annals::Event::tags(event),)* }
            }

            fn encode(&self) -> ::core::result::Result<::annals::Bytes, ::annals::CodecError> {
                match self { #(Self::#variants(event) => ::annals::Event::encode(event),)* }
            }

            fn decode(
                event_type: &str,
                schema_version: u16,
                data: &::annals::Bytes,
            ) -> ::core::result::Result<Self, ::annals::CodecError> {
                #(
                    if <#holds as ::annals::Event>::TYPES.contains(&event_type) {
                        return <#holds as ::annals::Event>::decode(event_type, schema_version, data)
                            .map(Self::#variants);
                    }
                )*
                ::core::result::Result::Err(::annals::derived::unknown(event_type))
            }
        }
    }
}
