//! The proxy of a workload: started with a join token, watched until it is ready and from then on.
//!
//! A token can be used once and is bound to the workload's identity. There is a new one for each start, and
//! one whenever the proxy says that it waits for its identity: its certificate may have expired while the
//! machine slept, and then the token is its only way back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use mesh_api::admin::{JoinTokenRequest, JoinTokenResponse, ReadyStatus};
use mesh_api::name::{SpiffeId, TrustDomain};

use super::board::Subject;
use super::control_plane;
use super::keeper::{Charge, Refusal};
use super::process::{Process, StartError, launch};
use super::site::{Site, resolver_mounts};
use crate::admin_client::{self, Connection};
use crate::local::client::Phase;
use crate::local::launch::{LaunchSpec, Mount, Role};
use crate::local::mesh_file::RestartPolicy;
use crate::local::privilege::{PROXY_UID, Privilege};
use crate::local::state;
use crate::output;

/// Life of a join token. The proxy that it is for starts within a moment.
const TOKEN_TTL_SECONDS: u64 = 300;
/// Between questions whether it is ready.
const UNTIL_READY: Duration = Duration::from_millis(20);
/// Between looks once it is.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// A proxy without an identity gets another token after so long.
const TOKEN_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Time that a proxy is given to drain. It is told below that time.
const GRACE: Duration = Duration::from_secs(4);
/// How long it drains at most.
const DRAIN: &str = "3s";

/// The proxy of a workload.
pub(crate) struct Proxy(pub(crate) Rc<Site>);

impl Proxy {
    fn folder(&self) -> PathBuf {
        self.0.context.directory.run(&self.0.workload.id()).join("proxy")
    }

    fn spec(&self, trust_domain: &TrustDomain) -> LaunchSpec {
        let site = &self.0;
        let context = &site.context;
        let plan = context.plan();
        let id = site.workload.id();
        // All it sees of the state directory is its own, below names that are the same for every proxy.
        let entries = BTreeMap::from([
            ("mesh-proxy".to_owned(), context.programs.proxy.clone()),
            ("proxy".to_owned(), self.folder()),
            ("access.log".to_owned(), context.directory.log(&format!("{id}.access"))),
        ]);
        let mut mounts = vec![Mount::Release { target: context.directory.networks() }];
        mounts.extend(resolver_mounts(&context.directory.run(&id).join("proxy-resolv.conf")));
        mounts.push(Mount::Only { target: context.directory.path().to_owned(), entries });
        let any = if context.has_ipv6 { "[::]" } else { "0.0.0.0" };
        let flags = [
            ("node-id", id.clone()),
            ("control", format!("{}:{}", plan.network.hub().v4(), control_plane::PORT)),
            ("control-root-cert", "proxy/root-cert.pem".to_owned()),
            ("trust-domain", trust_domain.as_str().to_owned()),
            ("join-token-file", "proxy/join-token".to_owned()),
            ("admin-socket", "proxy/admin.sock".to_owned()),
            ("status-listen", format!("{any}:15021")),
            ("access-log", "access.log".to_owned()),
            ("drain-deadline", DRAIN.to_owned()),
        ];
        let mut command = vec!["./mesh-proxy".to_owned(), "run".to_owned()];
        command.extend(flags.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]));
        LaunchSpec {
            role: Role::Proxy,
            privilege: plan.privilege,
            network: Some(context.directory.network(&id)),
            hostname: Some(site.workload.name.clone()),
            mounts,
            directory: context.directory.path().to_owned(),
            is_directory_required: false,
            environment: BTreeMap::new(),
            command,
        }
    }

    /// Makes its folder and files, all of which are its own.
    fn prepare(&self, trust_domain: &TrustDomain) -> Result<PathBuf, StartError> {
        let context = &self.0.context;
        let id = self.0.workload.id();
        let spec = context.directory.run(&id).join("proxy.json");
        let files = || -> std::io::Result<()> {
            let folder = self.folder();
            fs::create_dir_all(&folder)?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
            self.give(&folder)?;
            match fs::remove_file(folder.join("admin.sock")) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let log = context.directory.log(&format!("{id}.access"));
            fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&log)?;
            self.give(&log)?;
            self.hand_over("root-cert.pem", &fs::read(context.directory.root_cert())?)
        };
        files().map_err(|error| StartError::prepare("lay out its files", &error))?;
        state::write_json(&spec, &self.spec(trust_domain))
            .map_err(|error| StartError::prepare("describe it", &error))?;
        Ok(spec)
    }

    /// Gives it a join token, and with it the roots that hold now.
    async fn give_token(&self, trust_domain: &TrustDomain) -> Result<(), StartError> {
        let workload = &self.0.workload;
        let id = SpiffeId::for_workload(trust_domain, &workload.namespace, &workload.service_account);
        let request = JoinTokenRequest { spiffe_id: id.as_str().to_owned(), ttl_seconds: TOKEN_TTL_SECONDS };
        let answer: JoinTokenResponse =
            admin_client::post(Path::new("control/admin.sock"), "/tokens", &request)
                .await
                .map_err(|error| StartError::prepare("get a join token from the control plane", &error))?;
        let write = || {
            self.hand_over("root-cert.pem", &fs::read(self.0.context.directory.root_cert())?)?;
            self.hand_over("join-token", answer.token.as_bytes())
        };
        write().map_err(|error| StartError::prepare("write its join token", &error))
    }

    /// Writes a file of the proxy's, complete or not at all.
    fn hand_over(&self, name: &str, content: &[u8]) -> std::io::Result<()> {
        let path = self.folder().join(name);
        let temporary = self.folder().join(format!(".{name}.new"));
        // The folder is the proxy's: what stands there under that name is not followed.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        std::io::Write::write_all(&mut file, content)?;
        if self.0.context.plan().privilege == Privilege::Root {
            std::os::unix::fs::fchown(&file, Some(PROXY_UID), Some(PROXY_UID))?;
        }
        fs::rename(&temporary, &path)
    }

    /// Makes a path the proxy's own. In a user namespace everything is the same user's anyway.
    fn give(&self, path: &Path) -> std::io::Result<()> {
        if self.0.context.plan().privilege == Privilege::Root {
            chown(path, Some(PROXY_UID), Some(PROXY_UID))?;
        }
        Ok(())
    }

    async fn readiness(&self) -> Result<ReadyStatus, String> {
        let socket = PathBuf::from("run").join(self.0.workload.id()).join("proxy/admin.sock");
        let mut connection = Connection::open(&socket).await.map_err(|error| output::chain(&error))?;
        let answer = connection
            .ask(Method::GET, "/ready", Bytes::new())
            .await
            .map_err(|error| output::chain(&error))?;
        // The status says the same as the body, which is there when it is not ready too.
        serde_json::from_slice(&answer.body).map_err(|error| error.to_string())
    }

    fn tell(&self, phase: Phase, message: String) {
        self.0.context.board.update(&self.subject(), |status| {
            status.phase = phase;
            status.message = message;
        });
    }

    async fn renew_token(&self) {
        let trust_domain = self.0.context.control.borrow().clone();
        let Some(trust_domain) = trust_domain else { return };
        if let Err(error) = self.give_token(&trust_domain).await {
            output::note(&format!("{}: {}", self.subject(), output::chain(&error)));
        }
    }
}

