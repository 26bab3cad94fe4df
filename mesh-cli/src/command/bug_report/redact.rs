//! What does not leave the cluster in a report (pure).

use std::borrow::Cow;
use std::sync::LazyLock;

use mesh_kube::name;
use regex::Regex;
use serde_json::Value;

/// What stands in place of it.
const BLACK: &str = "[redacted]";
/// JSON Web Tokens, private keys, credentials in headers and addresses, and values of names that say so.
static SECRET: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?s)eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
        r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----",
        r"|(?i:bearer|basic)\s+[A-Za-z0-9._~+/=-]{12,}",
        r"|://[^/\s:@]+:[^/\s@]+@",
        r#"|(?i:password|passwd|secret|api[_-]?key|access[_-]?token)"?\s*[=:]\s*"?[^\s",;&]{4,}"#,
    ))
    .ok()
});

/// A text without secrets. Without the means to find them, nothing of it.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    match SECRET.as_ref() {
        Some(secret) => secret.replace_all(text, BLACK),
        None => Cow::Borrowed(BLACK),
    }
}

/// An object without what belongs to applications alone: environment, arguments and commands of foreign
/// containers, and what tools keep of earlier states.
pub(super) fn object(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    if object["kind"] == "Secret" {
        for field in ["data", "stringData"] {
            if !object[field].is_null() {
                object[field] = BLACK.into();
            }
        }
    }
    for path in ["/spec", "/spec/template/spec", "/spec/jobTemplate/spec/template/spec"] {
        if let Some(pod) = object.pointer_mut(path) {
            containers(pod);
        }
    }
}

fn containers(pod: &mut Value) {
    const OURS: [&str; 3] = [name::PROXY_CONTAINER, name::INIT_CONTAINER, name::CONTROL];
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in pod[list].as_array_mut().into_iter().flatten() {
            let is_ours = container["name"].as_str().is_some_and(|name| OURS.contains(&name));
            for variable in container["env"].as_array_mut().into_iter().flatten() {
                if !is_ours && variable.get("value").is_some() {
                    variable["value"] = BLACK.into();
                }
            }
            for field in ["args", "command"] {
                if !is_ours && container.get(field).is_some() {
                    container[field] = BLACK.into();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_blacked_out() {
        for secret in [
            "Authorization: Bearer abcdef0123456789abcdef",
            "token eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl",
            "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----",
            "postgres://user:hunter22@db/x",
            "password=hunter22",
            "\"apiKey\": \"hunter22\"",
        ] {
            let text = text(secret);
            assert!(text.contains(BLACK), "{text}");
            for part in ["hunter22", "abcdef0123456789", "MIGH", "c2lnbmF0dXJl"] {
                assert!(!text.contains(part), "{text}");
            }
        }
    }

    #[test]
    fn ordinary_lines_stay() {
        for line in [
            "INFO mesh_control: this replica leads candidate=\"mesh-control-1\"",
            "GET /basic/auth 200 10.0.0.1:80",
            "spiffe://cluster.local/ns/shop/sa/web",
        ] {
            assert_eq!(text(line), line);
        }
    }

    #[test]
    fn only_our_own_containers_keep_their_environment() {
        let mut pod = json!({"kind": "Pod", "metadata": {"managedFields": []}, "spec": {"containers": [
            {"name": "app", "env": [{"name": "A", "value": "x"}, {"name": "B", "valueFrom": {}}], "args": ["--key=x"]},
            {"name": "mesh-proxy", "env": [{"name": "C", "value": "y"}], "args": ["run"]},
        ]}});
        object(&mut pod);
        assert_eq!(
            pod["spec"]["containers"],
            json!([
                {"name": "app", "env": [{"name": "A", "value": BLACK}, {"name": "B", "valueFrom": {}}], "args": BLACK},
                {"name": "mesh-proxy", "env": [{"name": "C", "value": "y"}], "args": ["run"]},
            ])
        );
        let mut secret = json!({"kind": "Secret", "data": {"a": "eA=="}});
        object(&mut secret);
        assert_eq!(secret["data"], BLACK);
    }
}
