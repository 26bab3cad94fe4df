//! What holds for every pod, and for what is none.

use std::collections::BTreeMap;

use mesh_kube::inject::{
    InjectSettings, NamespaceMeta, Platform, decide, inject, inject_object, templates, uninject,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn enabled() -> NamespaceMeta {
    NamespaceMeta {
        name: "shop".to_owned(),
        labels: BTreeMap::from([("istio-injection".to_owned(), "enabled".to_owned())]),
        annotations: BTreeMap::new(),
    }
}

/// Any JSON, with keys that pods have more often than others.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9.$-]{0,12}".prop_map(Value::from),
        Just(json!("Always")),
        Just(json!("true")),
    ];
    leaf.prop_recursive(6, 96, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "template",
        "items",
        "labels",
        "annotations",
        "containers",
        "initContainers",
        "volumes",
        "name",
        "ports",
        "containerPort",
        "livenessProbe",
        "readinessProbe",
        "lifecycle",
        "preStop",
        "httpGet",
        "tcpSocket",
        "grpc",
        "port",
        "host",
        "httpHeaders",
        "resources",
        "requests",
        "limits",
        "cpu",
        "memory",
        "securityContext",
        "runAsUser",
        "restartPolicy",
        "env",
        "x",
        "imagePullSecrets",
        "terminationGracePeriodSeconds",
        "hostNetwork",
        "os",
        "nodeSelector",
        "sidecar.istio.io/inject",
        "sidecar.istio.io/status",
        "proxy.istio.io/config",
        "ownerReferences",
    ])
    .prop_map(str::to_owned)
}

