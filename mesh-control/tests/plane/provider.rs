//! An identity provider on loopback, over TLS of an authority of its own, that answers as it is told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What is said at a path.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A body with status 200.
    Body(String),
    /// Fields and a body after status 200.
    With(&'static str, Vec<u8>),
    /// Another place.
    Redirect(String),
    /// Bytes again and again, with a pause between them.
    Forever(Vec<u8>, Duration),
    /// Nothing.
    Silence,
}

/// The provider. It is gone when it is dropped.
pub(crate) struct Provider {
    port: u16,
    acceptor: TlsAcceptor,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    requests: Arc<AtomicUsize>,
    serving: Option<JoinHandle<()>>,
}

/// A JWKS of one key.
pub(crate) fn jwks(key_id: &str) -> Answer {
    let key = r#"{"kty":"EC","crv":"P-256","x":"1","y":"2","d":"secret","kid":"KID"}"#;
    Answer::Body(format!(r#"{{"keys":[{}]}}"#, key.replace("KID", key_id)))
}

impl Provider {
    /// Starts one, and writes the certificate of its authority to a file.
    pub(crate) async fn start(authority: &Path) -> Self {
        let mut root = CertificateParams::new(Vec::new()).expect("parameters");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(root, KeyPair::generate().expect("a key")).expect("signed");
        std::fs::write(authority, root.pem()).expect("written");
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
        let leaf = leaf.signed_by(&key, &root).expect("signed");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .expect("a certificate");
        let mut provider = Self {
            port: 0,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            answers: Arc::default(),
            requests: Arc::default(),
            serving: None,
        };
        provider.resume().await;
        provider
    }

    /// Serves again, at the same port.
    pub(crate) async fn resume(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("bound");
        self.port = listener.local_addr().expect("known").port();
        let (acceptor, answers) = (self.acceptor.clone(), Arc::clone(&self.answers));
        let requests = Arc::clone(&self.requests);
        self.serving = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answers) = (acceptor.clone(), Arc::clone(&answers));
                let requests = Arc::clone(&requests);
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_gone) => return,
                        }
                    }
                    requests.fetch_add(1, Ordering::Relaxed);
                    let path =
                        String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
                    let answer = answers.lock().expect("unpoisoned").get(&path).cloned();
                    say(&mut stream, answer).await;
                });
            }
        }));
    }

    /// Is down.
    pub(crate) async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            assert!(serving.await.is_err(), "it had ended by itself");
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    /// What is said at a path from now on.
    pub(crate) fn answer(&self, path: &str, answer: Answer) {
        self.answers.lock().expect("unpoisoned").insert(path.to_owned(), answer);
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

async fn say(stream: &mut (impl AsyncWriteExt + Unpin), answer: Option<Answer>) {
    let head = |status: &str, fields: &str, length: usize| {
        format!("HTTP/1.1 {status}\r\n{fields}content-length: {length}\r\n\r\n").into_bytes()
    };
    let first = match &answer {
        None => head("404 Not Found", "", 0),
        Some(Answer::Body(body)) => [head("200 OK", "", body.len()), body.clone().into_bytes()].concat(),
        Some(Answer::With(fields, body)) => [head("200 OK", fields, body.len()), body.clone()].concat(),
        Some(Answer::Redirect(to)) => head("302 Found", &format!("location: {to}\r\n"), 0),
        Some(Answer::Forever(..)) => head("200 OK", "", usize::MAX >> 1),
        Some(Answer::Silence) => Vec::new(),
    };
    let mut alive = stream.write_all(&first).await.is_ok() && stream.flush().await.is_ok();
    if let Some(Answer::Silence) = &answer {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    while let (true, Some(Answer::Forever(bytes, pause))) = (alive, &answer) {
        tokio::time::sleep(*pause).await;
        alive = stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok();
    }
    // When the peer has gone there is nobody to say goodbye to.
    drop(stream.shutdown().await);
}
