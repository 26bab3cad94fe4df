//! The mesh that a command is about, and what its processes answer.

use std::path::Path;

use bytes::Bytes;
use http::Method;
use mesh_api::admin::{CaStatus, ControlStatus, ObjectSummary, RegistryDump};
use mesh_api::model::ObjectRef;
use mesh_api::problem::Problem;
use serde::de::DeserializeOwned;

use crate::admin_client::{self, AskError, Connection};
use crate::args::GlobalArgs;
use crate::local::client::MeshStatus;
use crate::local::state::{LocalMeshState, LocateError, StateDirectory};
use crate::output;

/// A mesh that is up, or whose state is at least there.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// Where its files are.
    pub(crate) directory: StateDirectory,
    /// What is recorded of it.
    pub(crate) state: LocalMeshState,
}

impl Mesh {
    /// Finds the mesh that the flags mean. Says so when it has ended without being taken down.
    ///
    /// # Errors
    /// When there is none, or several.
    pub(crate) fn locate(global: &GlobalArgs) -> Result<Self, LocateError> {
        let (directory, state) = global.selection().locate()?;
        let mesh = Self { directory, state };
        if mesh.has_ended() {
            output::note(&format!(
                "mesh {} has ended; `meshctl down` cleans up, `meshctl up` starts it again",
                mesh.state.name
            ));
        }
        Ok(mesh)
    }

    /// Whether its first process, and with it all others, is gone.
    pub(crate) fn has_ended(&self) -> bool {
        !self.state.supervisor.is_alive()
    }

    /// The user's configuration folder.
    pub(crate) fn config(&self) -> &Path {
        &self.state.config
    }

    /// `GET /status` of the control plane.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn control_status(&self) -> Result<ControlStatus, AskError> {
        self.control("/status").await
    }

    /// `GET /ca` of the control plane.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn ca(&self) -> Result<CaStatus, AskError> {
        self.control("/ca").await
    }

    /// `GET /problems` of the control plane.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn problems(&self) -> Result<Vec<Problem>, AskError> {
        self.control("/problems").await
    }

    /// `GET /registry` of the control plane.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn registry(&self) -> Result<RegistryDump, AskError> {
        self.control("/registry").await
    }

    /// `GET /objects` of the control plane: every object in force.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn objects(&self) -> Result<Vec<ObjectSummary>, AskError> {
        self.control("/objects").await
    }

    /// `GET /objects` of the control plane: one object, if it is in force.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn object(&self, object: &ObjectRef) -> Result<Option<ObjectSummary>, AskError> {
        let path = format!(
            "/objects?kind={}&namespace={}&name={}",
            object.kind,
            encode(object.namespace.as_str()),
            encode(object.name.as_str())
        );
        let found: Vec<ObjectSummary> = self.control(&path).await?;
        Ok(found.into_iter().next())
    }

    /// `GET /ps` of the supervisor.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn processes(&self) -> Result<MeshStatus, AskError> {
        admin_client::get(&self.directory.supervisor_socket(), "/ps").await
    }

    /// Tells the control plane to obey what disappeared from a folder.
    ///
    /// # Errors
    /// When it does not answer, or there is nothing to confirm.
    pub(crate) async fn confirm(&self, folder: &str) -> Result<(), AskError> {
        let mut connection = Connection::open(&self.directory.control_socket()).await?;
        let path = format!("/sources/confirm?path={}", encode(folder));
        connection.ask(Method::POST, &path, Bytes::new()).await?.check()
    }

    /// `GET path` of a workload's proxy.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn proxy<T: DeserializeOwned>(&self, workload: &str, path: &str) -> Result<T, AskError> {
        admin_client::get(&self.directory.proxy_socket(workload), path).await
    }

    async fn control<T: DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        admin_client::get(&self.directory.control_socket(), path).await
    }
}

/// Percent-encodes a value of a query (RFC 3986, section 2.3: what is not unreserved).
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn only_unreserved_characters_stay() {
        assert_eq!(encode("/srv/my mesh+a&b"), "/srv/my%20mesh%2Ba%26b");
        assert_eq!(encode("ü"), "%C3%BC");
        assert_eq!(encode("info,mesh_proxy=debug"), "info%2Cmesh_proxy%3Ddebug");
    }
}
