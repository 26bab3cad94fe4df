//! Certificates of the explicit proxies: the same kind that the mesh issues itself (ECDSA P-256, a SPIFFE id
//! as the only alternative name). Ours get theirs from their control plane.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::daemon::succeed;
use crate::process::command;

/// Identity of the client's side.
pub(crate) const CLIENT_ID: &str = "spiffe://cluster.local/ns/bench/sa/client";
/// Identity of the server's side.
pub(crate) const SERVER_ID: &str = "spiffe://cluster.local/ns/bench/sa/server";

/// One side's files.
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    /// Certificate, PEM.
    pub(crate) certificate: PathBuf,
    /// Private key, PEM.
    pub(crate) key: PathBuf,
    /// Certificate and key in one file, as haproxy wants it.
    pub(crate) bundle: PathBuf,
}

/// Both sides' files and their authority.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    /// Certificate of the authority, PEM.
    pub(crate) authority: PathBuf,
    /// Of proxy A.
    pub(crate) client: Credential,
    /// Of proxy B.
    pub(crate) server: Credential,
}

impl Certificates {
    /// Makes them in a folder.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let authority = folder.join("ca.pem");
        let authority_key = folder.join("ca.key");
        let mut make = request(&authority_key, "bench-ca");
        make.args(["-x509", "-days", "2", "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out"]);
        succeed(make.arg(&authority))?;
        let signer = Signer { folder, authority: &authority, key: &authority_key };
        let client = signer.issue("client", CLIENT_ID)?;
        let server = signer.issue("server", SERVER_ID)?;
        Ok(Self { authority, client, server })
    }
}

struct Signer<'a> {
    folder: &'a Path,
    authority: &'a Path,
    key: &'a Path,
}

impl Signer<'_> {
    fn issue(&self, name: &str, id: &str) -> Result<Credential> {
        let [certificate, key, bundle, csr, extensions] =
            ["crt", "key", "bundle", "csr", "ext"].map(|end| self.folder.join(format!("{name}.{end}")));
        succeed(request(&key, name).arg("-out").arg(&csr))?;
        fs::write(
            &extensions,
            format!(
                "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                 extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=URI:{id}\n"
            ),
        )?;
        let mut sign = command("openssl", &["x509", "-req", "-days", "1", "-CAcreateserial", "-in"]);
        sign.arg(&csr).arg("-CA").arg(self.authority).arg("-CAkey").arg(self.key);
        sign.arg("-extfile").arg(&extensions).arg("-out").arg(&certificate);
        succeed(&mut sign)?;
        fs::write(&bundle, format!("{}{}", fs::read_to_string(&certificate)?, fs::read_to_string(&key)?))?;
        Ok(Credential { certificate, key, bundle })
    }
}

/// A new P-256 key and a request, or with `-x509` a certificate, for a common name.
fn request(key: &Path, common_name: &str) -> std::process::Command {
    let mut request = command("openssl", &["req", "-new", "-newkey", "ec", "-pkeyopt"]);
    request.args(["ec_paramgen_curve:P-256", "-nodes", "-subj", &format!("/CN={common_name}"), "-keyout"]);
    request.arg(key);
    request
}
