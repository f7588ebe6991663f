//! `annals serve`: serves a store over HTTP until a signal stops it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use annals_core::EventStore;
use annals_server::{Reload, Server, TlsFiles, TokenFile};
use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;

use crate::backup_storage::Destination;
use crate::maintenance::StoreMaintenance;
use crate::output::Output;
use crate::store::StoreOption;
use crate::{logging, memory, stop};

/// Serve a store over HTTP, with a console at /
#[derive(Args)]
#[command(after_help = "Examples:
  annals serve --store file:./data
  annals serve --store file:./data --listen 0.0.0.0:2113 --tokens ./tokens \\
      --tls-cert cert.pem --tls-key key.pem
  annals serve --store file:./data --verify-rate 10 --backup ./backups
  RUST_LOG=debug annals serve --store memory:

Without --tokens every client that reaches the address may read and append, so it must be a loopback address, unless \
--insecure is given. The files of tokens and certificates are read again when they change, and on SIGHUP. On SIGINT or \
SIGTERM the server finishes the requests in progress and exits; nothing acknowledged is lost.")]
pub(crate) struct Serve {
    #[command(flatten)]
    store: StoreOption,
    /// The address to listen on; port 0 selects a free port, and 0.0.0.0:2113 listens on every address of
    /// this machine
    #[arg(long, default_value = "127.0.0.1:2113", value_name = "HOST:PORT", value_parser = address)]
    listen: String,
    /// A name under which clients reach the server, such as that of a proxy; may be repeated. Requests for
    /// other names are refused, except localhost, addresses of this machine and names without a dot. If none
    /// is given and the server does not listen on a loopback address, every name is accepted
    #[arg(long = "host", value_name = "NAME", value_parser = host)]
    hosts: Vec<String>,
    /// Accept only clients with a token from this file, each with the rights of its token: see `annals token`
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Serve over TLS only, with this certificate, followed by those of its issuers, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve every client that reaches the address, even if other machines can reach it and there are no
    /// tokens
    #[arg(long, conflicts_with = "tokens")]
    insecure: bool,
    /// Verify the store in the background, repeatedly, reading at most this many MiB per second
    #[arg(long, value_name = "MIB", value_parser = crate::numbers::rate)]
    verify_rate: Option<u64>,
    /// Rewrite indexes of an earlier version in the background, as `annals migrate` does
    #[arg(long)]
    migrate: bool,
    /// The destination of backups requested with POST /v1/backup: a directory, s3://BUCKET/PATH, gs://… or
    /// az://…
    #[arg(long, value_name = "DESTINATION", value_parser = crate::address::parser::<Destination>())]
    backup: Option<Destination>,
    /// The number of backups to keep: after a backup, older ones are removed
    #[arg(long, value_name = "COUNT", requires = "backup", value_parser = crate::backup::count)]
    keep: Option<usize>,
}

impl Serve {
    /// Serves until a signal arrives.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        logging::start("info");
        memory::give_back()?;
        let doors = Doors::of(&self)?;
        let listener = listen(&self.listen).await?;
        check_address(&listener, doors.tokens.is_some(), doors.insecure)?;
        let scheme = if doors.tls.is_some() { "https" } else { "http" };
        let embedded = self.store.is_embedded();
        if self.verify_rate.is_none() && self.backup.is_none() && !self.migrate && !embedded {
            let store = self.store.open().await?;
            // The signal handlers are installed before the announcement: a process that reads it may send a
            // signal at once.
            let stop_requested = stop::asked()?;
            let server = server(store, self.hosts, doors)?;
            announce(&listener, scheme, &format!("serving {}", self.store.url))?;
            server.serve(listener, stop_requested).await?;
            return Ok(ExitCode::SUCCESS);
        }
        let store = self.store.create_embedded("verify, back up or migrate while it is served").await?;
        let care = StoreMaintenance::new(store.clone(), self.backup, self.keep);
        let stop_requested = stop::asked()?;
        let server = server(store.clone(), self.hosts, doors)?.maintenance(care.clone());
        announce(&listener, scheme, &format!("serving {}", self.store.url))?;
        let migrating = care.clone().migrate(self.migrate);
        let verifying = self.verify_rate.map(|rate| care.clone().verify_for_ever(rate));
        tokio::task::spawn_blocking({
            let care = care.clone();
            move || care.look_at_backups()
        });
        let served = server.serve(listener, async {
            stop_requested.await;
            // Before the server shuts down, so that a running backup ends and its request gets a response.
            care.stop();
        });
        let served = served.await;
        care.stop();
        for task in verifying.into_iter().chain(migrating) {
            task.await?;
        }
        served?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Parses a host name. URLs, patterns and non-ASCII letters are refused, because no request would ever match
/// them.
fn host(text: &str) -> Result<String, String> {
    if !text.is_ascii() {
        return Err(
            "give the name as browsers send it, in ASCII: `bücher.example` is `xn--bcher-kva.example`"
                .to_owned(),
        );
    }
    if text.contains('*') {
        return Err("is a pattern; give each name, the option may be repeated".to_owned());
    }
    if text.is_empty() || text.contains(['/', '@', '?', '#', ' ']) {
        return Err(
            "give the name of a host alone, such as `log.example`, without a scheme and a path".to_owned()
        );
    }
    Ok(text.to_owned())
}

/// Parses a listen address. An address without a host is refused instead of listening on every address of the
/// machine: every client that reaches one might read and append.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().is_ok();
    let problem = if text.is_empty() {
        "is empty: give HOST:PORT, such as 127.0.0.1:2113".to_owned()
    } else if text.contains("://") || text.contains(['/', '@', ' ']) {
        "is not HOST:PORT, such as 127.0.0.1:2113".to_owned()
    } else if is_port(text) || host.is_empty() && is_port(port) {
        let port = text.trim_start_matches(':');
        format!(
            "names no host: give HOST:PORT, such as 127.0.0.1:{port}, or 0.0.0.0:{port} for every address of this machine"
        )
    } else if v6(text) {
        format!("is HOST:PORT, with an address of IPv6 in brackets, such as [{text}]:2113")
    } else if text.ends_with(']') || !text.contains(':') {
        format!("names no port: give HOST:PORT, such as {text}:2113")
    } else if !is_port(port) {
        format!("has the port `{port}`, which is not a number from 0 to 65535")
    } else if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        "is not HOST:PORT; an IPv6 address must be in brackets, such as [::1]:2113".to_owned()
    } else {
        return Ok(text.to_owned());
    };
    Err(problem)
}

