//! Core kinds that are known by name only.

/// Fields of a ServiceAccount. Kubernetes' own secrets of it are none of the mesh's: identities come from
/// certificates.
pub(super) const SERVICE_ACCOUNT: [&str; 6] =
    ["apiVersion", "kind", "metadata", "secrets", "imagePullSecrets", "automountServiceAccountToken"];
