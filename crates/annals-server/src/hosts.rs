//! The checks of `Host` and `Origin`, which refuse requests from pages of other sites before any handler
//! runs.
//!
//! A server without tokens executes every request that it accepts, so these checks are its only protection
//! against pages of other sites. With tokens they are a second one: a page has no token, and the console's
//! cookie is accepted for reads only.
//!
//! - H1  On a loopback address, `Host` must be this machine (`localhost`, a loopback address), a name given
//!   to [`Server::host`](crate::Server::host), or a name without a dot. A public name that resolves to
//!   127.0.0.1 (DNS rebinding) is refused, so a page of another site never has the same origin. A name
//!   without a dot is not public: it comes from the machine's own hosts file or a container's network.
//! - H2  On other addresses any name is accepted, unless names are given; then these, addresses and names
//!       without a dot.
//! - H3  A request that may change something and has an `Origin` was sent by a page; it must be our own page.
//!   Reads need no such check: without CORS headers a browser does not show the response to another site.
//! - H4  The checks cover our own routes, and routes that a program mounts by `mount_checked`. Other mounted
//!   routes do their own checks.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, StatusCode, Uri, header, uri::Authority};

use crate::problem::Problem;

/// The host names that the server accepts.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// Whether it listens on a loopback address, which only this machine can reach.
    pub(crate) loopback: bool,
    /// The names given to [`Server::host`](crate::Server::host).
    pub(crate) named: Vec<String>,
}

impl Hosts {
    /// Refuses a request that a page of another site may have sent.
    pub(crate) fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (host, second) = (hosts.next(), hosts.next());
        if second.is_some() {
            return Err(Problem::invalid("Host", "is given more than once"));
        }
        let host = host.map(|value| value.to_str().ok().and_then(|text| text.parse::<Authority>().ok()));
        let host = match (uri.authority(), host) {
            (Some(authority), _) => Some(authority.clone()),
            (None, Some(Some(authority))) => Some(authority),
            (None, Some(None)) => return Err(Problem::invalid("Host", "is not the name of a host")),
            // Browsers always send it.
            (None, None) => None,
        };
        if let Some(host) = &host
            && !self.answers(name(host))
        {
            let detail = self.foreign_host(name(host));
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "foreign-host", detail));
        }
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        // Pages cannot set this header. Browsers send it over HTTPS and to loopback addresses.
        let same = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
        for origin in headers.get_all(header::ORIGIN) {
            let origin = origin.to_str().unwrap_or("…");
            if !self.is_own(origin, host.as_ref(), same) {
                let detail = foreign_origin(origin, host.as_ref());
                return Err(Problem::new(StatusCode::FORBIDDEN, "foreign-origin", detail));
            }
        }
        Ok(())
    }

    /// Whether the server accepts this host name.
    fn answers(&self, name: &str) -> bool {
        let address = without_brackets(name).parse::<IpAddr>();
        let local = name.eq_ignore_ascii_case("localhost")
            || address.as_ref().is_ok_and(|address| address.to_canonical().is_loopback());
        if local || self.is_named(name) {
            return true;
        }
        match (self.loopback, self.named.is_empty()) {
            (true, _) => address.is_err() && !name.contains('.'),
            (false, true) => true,
            // A foreign site cannot make an address or a container's name resolve to another host.
            (false, false) => address.is_ok() || !name.contains('.'),
        }
    }

    fn foreign_host(&self, name: &str) -> String {
        let addresses = if self.loopback { "loopback addresses" } else { "addresses" };
        let named: Vec<_> = self.named.iter().map(|named| format!("`{named}`, ")).collect();
        format!(
            "this server does not answer as `{name}`, only as {}localhost, {addresses} and names without a dot. If clients \
             or a proxy are to reach it as `{name}`, add `--host {name}` to `annals serve` (it may be repeated), or \
             `Server::host` in a program",
            named.concat()
        )
    }

    fn is_named(&self, name: &str) -> bool {
        // `Host` has an IPv6 address in brackets; the given name may have none.
        let name = without_brackets(name);
        self.named.iter().any(|named| without_brackets(named).eq_ignore_ascii_case(name))
    }

    /// Whether a page of this origin is ours, directly or through a proxy with one of our names. `same` is
    /// whether the browser marks the request as same-origin: then ports are not compared, because a proxy may
    /// have removed the port from `Host`.
    fn is_own(&self, origin: &str, host: Option<&Authority>, same: bool) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let default = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return false,
        };
        let port = |authority: &Authority| authority.port_u16().unwrap_or(default);
        let same = host.is_some_and(|host| {
            name(host).eq_ignore_ascii_case(name(&authority)) && (same || port(host) == port(&authority))
        });
        same || self.is_named(name(&authority))
    }
}

fn foreign_origin(origin: &str, host: Option<&Authority>) -> String {
    let host = host.map_or("no host", Authority::as_str);
    let proxy = origin.split_once("://").map_or("NAME", |(_, authority)| {
        authority.split([':', '/']).next().filter(|name| !name.is_empty()).unwrap_or("NAME")
    });
    format!(
        "the request was sent by a page of `{origin}` to `{host}`, and only our own pages may change anything. If it is our \
         own page behind a proxy, let the proxy pass on `Host` as it is, with its port, or add `--host {proxy}` to `annals \
         serve` (`Server::host` in a program)"
    )
}

