//! The settings of the mesh as they stand in the cluster when this replica starts.
//!
//! They stand in the ConfigMap of the revision, under `mesh.yaml`, as a MeshConfig document. The trust domain
//! decides which authority is made, so nothing begins without them: settings that are absent or broken are
//! waited for, and never taken for the defaults. Later changes are the source's.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use mesh_api::error_chain::chain;
use mesh_api::manifest::{self, LowerContext, Object};
use mesh_api::model::MeshSettings;
use mesh_kube::name;
use tokio::time::timeout;

use crate::config::ClusterConfig;

/// Time for one answer of the API server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two looks while the settings cannot be used.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The API server does not answer in time.
    #[error("the API server did not answer within {ANSWER_TIMEOUT:?}")]
    Silent,
    /// The API server does not give them.
    #[error("the API server does not give ConfigMap {namespace}/{name}")]
    Api {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// There are none.
    #[error("there is no ConfigMap {namespace}/{name}; `meshctl install` makes it")]
    Absent {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// They are not a valid MeshConfig.
    #[error("key {} of ConfigMap {namespace}/{name} cannot be used: {reason}", name::CONFIG_MESH)]
    Invalid {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Every problem.
        reason: String,
    },
}

/// The settings, as soon as they can be used. Waits as long as it takes, and logs why when that changes.
pub async fn wait(client: &Client, cluster: &ClusterConfig) -> MeshSettings {
    let mut reported = String::new();
    loop {
        match read(client, cluster).await {
            Ok(settings) => return settings,
            Err(error) => {
                let reason = chain(&error).to_string();
                if reason != reported {
                    tracing::warn!(reason, "waiting for the settings of the mesh");
                    reported = reason;
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn read(client: &Client, cluster: &ClusterConfig) -> Result<MeshSettings, SettingsError> {
    let (namespace, name) = (cluster.namespace.to_string(), cluster.of_revision(name::CONFIG));
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let answer = timeout(ANSWER_TIMEOUT, api.get_opt(&name)).await.map_err(|_| SettingsError::Silent)?;
    let found = answer.map_err(|source| SettingsError::Api {
        namespace: namespace.clone(),
        name: name.clone(),
        source: Box::new(source),
    })?;
    let Some(found) = found else { return Err(SettingsError::Absent { namespace, name }) };
    let Some(text) = found.data.unwrap_or_default().remove(name::CONFIG_MESH) else {
        // The installation states nothing, so the defaults are what it means.
        return Ok(MeshSettings::default());
    };
    parse(&text, cluster).map_err(|reason| SettingsError::Invalid { namespace, name, reason })
}

/// Reads the document, which must be the only one.
fn parse(text: &str, cluster: &ClusterConfig) -> Result<MeshSettings, String> {
    let context = LowerContext {
        root_namespace: cluster.namespace.clone(),
        default_namespace: cluster.namespace.clone(),
        ..LowerContext::default()
    };
    let parsed = manifest::parse(name::CONFIG_MESH, text, &context);
    let mut settings = None;
    for document in parsed.documents {
        match document.outcome {
            Ok(Object::MeshConfig(object)) if settings.is_none() => settings = Some(object.settings),
            Ok(Object::MeshConfig(_)) => return Err("it holds two MeshConfig documents".to_owned()),
            Ok(other) => return Err(format!("it holds {}, which is no MeshConfig", other.object_ref())),
            Err(problems) => {
                let problems: Vec<_> = problems
                    .iter()
                    .map(|problem| {
                        format!("line {}: {}: {}", problem.origin.line, problem.field, problem.message)
                    })
                    .collect();
                return Err(problems.join("; "));
            }
        }
    }
    Ok(settings.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::name::Namespace;

    fn cluster() -> ClusterConfig {
        ClusterConfig {
            revision: "default".to_owned(),
            namespace: Namespace::parse("istio-system").expect("valid"),
            replica: "r".to_owned(),
            webhook_listen: "127.0.0.1:0".parse().expect("valid"),
        }
    }

    #[test]
    fn one_valid_document_is_the_settings_and_anything_else_is_an_error() {
        let good = "apiVersion: mini-mesh.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {trustDomain: prod.example}\n";
        assert_eq!(parse(good, &cluster()).expect("valid").trust_domain.as_str(), "prod.example");
        assert_eq!(parse("", &cluster()), Ok(MeshSettings::default()));
        for bad in
            [good.replace("trustDomain", "trustDomian"), format!("{good}---\n{good}"), "a: [".to_owned()]
        {
            assert!(parse(&bad, &cluster()).is_err(), "{bad}");
        }
        let service = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
        assert!(parse(service, &cluster()).expect_err("refused").contains("no MeshConfig"));
    }
}