/// Whether a proxy waits for what only a token can give it.
fn lacks_identity(ready: &ReadyStatus) -> bool {
    ready.waiting_for.iter().any(|missing| missing.contains("identity") || missing.contains("certificate"))
}

impl Charge for Proxy {
    fn subject(&self) -> Subject {
        Subject::Proxy(self.0.workload.id())
    }

    fn restart(&self) -> RestartPolicy {
        RestartPolicy::Always
    }

    fn refusal(&self) -> Refusal {
        Refusal::TryAgain
    }

    fn grace(&self) -> Duration {
        GRACE
    }

    async fn start(&self) -> Result<Process, StartError> {
        let context = &self.0.context;
        context.board.pending(&self.subject(), "waits for its network");
        self.0.make_network().await?;
        context.board.pending(&self.subject(), "waits for the control plane");
        let trust_domain = {
            let mut control = context.control.subscribe();
            let known = control.wait_for(Option::is_some).await;
            known.ok().and_then(|known| known.clone())
        };
        let trust_domain = trust_domain.ok_or_else(|| StartError::Prepare {
            step: "wait for the control plane",
            reason: "the mesh goes down".to_owned(),
        })?;
        let spec = self.prepare(&trust_domain)?;
        self.give_token(&trust_domain).await?;
        launch(context, &spec, &context.directory.log(&format!("{}.proxy", self.0.workload.id()))).await
    }

    async fn attend(&self) {
        let mut token_given = Instant::now();
        let mut pause = UNTIL_READY;
        loop {
            match self.readiness().await {
                Ok(ready) if ready.ready => {
                    self.tell(Phase::Running, String::new());
                    self.0.ready.send_replace(true);
                    pause = BETWEEN_LOOKS;
                }
                Ok(ready) => {
                    self.tell(Phase::Starting, format!("waits for {}", ready.waiting_for.join(", ")));
                    if lacks_identity(&ready) && token_given.elapsed() >= TOKEN_AGAIN_AFTER {
                        self.renew_token().await;
                        token_given = Instant::now();
                    }
                }
                Err(message) => {
                    self.0.context.board.update(&self.subject(), |status| status.message = message);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn ended(&self) {
        self.0.ready.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(missing: &[&str]) -> ReadyStatus {
        ReadyStatus {
            ready: false,
            waiting_for: missing.iter().map(|text| (*text).to_owned()).collect(),
            draining: false,
            control_plane_silent_seconds: None,
            control_plane_connected: false,
        }
    }

    #[test]
    fn a_token_helps_only_who_lacks_an_identity() {
        assert!(lacks_identity(&waiting(&["configuration", "identity"])));
        assert!(lacks_identity(&waiting(&["a valid certificate"])));
        assert!(!lacks_identity(&waiting(&["configuration", "listeners"])));
    }
}
