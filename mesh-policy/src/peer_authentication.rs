//! The effective mutual-TLS mode of a workload and of its ports (SEMANTICS 3.2).
//!
//! One policy wins at each level (mesh, namespace, workload), the oldest, even when it says UNSET; what it
//! leaves out comes from the level above. A younger policy at the same level is reported as a conflict and
//! otherwise ignored, because silently merging two would hide which one is in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::model::{MeshSettings, MtlsMode, ObjectRef, PeerAuthentication};
use mesh_api::problem::{Problem, Severity};

use crate::select::Subject;

/// The effective modes of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MtlsResolution {
    /// Mode of every port that `ports` does not list.
    pub mode: MtlsMode,
    /// Modes of single target ports.
    pub ports: BTreeMap<u16, MtlsMode>,
    /// The policy that states `mode`, if one does.
    stated_by: Option<ObjectRef>,
    /// The same for single target ports.
    ports_stated_by: BTreeMap<u16, ObjectRef>,
    /// The policies in force: mesh, namespace, workload level, as far as they exist.
    pub used: Vec<ObjectRef>,
    /// Policies that lost against an older one of their level, and policies without effect.
    pub conflicts: Vec<Problem>,
}

impl MtlsResolution {
    /// Mode of a target port, declared by a service or not.
    #[must_use]
    pub fn mode_for_port(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }

    /// The policy that states the mode of a target port; `None` when none does and the default holds.
    #[must_use]
    pub fn decided_by(&self, port: u16) -> Option<&ObjectRef> {
        self.ports_stated_by.get(&port).or(self.stated_by.as_ref())
    }
}

/// At which level a policy speaks for a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Mesh,
    Namespace,
    Workload,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Namespace => "namespace",
            Self::Workload => "workload",
        }
    }
}

/// Resolves the modes of `subject` from the PeerAuthentications of the mesh; those that do not concern it
/// may be among them.
#[must_use]
pub fn resolve(
    mesh: &MeshSettings,
    subject: &Subject<'_>,
    policies: &[Arc<PeerAuthentication>],
) -> MtlsResolution {
    let mut resolution = MtlsResolution::default();
    for level in [Level::Mesh, Level::Namespace, Level::Workload] {
        let mut candidates: Vec<_> =
            policies.iter().filter(|policy| level_of(mesh, subject, policy) == Some(level)).collect();
        candidates.sort_by(|a, b| a.meta.age_key().cmp(&b.meta.age_key()));
        let Some((winner, losers)) = candidates.split_first() else { continue };
        resolution.used.push(winner.meta.object.clone());
        if let Some(mode) = winner.mode {
            resolution.mode = mode;
            resolution.stated_by = Some(winner.meta.object.clone());
        }
        if level == Level::Workload {
            let inherited = resolution.mode;
            resolution.ports =
                winner.port_level.iter().map(|(port, mode)| (*port, mode.unwrap_or(inherited))).collect();
            let stated = winner.port_level.iter().filter(|(_, mode)| mode.is_some());
            resolution.ports_stated_by =
                stated.map(|(port, _)| (*port, winner.meta.object.clone())).collect();
        }
        resolution.conflicts.extend(losers.iter().map(|loser| shadowed(level, winner, loser)));
    }
    resolution
}

/// The policies among `policies` that have a say in the modes of `subject`, oldest first.
#[must_use]
pub fn relevant(
    mesh: &MeshSettings,
    subject: &Subject<'_>,
    policies: &[Arc<PeerAuthentication>],
) -> Vec<Arc<PeerAuthentication>> {
    let mut relevant: Vec<_> =
        policies.iter().filter(|policy| level_of(mesh, subject, policy).is_some()).map(Arc::clone).collect();
    relevant.sort_by(|a, b| a.meta.age_key().cmp(&b.meta.age_key()));
    relevant
}

/// A selector in the root namespace reaches nobody (SEMANTICS C1), not even workloads of that namespace; what
/// is tried only ([`crate::trial`]) has no say.
fn level_of(mesh: &MeshSettings, subject: &Subject<'_>, policy: &PeerAuthentication) -> Option<Level> {
    let namespace = &policy.meta.object.namespace;
    if !policy.meta.is_in_force() {
        return None;
    }
    match (*namespace == mesh.root_namespace, policy.selector.is_empty()) {
        (true, true) => Some(Level::Mesh),
        (true, false) => None,
        (false, true) => (namespace == subject.namespace).then_some(Level::Namespace),
        (false, false) => (namespace == subject.namespace && policy.selector.selects(subject.labels))
            .then_some(Level::Workload),
    }
}

fn shadowed(level: Level, winner: &PeerAuthentication, loser: &PeerAuthentication) -> Problem {
    Problem {
        code: "MM0201".to_owned(),
        severity: Severity::Warning,
        object: Some(loser.meta.object.clone()),
        origin: loser.meta.origin.clone(),
        field: String::new(),
        message: format!(
            "has no effect: the older {} is in force at the {} level",
            winner.meta.object,
            level.as_str()
        ),
        hint: "Keep one PeerAuthentication for each level; the oldest wins, whatever it says.".to_owned(),
    }
}
