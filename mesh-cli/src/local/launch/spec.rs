//! What is to be started and how: written by the supervisor for each process, read by the launcher.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::local::privilege::{Credentials, PROXY_UID, Privilege};

/// A program and its confinement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LaunchSpec {
    /// What the program is to the mesh.
    pub(crate) role: Role,
    /// With what privilege the mesh runs.
    pub(crate) privilege: Privilege,
    /// File that keeps the network namespace; `None` stays in the supervisor's.
    pub(crate) network: Option<PathBuf>,
    /// Host name; `None` keeps the machine's.
    pub(crate) hostname: Option<String>,
    /// What is changed in its view of the file system, in order.
    pub(crate) mounts: Vec<Mount>,
    /// Working directory.
    pub(crate) directory: PathBuf,
    /// Whether the user must be able to enter it.
    pub(crate) is_directory_required: bool,
    /// The whole environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// Words of the command.
    pub(crate) command: Vec<String>,
}

/// What a program is to the mesh, which decides what it may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// An application: an unprivileged user without any capability.
    App(Credentials),
    /// A proxy: a user of its own with `CAP_NET_ADMIN`, which marking packets needs.
    Proxy,
    /// The control plane: it reads the user's configuration wherever that lies, and nothing more.
    Control,
}

/// A change of the view of the file system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mount {
    /// What is mounted at `target` is let go, so that this program does not keep it from going away.
    Release {
        /// Where.
        target: PathBuf,
    },
    /// `source` is seen at `target`, which exists. Links are followed.
    Bind {
        /// What is seen.
        source: PathBuf,
        /// Where.
        target: PathBuf,
    },
    /// The folder `target` is seen empty.
    Empty {
        /// Where.
        target: PathBuf,
    },
    /// The folder `target` is seen with these entries only, each bound to its source.
    Only {
        /// Where.
        target: PathBuf,
        /// Names and sources.
        entries: BTreeMap<String, PathBuf>,
    },
    /// `target`, if it is there, is seen as something that nobody can connect to.
    Mask {
        /// Where.
        target: PathBuf,
    },
}

impl LaunchSpec {
    /// The user, for messages.
    pub(super) fn user_text(&self) -> String {
        match (&self.role, self.privilege) {
            (Role::App(user), _) => user.to_string(),
            (Role::Proxy, Privilege::Root) => PROXY_UID.to_string(),
            (Role::Proxy | Role::Control, Privilege::Namespaced { uid, .. }) => uid.to_string(),
            (Role::Control, Privilege::Root) => "root".to_owned(),
        }
    }
}
