//! Taking injection out of a pod again.
//!
//! What was added is known by its name, and by the status annotation for labels and annotations; probes are in
//! the proxy's environment. Named ports of probes come back as numbers.

use mesh_api::model::probe::{APP_PROBES_ENV, AppProbes};
use serde_json::{Map, Value};

use super::{pod, probes};
use crate::name;

/// The pod without its proxy; `None` when it has none of this mesh.
#[must_use]
pub fn uninject(pod: &Value) -> Option<Value> {
    let annotations = pod::metadata(pod, "annotations");
    let status: Value = serde_json::from_str(annotations.get(name::ANNOTATION_STATUS)?).ok()?;
    let proxy =
        pod::containers(pod).find(|container| pod::text(container, "name") == name::PROXY_CONTAINER)?;
    let originals = original_probes(proxy);
    let mut new = pod.clone();
    let spec = new.get_mut("spec")?.as_object_mut()?;
    for field in pod::CONTAINER_LISTS {
        drop_named(spec, field, &[name::PROXY_CONTAINER, name::INIT_CONTAINER]);
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            probes::restore(container, &originals.0);
        }
    }
    drop_named(spec, "volumes", &[name::VOLUME_TOKEN, name::VOLUME_ROOT]);
    let secrets = status.get("imagePullSecrets").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let secrets: Vec<&str> = secrets.iter().filter_map(Value::as_str).collect();
    drop_named(spec, "imagePullSecrets", &secrets);
    let metadata = new.get_mut("metadata")?.as_object_mut()?;
    for field in ["labels", "annotations"] {
        let added = status.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if let Some(map) = metadata.get_mut(field).and_then(Value::as_object_mut) {
            map.retain(|key, _| {
                key != name::ANNOTATION_STATUS && !added.iter().any(|added| added.as_str() == Some(key))
            });
            if map.is_empty() {
                metadata.remove(field);
            }
        }
    }
    Some(new)
}

fn original_probes(proxy: &Value) -> AppProbes {
    let env = proxy.get("env").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let value = env.iter().find(|entry| pod::text(entry, "name") == APP_PROBES_ENV);
    let text = value.map(|entry| pod::text(entry, "value").replace("$$", "$")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Drops items by name, and the list with the last of them.
fn drop_named(spec: &mut Map<String, Value>, field: &str, names: &[&str]) {
    let Some(items) = spec.get_mut(field).and_then(Value::as_array_mut) else { return };
    let before = items.len();
    items.retain(|item| !names.contains(&pod::text(item, "name")));
    if items.is_empty() && before > 0 {
        spec.remove(field);
    }
}
