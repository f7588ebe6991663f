//! The attribute `upcast`: conversions of former versions of the shape of an event.

use syn::meta::ParseNestedMeta;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{LitInt, Path, Result, Token};

/// The conversion of one version of a shape to the next: `1 = from_v1`.
pub struct Conversion {
    pub version: u16,
    number: LitInt,
    pub function: Path,
}

impl Parse for Conversion {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if !input.peek(LitInt) {
            return Err(input.error("write `upcast(1 = from_v1)`, with the former version and a function"));
        }
        let number: LitInt = input.parse()?;
        input.parse::<Token![=]>()?;
        Ok(Self { version: schema_version(&number)?, number, function: input.parse()? })
    }
}

/// Parses a version of the shape of an event in an attribute.
pub fn schema_version(version: &LitInt) -> Result<u16> {
    match version.base10_parse()? {
        0 => Err(syn::Error::new(version.span(), "the first schema version is 1")),
        version => Ok(version),
    }
}

/// Parses the conversions in `upcast(1 = from_v1, 2 = from_v2)`.
pub fn conversions(meta: &ParseNestedMeta<'_>) -> Result<Vec<Conversion>> {
    let content;
    syn::parenthesized!(content in meta.input);
    if content.is_empty() {
        return Err(content.error("write `upcast(1 = from_v1)`, with the former version and a function"));
    }
    let all = Punctuated::<Conversion, Token![,]>::parse_terminated(&content)?;
    Ok(all.into_iter().collect())
}

/// Refuses a conversion of a version that is not a former one, or that already has one.
pub fn check(conversions: &[Conversion], current: u16) -> Result<()> {
    for (index, conversion) in conversions.iter().enumerate() {
        let Conversion { version, number, .. } = conversion;
        if *version >= current {
            let problem = format!(
                "version {version} is not a former one: the variant has version {current}, and needs `version = {}` \
                 for this",
                u32::from(*version) + 1
            );
            return Err(syn::Error::new(number.span(), problem));
        }
        if conversions[..index].iter().any(|earlier| earlier.version == *version) {
            let problem = format!("version {version} is converted already");
            return Err(syn::Error::new(number.span(), problem));
        }
    }
    Ok(())
}