/// The options for admission: tokens, TLS and `--insecure`.
struct Doors {
    tokens: Option<TokenFile>,
    tls: Option<TlsFiles>,
    insecure: bool,
}

impl Doors {
    /// Reads the files that the command line names.
    fn of(serve: &Serve) -> anyhow::Result<Self> {
        let tokens = serve.tokens.clone().map(TokenFile::read).transpose().map_err(anyhow::Error::msg)?;
        let tls = match (&serve.tls_cert, &serve.tls_key) {
            (Some(certificate), Some(key)) => {
                Some(TlsFiles::read(certificate, key).map_err(anyhow::Error::msg)?)
            }
            _ => None,
        };
        Ok(Self { tokens, tls, insecure: serve.insecure })
    }

    fn furnish(self, mut server: Server) -> Server {
        if let Some(tokens) = self.tokens {
            server = server.tokens(tokens);
        }
        if let Some(tls) = self.tls {
            server = server.tls(tls);
        }
        if self.insecure { server.insecure() } else { server }
    }
}

/// A server over this store that accepts these host names.
fn server(store: Arc<dyn EventStore>, hosts: Vec<String>, doors: Doors) -> anyhow::Result<Server> {
    let reads_files = doors.tokens.is_some() || doors.tls.is_some();
    let server = hosts.into_iter().fold(Server::new(store), Server::host).metrics(logging::metrics);
    let server = doors.furnish(server);
    if reads_files {
        reload_when_hung_up(server.reload())?;
    }
    Ok(server)
}

/// Reloads the files on SIGHUP, which would otherwise end the process.
fn reload_when_hung_up(reload: Reload) -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        let mut hung_up = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
        tokio::spawn(async move {
            while hung_up.recv().await.is_some() {
                reload.now();
            }
        });
    }
    #[cfg(not(unix))]
    drop(reload);
    Ok(())
}

/// Binds the address.
pub(crate) async fn listen(address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Refuses an address at which every client would be admitted, before a store is opened. The server checks
/// this too.
pub(crate) fn check_address(listener: &TcpListener, has_tokens: bool, insecure: bool) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    if insecure || has_tokens || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let unguarded = annals_server::UNGUARDED;
    anyhow::bail!("{address} can be reached by other machines, and there are no tokens. {unguarded}");
}

/// Prints the line with the URL of the server. If standard output is closed or fails, it logs a warning and
/// the server runs.
pub(crate) fn announce(listener: &TcpListener, scheme: &str, what: &str) -> anyhow::Result<()> {
    let line = format!("annals: {what} at {scheme}://{}", listener.local_addr()?);
    let mut output = Output::standard();
    let written = output.line(&line).and_then(|()| output.flush());
    if let Err(error) = written {
        tracing::warn!("standard output cannot be written ({error}): {line}");
    } else if output.is_closed() {
        tracing::warn!("standard output cannot be written (its reader closed its end): {line}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for right in ["127.0.0.1:0", "localhost:2113", "0.0.0.0:65535", "[::1]:2113", "[::]:2113"] {
            assert_eq!(address(right).as_deref(), Ok(right));
        }
        for (wrong, message) in [
            (
                ":2113",
                "names no host: give HOST:PORT, such as 127.0.0.1:2113, or 0.0.0.0:2113 for every address",
            ),
            ("2113", "names no host: give HOST:PORT, such as 127.0.0.1:2113"),
            ("0.0.0.0", "names no port: give HOST:PORT, such as 0.0.0.0:2113"),
            ("localhost", "names no port: give HOST:PORT, such as localhost:2113"),
            ("[::1]", "names no port: give HOST:PORT, such as [::1]:2113"),
            ("::1", "such as [::1]:2113"),
            ("fd00::1:zz:2113", "must be in brackets"),
            ("localhost:", "has the port ``"),
            ("localhost:http", "has the port `http`"),
            ("localhost:65536", "has the port `65536`"),
            ("localhost:+1", "has the port `+1`"),
            ("http://localhost:2113", "is not HOST:PORT"),
            ("", "is empty"),
        ] {
            let problem = address(wrong).unwrap_err();
            assert!(problem.contains(message), "{wrong}: {problem}");
        }
    }

    #[test]
    fn a_foreign_host_is_refused() {
        for name in
            ["log.example", "annals_1", "log.example:8080", "[fd00::1]", "fd00::1", "xn--bcher-kva.example"]
        {
            assert!(host(name).is_ok(), "{name}");
        }
        for name in ["", "http://log.example", "log.example/annals", "a b", "*.example", "bücher.example"] {
            assert!(host(name).is_err(), "{name}");
        }
    }
}