/// A pod that can be injected, with fields that nobody knows.
fn any_pod() -> impl Strategy<Value = Value> {
    let handler = prop_oneof![
        Just(json!({"httpGet": {"path": "/$(HOME)", "port": 8080}})),
        Just(json!({"httpGet": {"port": "http", "scheme": "HTTPS"}, "timeoutSeconds": 3})),
        Just(json!({"httpGet": {"port": 80, "host": "other.example"}})),
        Just(json!({"tcpSocket": {"port": "8080"}, "periodSeconds": 2})),
        Just(json!({"grpc": {"port": 9000, "service": "s"}})),
        Just(json!({"exec": {"command": ["true"]}})),
    ];
    let resources = prop_oneof![
        Just(json!({})),
        Just(json!({"requests": {"cpu": "100m"}})),
        Just(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
    ];
    let container =
        (handler.clone(), handler, resources, any_json()).prop_map(|(live, ready, resources, other)| {
            json!({
                "image": "app",
                "ports": [{"name": "http", "containerPort": 8080}],
                "livenessProbe": live,
                "readinessProbe": ready,
                "resources": resources,
                "unknownOfContainer": other,
            })
        });
    let containers = prop::collection::vec(container.boxed(), 1..4);
    (containers.clone(), containers, any_json(), any::<bool>()).prop_map(|(init, main, other, is_sidecar)| {
        let named = |containers: Vec<Value>, prefix: &str| -> Vec<Value> {
            let name = |(index, mut container): (usize, Value)| {
                container["name"] = json!(format!("{prefix}{index}"));
                container
            };
            containers.into_iter().enumerate().map(name).collect()
        };
        let mut init = named(init, "init");
        if is_sidecar {
            init[0]["restartPolicy"] = json!("Always");
        }
        json!({
            "metadata": {"generateName": "web-", "unknownOfMetadata": other},
            "spec": {"initContainers": init, "containers": named(main, "app"), "unknownOfSpec": other},
            "unknown": other,
        })
    })
}

/// Whether everything of `old` is in `new`, apart from what injection may change.
fn keeps(old: &Value, new: &Value, place: &str) -> Result<(), String> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                if ["httpGet", "tcpSocket", "grpc"].contains(&key.as_str()) {
                    continue;
                }
                let found = new.get(key).ok_or_else(|| format!("{place}/{key} is gone"))?;
                keeps(value, found, &format!("{place}/{key}"))?;
            }
            Ok(())
        }
        (Value::Array(old), Value::Array(new)) if old.iter().all(|item| item.get("name").is_some()) => {
            for item in old {
                let found = new.iter().find(|new| new.get("name") == item.get("name"));
                keeps(item, found.ok_or_else(|| format!("{place}: an item is gone"))?, place)?;
            }
            Ok(())
        }
        (old, new) if old == new => Ok(()),
        (old, new) => Err(format!("{place}: {old} became {new}")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_json_makes_it_panic(value in any_json(), native_sidecars in any::<bool>()) {
        let (namespace, settings) = (enabled(), InjectSettings::default());
        let platform = Platform { native_sidecars };
        let _decision = decide(&value, &namespace, &settings);
        if let Ok(injection) = inject(&value, &namespace, &settings, platform) {
            let mut patched = value.clone();
            json_patch::patch(&mut patched, &injection.patch).expect("a patch that fits");
            prop_assert_eq!(patched, injection.pod);
        }
        for template in templates(&value) {
            let _result = inject_object(&value, &template, &namespace, &settings, platform);
        }
        let _pod = uninject(&value);
    }

    #[test]
    fn no_text_as_an_annotation_makes_it_panic(text in ".{0,64}", native_sidecars in any::<bool>()) {
        for key in [
            "proxy.istio.io/config",
            "traffic.sidecar.istio.io/includeOutboundIPRanges",
            "config.linkerd.io/skip-inbound-ports",
            "sidecar.istio.io/proxyCPU",
            "sidecar.istio.io/logLevel",
            "config.linkerd.io/proxy-log-level",
            "config.linkerd.io/shutdown-grace-period",
        ] {
            let pod = json!({
                "metadata": {"annotations": {key: text}},
                "spec": {"containers": [{"name": "app", "image": "app"}]},
            });
            let _result =
                inject(&pod, &enabled(), &InjectSettings::default(), Platform { native_sidecars });
        }
    }

    #[test]
    fn injection_keeps_what_it_does_not_know_and_happens_once(pod in any_pod(), native_sidecars in any::<bool>()) {
        let (namespace, settings) = (enabled(), InjectSettings::default());
        let platform = Platform { native_sidecars };
        let injection = inject(&pod, &namespace, &settings, platform).expect("a pod that can be injected");
        prop_assert!(injection.decision.is_inject());
        prop_assert_eq!(keeps(&pod, &injection.pod, ""), Ok(()));
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &injection.patch).expect("a patch that fits");
        prop_assert_eq!(&patched, &injection.pod);
        let again = inject(&injection.pod, &namespace, &settings, platform).expect("no error");
        prop_assert!(!again.decision.is_inject());
        prop_assert_eq!(again.pod, injection.pod);
        prop_assert!(again.patch.0.is_empty());
    }

    #[test]
    fn what_was_injected_can_be_taken_out(pod in any_pod(), native_sidecars in any::<bool>()) {
        let platform = Platform { native_sidecars };
        let injection = inject(&pod, &enabled(), &InjectSettings::default(), platform).expect("a pod");
        let out = uninject(&injection.pod).expect("an injected pod");
        // Named ports come back as numbers; everything else is as it was.
        let numbered = |pod: &Value| {
            let text = pod.to_string().replace("\"port\":\"http\"", "\"port\":8080");
            text.replace("\"port\":\"8080\"", "\"port\":8080").replace(",\"scheme\":\"HTTP\"", "")
        };
        prop_assert_eq!(numbered(&out), numbered(&pod));
    }

    #[test]
    fn a_file_is_injected_as_the_webhook_injects_the_pods_made_from_it(pod in any_pod(), native_sidecars in any::<bool>()) {
        let (namespace, settings, platform) = (enabled(), InjectSettings::default(), Platform { native_sidecars });
        let mut template = pod;
        template["metadata"] = json!({"annotations": {"author": "x"}});
        let deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {"template": template},
        });
        let found = templates(&deployment);
        let (injected, _) =
            inject_object(&deployment, &found[0], &namespace, &settings, platform).expect("a template");
        // What the ReplicaSet makes of a template.
        let created = |template: &Value| {
            let mut pod = template.clone();
            pod["metadata"]["generateName"] = json!("web-5d4f9c-");
            pod["metadata"]["labels"]["pod-template-hash"] = json!("5d4f9c");
            pod["metadata"]["ownerReferences"] =
                json!([{"kind": "ReplicaSet", "name": "web-5d4f9c", "controller": true}]);
            pod
        };
        let by_file = created(&injected["spec"]["template"]);
        let by_webhook =
            inject(&created(&deployment["spec"]["template"]), &namespace, &settings, platform).expect("a pod").pod;
        prop_assert_eq!(&by_file, &by_webhook);
        let asked_again = inject(&by_file, &namespace, &settings, platform).expect("a pod");
        prop_assert_eq!(asked_again.pod, by_file);
    }
}
