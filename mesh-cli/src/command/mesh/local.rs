//! A mesh on this machine.

use std::path::Path;

use bytes::Bytes;
use http::Method;
use mesh_api::admin::ControlStatus;

use super::{MeshError, encode, said};
use crate::admin_client::{self, AskError, Connection};
use crate::args::{GlobalArgs, Target};
use crate::command::{EXIT_USAGE, Failure};
use crate::local::client::MeshStatus;
use crate::local::state::{LocalMeshState, LocateError, StateDirectory};
use crate::output;

/// A mesh on this machine that is up, or whose state is at least there.
#[derive(Debug)]
pub(crate) struct LocalMesh {
    /// Where its files are.
    pub(crate) directory: StateDirectory,
    /// What is recorded of it.
    pub(crate) state: LocalMeshState,
}

impl LocalMesh {
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

    /// The mesh of a command that is for meshes on this machine only. `instead` says what does the same on a
    /// cluster. That a KUBECONFIG is set does not matter to it.
    ///
    /// # Errors
    /// When there is none, or a cluster was named.
    pub(crate) fn only(global: &GlobalArgs, instead: &str) -> Result<Self, Failure> {
        refuse_cluster(global, instead)?;
        Self::locate(global).map_err(|error| Failure::from(MeshError::from(error)))
    }

    /// Whether its first process, and with it all others, is gone.
    pub(crate) fn has_ended(&self) -> bool {
        !self.state.supervisor.is_alive()
    }

    /// The user's configuration folder.
    pub(crate) fn config(&self) -> &Path {
        &self.state.config
    }

    /// `GET /ps` of the supervisor.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn processes(&self) -> Result<MeshStatus, AskError> {
        admin_client::get(&self.directory.supervisor_socket(), "/ps").await
    }

    /// `GET /status` of the control plane.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn control_status(&self) -> Result<ControlStatus, AskError> {
        admin_client::get(&self.directory.control_socket(), "/status").await
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
}

/// Refuses when a cluster was named to a command that is for meshes on this machine.
///
/// # Errors
/// When one was.
pub(crate) fn refuse_cluster(global: &GlobalArgs, instead: &str) -> Result<(), Failure> {
    let is_named = global.context.is_some() || global.kubeconfig.is_some() || global.target.is_some();
    if is_named && said(global)? == Some(Target::Cluster) {
        return Err(for_machines(instead));
    }
    Ok(())
}

/// The failure of a command that is for meshes on this machine.
pub(crate) fn for_machines(instead: &str) -> Failure {
    Failure::new("this command is for a mesh on this machine, and a cluster was named")
        .hint(instead)
        .status(EXIT_USAGE)
}
