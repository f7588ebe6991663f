//! The parameters of a store's address: `?schema=orders&sslmode=require`.

use annals_core::Invalid;

/// Checks that an address has no parameters but these, and none twice. A driver ignores unknown parameters,
/// so that `schma=demo` would open the log in another schema. A name that ends in `[` is a prefix.
///
/// # Errors
/// [`Invalid`], with the name of the first unknown parameter, never its value, which may be a password.
pub fn check_parameters(url: &str, known: &[&str]) -> Result<(), Invalid> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    let mut seen = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split('=').next().unwrap_or(pair);
        let is_known = known.iter().any(|known| match known.strip_suffix('[') {
            Some(_) => name.starts_with(known),
            None => name == *known,
        });
        if !is_known {
            let known = known.join(", ").replace('[', "[…]");
            // It may be the end of a password with a `?` or a `&` in it.
            let may_be_secret = query.contains('@')
                || !pair.contains('=')
                || seen.iter().any(|name: &&str| name.to_ascii_lowercase().contains("pass"));
            let shown = if may_be_secret { String::new() } else { format!(" `{name}`") };
            let problem = format!("has a parameter{shown}, which is none of {known}");
            return Err(Invalid::new("store", problem));
        }
        if seen.contains(&name) {
            return Err(Invalid::new("store", format!("has the parameter `{name}` twice")));
        }
        seen.push(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_parameter_is_refused() {
        let known = ["schema", "sslmode", "options["];
        for right in
            ["p://h/d", "p://h/d?", "p://h/d?schema=a&sslmode=require", "p://h/d?options[search_path]=x"]
        {
            check_parameters(right, &known).unwrap_or_else(|invalid| panic!("{right}: {invalid}"));
        }
        let refused = |url: &str| check_parameters(url, &known).unwrap_err().to_string();
        assert_eq!(
            refused("p://h/d?schma=secret"),
            "store has a parameter `schma`, which is none of schema, sslmode, options[…]"
        );
        assert!(refused("p://h/d?SCHEMA=a").contains("`SCHEMA`"));
        for end_of_a_password in [
            "p://kim:12?s3cret=a@h/d",
            "p://kim:12?s3cret@h/d",
            "p://h/d?pass=a&s3cret",
            "p://h/d?password=a&s3cret=b",
        ] {
            let known = [&known[..], &["pass", "password"]].concat();
            let refused = check_parameters(end_of_a_password, &known).unwrap_err().to_string();
            assert!(!refused.contains("s3cret"), "{refused}");
        }
        assert!(refused("p://h/d?schema=a&&schema=b").contains("`schema` twice"));
    }
}
