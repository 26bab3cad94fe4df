//! What the chart gives: the documents of every profile, and what must hold for all of them.

use serde_json::Value;

use super::*;
use crate::install::plan::Plan;
use crate::install::values::{self, ValueArgs};

fn plan(profile: &str, set: &[&str]) -> Plan {
    let set = set.iter().map(|text| (*text).to_owned()).collect();
    let args = ValueArgs { profile: Some(profile.to_owned()), set, ..ValueArgs::default() };
    Plan::new(values::stated(&args, None).expect("the values are read")).expect("the chart is rendered")
}

fn all() -> Vec<(String, Plan)> {
    let sets: [&[&str]; 4] = [
        &[],
        &["revision=canary,tags={default,stable}"],
        &["control.autoscaling.enabled=true,resourceQuota.enabled=true,control.antiAffinity=required"],
        &["networkPolicy.enabled=false,control.disruptionBudget.enabled=false,image.pullSecrets[0].name=x"],
    ];
    let mut all = Vec::new();
    for (profile, _) in chart::profiles() {
        for set in sets {
            all.push((format!("{profile} {set:?}"), plan(profile, set)));
        }
    }
    all
}

fn rules<'a>(plan: &'a Plan, kind: &str) -> Vec<&'a Value> {
    let roles = plan.documents.iter().filter(|document| document.kind() == kind);
    roles.flat_map(|role| role.object["rules"].as_array().expect("a role has rules")).collect()
}

fn holds(list: &Value, item: &str) -> bool {
    list.as_array().is_some_and(|items| items.iter().any(|found| found == item))
}

#[test]
fn each_profile_gives_the_documents_that_were_looked_at() {
    for (profile, _) in chart::profiles() {
        insta::assert_snapshot!(format!("profile_{profile}"), plan(profile, &[]).documents_text());
    }
    insta::assert_snapshot!(
        "revision_with_tags",
        plan("default", &["revision=canary,tags={default,stable}"]).documents_text()
    );
}

#[test]
fn no_role_has_a_star() {
    for (name, plan) in all() {
        for rule in rules(&plan, "ClusterRole").into_iter().chain(rules(&plan, "Role")) {
            for part in ["verbs", "resources", "apiGroups"] {
                assert!(!holds(&rule[part], "*"), "{name}: {rule}");
            }
        }
    }
}

#[test]
fn secrets_are_read_in_one_namespace_and_by_name_only() {
    for (name, plan) in all() {
        for rule in rules(&plan, "ClusterRole") {
            assert!(!holds(&rule["resources"], "secrets"), "{name}: {rule}");
        }
        for rule in rules(&plan, "Role").into_iter().filter(|rule| holds(&rule["resources"], "secrets")) {
            let creates = rule["verbs"] == serde_json::json!(["create"]);
            assert!(creates || rule["resourceNames"].is_array(), "{name}: {rule}");
        }
    }
}

#[test]
fn what_is_written_is_limited_to_names_where_a_request_says_them() {
    // Those that are chosen by label, and those whose names are not known before.
    const FREE: [&str; 4] =
        ["mutatingwebhookconfigurations", "validatingwebhookconfigurations", "events", "tokenreviews"];
    for (name, plan) in all() {
        for kind in ["ClusterRole", "Role"] {
            for rule in rules(&plan, kind) {
                let resources = rule["resources"].as_array().expect("a rule has resources");
                let texts = || resources.iter().filter_map(Value::as_str);
                let is_free =
                    texts().all(|resource| resource.ends_with("/status") || FREE.contains(&resource));
                let creates_here = kind == "Role" && holds(&rule["verbs"], "create");
                let writes = ["patch", "update", "delete"].iter().any(|verb| holds(&rule["verbs"], verb))
                    || holds(&rule["verbs"], "create") && !creates_here;
                assert!(!writes || is_free || rule["resourceNames"].is_array(), "{name}: {rule}");
            }
        }
    }
}

#[test]
fn a_revision_follows_its_own_settings() {
    let plan = plan("default", &["revision=canary"]);
    let settings = rules(&plan, "Role").into_iter().filter(|rule| holds(&rule["resources"], "configmaps"));
    let named: Vec<&Value> = settings.flat_map(|rule| rule["resourceNames"].as_array()).flatten().collect();
    assert!(named.iter().any(|name| *name == "mini-mesh-canary"), "{named:?}");
}

#[test]
fn every_pod_keeps_to_the_restricted_standard() {
    for (name, plan) in all() {
        for document in plan.documents.iter().filter(|document| document.kind() == "Deployment") {
            let pod = &document.object["spec"]["template"]["spec"];
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            for volume in pod["volumes"].as_array().expect("there are volumes") {
                assert!(volume["hostPath"].is_null(), "{name}: {volume}");
            }
            for container in pod["containers"].as_array().expect("there are containers") {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(context["capabilities"], serde_json::json!({"drop": ["ALL"]}), "{name}");
            }
        }
    }
}

#[test]
fn every_object_says_of_which_revision_it_is_and_carries_its_name() {
    for (name, plan) in all() {
        for document in plan.documents.iter().filter(|document| document.kind() != "Namespace") {
            let metadata = &document.object["metadata"];
            assert_eq!(metadata["labels"][name::LABEL_REVISION], plan.revision(), "{name}: {metadata}");
            assert_eq!(metadata["labels"][name::LABEL_PART_OF], name::PART_OF, "{name}: {metadata}");
            let suffix = match plan.revision() {
                name::DEFAULT_REVISION => String::new(),
                revision => format!("-{revision}"),
            };
            let is_tag = metadata["labels"]["istio.io/tag"].is_string();
            let named = metadata["name"].as_str().expect("it has a name");
            assert!(is_tag || named.ends_with(&suffix), "{name}: {named}");
        }
    }
}

#[test]
fn neither_the_control_plane_nor_the_cluster_waits_for_a_webhook() {
    for (name, plan) in all() {
        let injectors =
            plan.documents.iter().filter(|document| document.kind() == "MutatingWebhookConfiguration");
        for webhook in
            injectors.flat_map(|document| document.object["webhooks"].as_array().expect("it has some"))
        {
            let expressions =
                webhook["namespaceSelector"]["matchExpressions"].as_array().expect("a selector");
            let left_out = expressions.iter().find(|expression| expression["operator"] == "NotIn");
            for namespace in [name::SYSTEM_NAMESPACE, "kube-system"] {
                assert!(
                    left_out.is_some_and(|left_out| holds(&left_out["values"], namespace)),
                    "{name}: {webhook}"
                );
            }
        }
    }
}

#[test]
fn a_namespace_has_one_injector_at_most() {
    let names = |plan: &Plan| -> Vec<String> {
        let injectors =
            plan.documents.iter().filter(|document| document.kind() == "MutatingWebhookConfiguration");
        injectors
            .filter_map(|document| document.object["metadata"]["name"].as_str().map(str::to_owned))
            .collect()
    };
    assert_eq!(names(&plan("default", &[])), ["mini-mesh-injector"]);
    assert_eq!(names(&plan("default", &["defaultTag=false"])), [""; 0]);
    assert_eq!(names(&plan("default", &["revision=canary"])), ["mini-mesh-injector-canary"]);
    assert_eq!(
        names(&plan("default", &["revision=canary,tags={default}"])),
        ["mini-mesh-injector-canary", "mini-mesh-injector"]
    );
}