/// A given host name without its port, if it has one: all ports are accepted.
pub(crate) fn host_name(given: &str) -> &str {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let name = match given.rsplit_once(':') {
        Some((name, port)) if is_port(port) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => given,
    };
    name.trim_end_matches('.')
}

fn without_brackets(name: &str) -> &str {
    name.trim_start_matches('[').trim_end_matches(']')
}

/// The name without its port and without a trailing dot.
fn name(authority: &Authority) -> &str {
    authority.host().trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(loopback: bool, named: &[&str], name: &str) -> bool {
        Hosts { loopback, named: named.iter().map(|&name| name.to_owned()).collect() }.answers(name)
    }

    #[test]
    fn on_loopback_only_names_of_this_machine_are_answered() {
        for name in ["localhost", "LocalHost", "127.0.0.1", "127.8.8.8", "[::1]", "annals", "log.example"] {
            assert!(answers(true, &["Log.Example"], name), "{name}");
        }
        for name in
            ["elsewhere.example", "localhost.elsewhere.example", "10.0.0.1", "[fe80::1]", "127.0.0.1.nip.io"]
        {
            assert!(!answers(true, &["log.example"], name), "{name}");
        }
    }

    #[test]
    fn elsewhere_names_are_checked_if_they_are_given() {
        assert!(answers(false, &[], "elsewhere.example"));
        assert!(
            answers(false, &["log.example"], "log.example") && answers(false, &["log.example"], "10.0.0.1")
        );
        assert!(!answers(false, &["log.example"], "elsewhere.example"));
        for container in ["annals", "annals-0", "LOCALHOST", "[fe80::1]"] {
            assert!(answers(false, &["log.example"], container), "{container}");
        }
        assert!(!answers(false, &["log.example"], "annals.shop.svc"));
    }

    #[test]
    fn a_name_may_be_given_with_a_port() {
        for (given, name) in [
            ("log.example", "log.example"),
            ("log.example:8443", "log.example"),
            ("log.example.", "log.example"),
            ("[fe80::1]:80", "[fe80::1]"),
            ("[fe80::1]", "[fe80::1]"),
            ("fe80::1", "fe80::1"),
        ] {
            assert_eq!(host_name(given), name);
        }
    }

    #[test]
    fn an_address_in_brackets_may_be_given_without() {
        assert!(!answers(true, &[], "[fd00::1]"));
        for given in ["fd00::1", "[fd00::1]", "FD00::1"] {
            assert!(answers(true, &[given], "[fd00::1]"), "{given}");
        }
    }

    #[test]
    fn a_refusal_names_what_to_set() {
        let refused = |hosts: &Hosts, host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("a name"));
            headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().expect("an origin"))));
            let checked = hosts.check(&Method::POST, &Uri::from_static("/v1/append"), &headers);
            checked.expect_err("it is foreign").detail().to_owned()
        };
        let hosts = Hosts { loopback: false, named: vec!["log.example".to_owned()] };
        let detail = refused(&hosts, "annals.shop.svc:2113", None);
        assert!(detail.contains("`annals.shop.svc`, only as `log.example`, localhost"), "{detail}");
        assert!(detail.contains("--host annals.shop.svc"), "{detail}");
        let hosts = Hosts { loopback: false, named: Vec::new() };
        let detail = refused(&hosts, "log.example", Some("http://log.example:8080"));
        assert!(detail.contains("--host log.example"), "{detail}");
    }

    #[test]
    fn our_own_page_behind_a_proxy_that_drops_the_port_is_recognized() {
        let hosts = Hosts { loopback: false, named: Vec::new() };
        let check = |host: &str, origin: &str, site: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("a name"));
            headers.insert(header::ORIGIN, origin.parse().expect("an origin"));
            headers.extend(site.map(|site| {
                (header::HeaderName::from_static("sec-fetch-site"), site.parse().expect("a word"))
            }));
            hosts.check(&Method::POST, &Uri::from_static("/v1/append"), &headers).is_ok()
        };
        let (host, origin) = ("log.example", "https://log.example:8443");
        assert!(check(host, origin, Some("same-origin")));
        for site in [None, Some("same-site"), Some("cross-site"), Some("none")] {
            assert!(
                !check(host, origin, site),
                "{site:?}: a page at another port of the same name is foreign"
            );
        }
        assert!(!check(host, "https://elsewhere.example", Some("same-origin")));
    }

    #[test]
    fn only_our_own_pages_change_anything() {
        let hosts = Hosts { loopback: true, named: vec!["log.example".to_owned()] };
        let check = |method: Method, origin: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "localhost:2113".parse().expect("a name and a port"));
            headers.insert(header::ORIGIN, origin.parse().expect("an origin is a value"));
            hosts.check(&method, &Uri::from_static("/v1/append"), &headers).is_ok()
        };
        for own in ["http://localhost:2113", "http://LOCALHOST:2113", "https://log.example"] {
            assert!(check(Method::POST, own), "{own}");
        }
        for foreign in
            ["http://elsewhere.example", "http://localhost", "http://localhost:2114", "null", "", "file://"]
        {
            assert!(!check(Method::POST, foreign) && !check(Method::DELETE, foreign), "{foreign}");
            assert!(check(Method::GET, foreign), "{foreign}");
        }
    }
}
