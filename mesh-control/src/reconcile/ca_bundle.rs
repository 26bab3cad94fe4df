//! The trust bundle in the webhook configurations: by it an API server knows the webhooks' certificate.
//!
//! Every configuration of the mesh, of whatever revision, gets the bundle of the one authority, in every
//! webhook; so it is when the bundle changes, and when somebody takes it away. A write names the version that
//! it was made from, so that it never undoes another's change: it is refused then, the watch brings the new
//! version, and that is looked at.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use json_patch::Patch as JsonPatch;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use mesh_api::error_chain::chain;
use mesh_identity::ca::Issuer;
use mesh_kube::name::{FIELD_MANAGER_CONTROL, LABEL_PART_OF, PART_OF};
use serde_json::{Value, json};

use crate::plane::Plane;
use crate::telemetry::metrics::webhook as metrics;

/// How often the bundle is compared, and failed writes are tried again.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Most configurations that are kept in mind; a mesh has two for each revision and one for each tag.
const CONFIGURATIONS_MAX: usize = 256;

/// Keeps the bundle in every configuration of the mesh.
pub(super) async fn run(client: &Client, plane: &Arc<Plane>) -> Infallible {
    tokio::select! {
        never = follow(client, ApiResource::erase::<MutatingWebhookConfiguration>(&()), plane) => never,
        never = follow(client, ApiResource::erase::<ValidatingWebhookConfiguration>(&()), plane) => never,
    }
}

/// One kind of configuration.
async fn follow(client: &Client, kind: ApiResource, plane: &Arc<Plane>) -> Infallible {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let config = watcher::Config::default().labels(&format!("{LABEL_PART_OF}={PART_OF}"));
    let mut events = watcher(api.clone(), config).default_backoff().boxed();
    let mut known: BTreeMap<String, DynamicObject> = BTreeMap::new();
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => {
                    if known.len() < CONFIGURATIONS_MAX || known.contains_key(&object.name_any()) {
                        known.insert(object.name_any(), object.clone());
                    }
                    settle(&api, &object, &bundle(plane)).await;
                }
                Some(Ok(watcher::Event::Delete(object))) => drop(known.remove(&object.name_any())),
                Some(Ok(watcher::Event::Init)) => known.clear(),
                Some(Ok(watcher::Event::InitDone)) => {}
                Some(Err(error)) => {
                    tracing::warn!(kind = kind.kind, error = chain(&error), "webhook configurations cannot be watched");
                }
                // A watch never ends by itself.
                None => std::future::pending().await,
            },
            _ = tick.tick() => {
                let bundle = bundle(plane);
                for object in known.values() {
                    settle(&api, object, &bundle).await;
                }
            }
        }
    }
}

/// The bundle as configurations have it: PEM, in base64.
fn bundle(plane: &Plane) -> String {
    STANDARD.encode(plane.issue.authority().trust_bundle().to_pem())
}

/// Writes the bundle where it is not.
async fn settle(api: &Api<DynamicObject>, object: &DynamicObject, bundle: &str) {
    let Some(patch) = correction(object, bundle) else { return };
    let name = object.name_any();
    let params =
        PatchParams { field_manager: Some(FIELD_MANAGER_CONTROL.to_owned()), ..PatchParams::default() };
    match api.patch(&name, &params, &Patch::<()>::Json(patch)).await {
        Ok(_) => {
            metrics::ca_write("written");
            tracing::info!(configuration = name, "the trust bundle was put into a webhook configuration");
        }
        Err(kube::Error::Api(status)) if status.code == 404 => metrics::ca_write("gone"),
        // Somebody was faster; the watch tells of it.
        Err(kube::Error::Api(status)) if status.code == 409 || status.code == 422 => {
            metrics::ca_write("conflict");
            tracing::debug!(
                configuration = name,
                reason = status.message,
                "a webhook configuration has changed"
            );
        }
        Err(error) => {
            metrics::ca_write("failed");
            tracing::warn!(
                configuration = name,
                error = chain(&error),
                "a webhook configuration lacks the trust bundle: the API server cannot call the webhook"
            );
        }
    }
}

