//! TLS, and addresses that others than this machine reach.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::MemoryStore;
use annals_server::{Server, TlsFiles, TokenFile};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::rights::{Tokens, grant};
use crate::support::{HANG, Running};

/// Writes a certificate for localhost and its key, and returns the certificate.
fn certify(folder: &Path, key_too: bool) -> CertificateDer<'static> {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), cert.pem()).unwrap();
    if key_too {
        std::fs::write(folder.join("key.pem"), signing_key.serialize_pem()).unwrap();
    }
    CertificateDer::from_pem_slice(cert.pem().as_bytes()).unwrap()
}

fn files(folder: &Path) -> Result<TlsFiles, String> {
    TlsFiles::read(folder.join("cert.pem"), folder.join("key.pem"))
}

/// Asks once over TLS, trusting this certificate.
fn ask(server: &Running, trusted: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let client = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap());
    let socket = TcpStream::connect(server.address)?;
    socket.set_read_timeout(Some(HANG))?;
    let mut stream = StreamOwned::new(client.unwrap(), socket);
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

#[test]
fn a_renewed_certificate_is_used_once_its_key_matches() {
    let folder = TempDir::new().unwrap();
    let first = certify(folder.path(), true);
    let tls = files(folder.path()).unwrap();
    let server = Running::with(Arc::new(MemoryStore::new()), |server| server.tls(tls));
    assert!(ask(&server, &first).unwrap().starts_with("HTTP/1.1 200"));
    let half = certify(folder.path(), false);
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(
        ask(&server, &first).is_ok() && ask(&server, &half).is_err(),
        "half of a renewal changes nothing"
    );
    let second = certify(folder.path(), true);
    let begun = Instant::now();
    while ask(&server, &second).is_err() {
        assert!(begun.elapsed() < HANG);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(ask(&server, &first).is_err());
    let mut plain = server.connect();
    plain.write_all(b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "a client without TLS is answered nothing");
}

#[test]
fn files_that_are_no_certificate_and_key_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    assert!(files(folder.path()).unwrap_err().contains("cert.pem"));
    certify(folder.path(), true);
    assert!(files(folder.path()).is_ok());
    certify(folder.path(), false);
    assert!(files(folder.path()).unwrap_err().contains("are not a certificate and its key"));
    for (name, problem) in [("cert.pem", "has no certificate"), ("key.pem", "has no private key")] {
        certify(folder.path(), true);
        std::fs::write(folder.path().join(name), "nothing").unwrap();
        let refused = files(folder.path()).unwrap_err();
        assert!(refused.contains(name) && refused.contains(problem), "{refused}");
    }
}

/// What a server on an address of every interface says; it ends at once.
fn served_everywhere(furnish: impl FnOnce(Server) -> Server) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        furnish(Server::new(Arc::new(MemoryStore::new()))).serve(listener, async {}).await
    })
}

#[test]
fn an_address_that_others_reach_wants_tokens_or_a_word() {
    let refused = served_everywhere(|server| server).unwrap_err().to_string();
    assert!(refused.contains("no tokens") && refused.contains("--insecure"), "{refused}");
    served_everywhere(Server::insecure).unwrap();
    let mut tokens = Tokens::new();
    tokens.add(&grant("a", &["*"], &[]));
    served_everywhere(|server| server.tokens(TokenFile::read(tokens.path()).unwrap())).unwrap();
    let folder = TempDir::new().unwrap();
    certify(folder.path(), true);
    let alone = served_everywhere(|server| server.tls(files(folder.path()).unwrap()));
    assert!(alone.is_err(), "TLS without tokens lets everybody in");
}