/// What has to be changed for every webhook of a configuration to have the bundle; `None` when all have.
fn correction(object: &DynamicObject, bundle: &str) -> Option<JsonPatch> {
    let webhooks = object.data.get("webhooks").and_then(Value::as_array)?;
    let is_without = |webhook: &Value| {
        webhook.pointer("/clientConfig/caBundle").and_then(Value::as_str) != Some(bundle)
            && webhook.get("clientConfig").is_some_and(Value::is_object)
    };
    let places =
        webhooks.iter().enumerate().filter(|(_, webhook)| is_without(webhook)).map(|(index, _)| index);
    let mut operations: Vec<Value> = places
        .map(|index| {
            json!({"op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": bundle})
        })
        .collect();
    if operations.is_empty() {
        return None;
    }
    let version = object.metadata.resource_version.as_deref();
    operations.insert(0, json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}));
    serde_json::from_value(Value::Array(operations)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::api_server::ApiServer;

    fn configuration(webhooks: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "mini-mesh-injector", "resourceVersion": "7"}, "webhooks": webhooks,
        }))
        .expect("an object")
    }

    #[test]
    fn each_webhook_without_the_bundle_gets_it_and_no_other_is_touched() {
        let object = configuration(&json!([
            {"name": "a", "clientConfig": {"caBundle": "b3RoZXI="}},
            {"name": "b", "clientConfig": {"caBundle": "b3Vycw=="}},
            {"name": "c", "clientConfig": {"service": {"name": "mesh-control"}}},
        ]));
        let patch = correction(&object, "b3Vycw==").expect("something to do");
        let mut value = serde_json::to_value(&object).expect("JSON");
        json_patch::patch(&mut value, &patch).expect("applies");
        let bundles: Vec<_> =
            (0..3).map(|i| value["webhooks"][i]["clientConfig"]["caBundle"].clone()).collect();
        assert_eq!(bundles, ["b3Vycw=="; 3].map(Value::from));
        assert_eq!(patch.0.len(), 3, "the test and two places");
    }

    #[test]
    fn a_write_names_the_version_that_it_was_made_from() {
        let object = configuration(&json!([{"name": "a", "clientConfig": {}}]));
        let patch = correction(&object, "x").expect("something to do");
        let mut other = serde_json::to_value(&object).expect("JSON");
        other["metadata"]["resourceVersion"] = json!("8");
        assert!(json_patch::patch(&mut other, &patch).is_err());
    }

    #[test]
    fn a_configuration_that_is_right_or_has_no_webhooks_is_left_alone() {
        assert!(correction(&configuration(&json!([{"clientConfig": {"caBundle": "x"}}])), "x").is_none());
        assert!(correction(&configuration(&json!([])), "x").is_none());
        assert!(correction(&configuration(&Value::Null), "x").is_none());
        assert!(correction(&configuration(&json!([{"name": "odd", "clientConfig": 3}, 4])), "x").is_none());
    }

    #[tokio::test]
    async fn the_bundle_is_written_once_and_a_refusal_ends_nothing() {
        let server = ApiServer::new();
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/mini-mesh-injector";
        let kind = ApiResource::erase::<MutatingWebhookConfiguration>(&());
        let api: Api<DynamicObject> = Api::all_with(server.client(), &kind);
        let object = configuration(&json!([{"name": "a", "clientConfig": {"caBundle": "b3RoZXI="}}]));
        for code in [409, 422, 404, 500] {
            server.fail(path, code);
            settle(&api, &object, "b3Vycw==").await;
        }
        assert_eq!(server.asked(&http::Method::PATCH).len(), 4);
        let written = configuration(&json!([{"name": "a", "clientConfig": {"caBundle": "b3Vycw=="}}]));
        settle(&api, &written, "b3Vycw==").await;
        let asked = server.asked(&http::Method::PATCH);
        assert_eq!(asked.len(), 4, "what is right is not written");
        assert!(asked[0].query.contains("fieldManager=mesh-control"), "{}", asked[0].query);
    }
}
