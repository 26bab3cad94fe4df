//! The source over an API server that is made up: what happens to lists, watches and kinds.

use mesh_api::model::{Kind, ObjectRef, Workload};
use mesh_api::name::ObjectName;
use serde_json::{Value, json};

use super::*;
use crate::ingest::{self, Objects};
use crate::registry::{Registry, VirtualAddressState, VirtualAddresses, WorkloadKey};
use api_server::ApiServer;

mod api_server;

const PODS: &str = "/api/v1/pods";
const SERVICES: &str = "/api/v1/services";
const CONFIG_MAPS: &str = "/api/v1/namespaces/istio-system/configmaps";
const POLICIES: &str = "/apis/security.istio.io/v1/authorizationpolicies";

/// A source, and a registry that takes in what it hands over.
struct Mirror {
    source: KubernetesSource,
    objects: Objects,
    registry: Registry,
    problems: Vec<mesh_api::problem::Problem>,
    sources: Vec<SourceStatus>,
    /// Objects handed over, new or different and gone.
    taken: usize,
}

impl Mirror {
    fn new(server: &ApiServer) -> Self {
        let settings = KubernetesSettings {
            revision: DEFAULT_REVISION.to_owned(),
            config_namespace: Namespace::parse("istio-system").expect("valid"),
        };
        let pool = VirtualAddresses::new(
            "240.240.0.0/16".parse().expect("valid"),
            "fd77:6d6d::/64".parse().expect("valid"),
            VirtualAddressState::default(),
        );
        Self {
            source: KubernetesSource::new(&server.client(), &settings),
            objects: Objects::default(),
            registry: Registry::new(MeshSettings::default(), pool),
            problems: Vec::new(),
            sources: Vec::new(),
            taken: 0,
        }
    }

    async fn first(server: &ApiServer) -> Self {
        let mut mirror = Self::new(server);
        mirror.source.first(Duration::from_secs(60)).await.expect("the cluster can be read");
        mirror.take();
        mirror
    }

    fn take(&mut self) {
        let Some(events) = self.source.events() else { return };
        self.taken += events.set.len() + events.removed.len();
        let taken = ingest::advance(&mut self.objects, events.set, events.removed, None);
        for change in taken.changes {
            self.registry.apply(change);
        }
        self.problems = events.problems.unwrap_or_else(|| std::mem::take(&mut self.problems));
        self.sources = events.sources;
    }

    /// Follows the cluster until `holds`.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                self.source.gather().await;
                self.take();
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(600), wait).await.is_ok(), "{what}");
    }

    fn pod(&self, name: &str) -> Option<&Arc<Workload>> {
        let key = WorkloadKey {
            namespace: Namespace::parse("shop").expect("valid"),
            name: ObjectName::parse(name).expect("valid"),
        };
        self.registry.workload(&key)
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        self.objects.documents.contains_key(&ObjectRef {
            kind,
            namespace: Namespace::parse("shop").expect("valid"),
            name: ObjectName::parse(name).expect("valid"),
        })
    }

    fn source(&self, path: &str) -> &SourceStatus {
        self.sources.iter().find(|source| source.path == format!("cluster: {path}")).expect("it is watched")
    }
}

fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": "store"}},
        "spec": {"containers": [{"name": "app"}], "serviceAccountName": "store"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn policy(name: &str, method: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "shop", "generation": 1, "uid": "u", "managedFields": [{"manager": "x"}]},
        "spec": {"rules": [{"to": [{"operation": {"methods": [method]}}]}]},
        "status": {"conditions": []},
    })
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_listed_by_the_page_and_then_watched() {
    let server = ApiServer::new();
    for number in 0..1201 {
        server.put(PODS, pod(&format!("p{number}")));
    }
    let mut mirror = Mirror::first(&server).await;
    assert_eq!(mirror.registry.workloads().count(), 1201);
    let lists = server.asked("/pods?&limit=500");
    assert_eq!(lists.len(), 3, "{lists:?}");
    server.put(PODS, pod("late"));
    mirror.until("a new pod is known", |mirror| mirror.pod("late").is_some()).await;
    server.delete(PODS, "shop", "p7");
    mirror.until("a deleted pod is gone", |mirror| mirror.pod("p7").is_none()).await;
    assert_eq!(mirror.taken, 1203, "nothing was handed over twice");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_cannot_be_asked_removes_nothing_and_is_told() {
    let server = ApiServer::new();
    server.put(PODS, pod("p"));
    let mut mirror = Mirror::first(&server).await;
    assert_eq!(mirror.source("pods").suspended, None);
    server.fail(PODS, 500);
    server.cut();
    mirror.until("it is told", |mirror| mirror.source("pods").suspended.is_some()).await;
    let told = mirror.source("pods").suspended.clone().expect("told");
    assert!(told.contains("500 as the test wants it"), "{told}");
    assert!(mirror.pod("p").is_some());
    server.put(PODS, pod("q"));
    server.fail(PODS, 0);
    mirror.until("it goes on", |mirror| mirror.pod("q").is_some()).await;
    assert_eq!(mirror.source("pods").suspended, None);
}

#[tokio::test(start_paused = true)]
async fn what_was_forgotten_is_listed_anew_and_only_what_differs_is_told() {
    let server = ApiServer::new();
    for name in ["stays", "goes", "changes"] {
        server.put(PODS, pod(name));
    }
    let mut mirror = Mirror::first(&server).await;
    let before = mirror.taken;
    server.fail(PODS, 503);
    server.cut();
    mirror.until("the watch is down", |mirror| mirror.source("pods").suspended.is_some()).await;
    server.delete(PODS, "shop", "goes");
    let mut changed = pod("changes");
    changed["metadata"]["labels"]["app"] = "other".into();
    server.put(PODS, changed);
    server.forget();
    server.fail(PODS, 0);
    mirror.until("what is gone is gone", |mirror| mirror.pod("goes").is_none()).await;
    assert_eq!(mirror.pod("changes").expect("there").labels["app"], "other");
    assert!(mirror.pod("stays").is_some());
    assert_eq!(mirror.taken - before, 2);
    assert_eq!(mirror.source("pods").suspended, None);
}

#[tokio::test(start_paused = true)]
async fn a_broken_object_keeps_its_last_good_version() {
    let server = ApiServer::new();
    server.put(POLICIES, policy("only-get", "GET"));
    let mut broken = policy("never-good", "GET");
    broken["spec"]["rules"][0]["to"][0]["operation"] = json!({"method": ["GET"]});
    server.put(POLICIES, broken);
    let mut mirror = Mirror::first(&server).await;
    assert!(mirror.has(Kind::AuthorizationPolicy, "only-get"));
    assert!(!mirror.has(Kind::AuthorizationPolicy, "never-good"));
    let mut edited = policy("only-get", "GET");
    edited["spec"]["action"] = "PERMIT".into();
    server.put(POLICIES, edited);
    let watched = "authorizationpolicies.security.istio.io";
    mirror.until("it is held", |mirror| mirror.source(watched).held.len() == 1).await;
    let policies: Vec<_> = mirror.registry.authorization_policies().collect();
    assert_eq!(policies.len(), 1);
    assert_eq!(policies[0].rules.len(), 1);
    let problem = |name: &str| {
        let is_of = |object: &ObjectRef| object.name.as_str() == name;
        mirror.problems.iter().find(|problem| problem.object.as_ref().is_some_and(is_of)).expect("told")
    };
    assert_eq!(problem("only-get").field, "spec.action");
    assert!(problem("never-good").field.contains("operation.method"), "{}", problem("never-good"));
    server.put(POLICIES, policy("only-get", "POST"));
    mirror.until("it is in force again", |mirror| mirror.source(watched).held.is_empty()).await;
    assert!(
        mirror.problems.iter().all(|problem| problem
            .object
            .as_ref()
            .is_some_and(|object| object.name.as_str() == "never-good"))
    );
    server.delete(POLICIES, "shop", "never-good");
    mirror.until("no problem is left", |mirror| mirror.problems.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_installed_is_looked_for_again() {
    let server = ApiServer::new();
    server.unserve("security.istio.io", "v1");
    let mut mirror = Mirror::first(&server).await;
    let watched = "authorizationpolicies.security.istio.io";
    let told = mirror.source(watched).missing.clone().expect("told");
    assert!(told.contains("meshctl install --crds"), "{told}");
    server.put(POLICIES, policy("late", "GET"));
    server.serve("security.istio.io", "v1", "authorizationpolicies");
    mirror.until("it is found", |mirror| mirror.has(Kind::AuthorizationPolicy, "late")).await;
    mirror.until("nothing is missing", |mirror| mirror.source(watched).missing.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn an_older_version_is_read_where_the_api_server_has_no_newer_one() {
    let server = ApiServer::new();
    server.unserve("telemetry.istio.io", "v1");
    server.serve("telemetry.istio.io", "v1alpha1", "telemetries");
    // As a list has it: without saying what it is.
    let telemetry = json!({"metadata": {"name": "t", "namespace": "shop"}, "spec": {"metrics": [{"providers": [{"name": "prometheus"}]}]}});
    server.put("/apis/telemetry.istio.io/v1alpha1/telemetries", telemetry);
    let mirror = Mirror::first(&server).await;
    assert!(mirror.has(Kind::Telemetry, "t"), "{:?}", mirror.problems);
}

#[tokio::test(start_paused = true)]
async fn the_first_state_is_whole_or_says_what_is_missing() {
    let server = ApiServer::new();
    server.fail(PODS, 403);
    let mut mirror = Mirror::new(&server);
    let error = mirror.source.first(Duration::from_secs(5)).await.expect_err("pods are missing").to_string();
    assert_eq!(error, "the cluster could not be read: pods (403 as the test wants it)");
    server.fail(PODS, 0);
    mirror.source.first(Duration::from_secs(60)).await.expect("nothing is missing any more");
}

fn settings(yaml: &str) -> Value {
    json!({"metadata": {"name": "mini-mesh", "namespace": "istio-system"}, "data": {"mesh.yaml": yaml}})
}

#[tokio::test(start_paused = true)]
async fn settings_come_from_the_config_map_and_outlive_it() {
    let server = ApiServer::new();
    let yaml = "apiVersion: mini-mesh.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh, namespace: istio-system}\nspec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}\n";
    server.put(CONFIG_MAPS, settings("kind: Nonsense"));
    server.put(CONFIG_MAPS, json!({"metadata": {"name": "other", "namespace": "istio-system"}, "data": {}}));
    let mut mirror = Mirror::new(&server);
    let error = mirror.source.first(Duration::from_secs(5)).await.expect_err("they cannot be used");
    assert!(matches!(error, FirstError::Settings { .. }), "{error}");
    server.put(CONFIG_MAPS, settings(yaml));
    let first = mirror.source.first(Duration::from_secs(60)).await.expect("they can be used now");
    assert_eq!(first.outbound_policy, mesh_api::model::OutboundPolicy::RegistryOnly);
    mirror.take();
    assert!(mirror.problems.is_empty(), "{:?}", mirror.problems);
    server.delete(CONFIG_MAPS, "istio-system", "mini-mesh");
    mirror.until("it is told", |mirror| mirror.problems.iter().any(|problem| problem.code == "MM0111")).await;
    assert_eq!(mirror.objects.settings.outbound_policy, mesh_api::model::OutboundPolicy::RegistryOnly);
}

#[tokio::test(start_paused = true)]
async fn another_cluster_domain_renames_services_and_pods_that_are_known() {
    let server = ApiServer::new();
    server.put(SERVICES, json!({"metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "None", "clusterIPs": ["None"], "selector": {"app": "store"}, "ports": [{"port": 80}]}}));
    let mut named = pod("web-0");
    named["spec"]["hostname"] = "web-0".into();
    named["spec"]["subdomain"] = "web".into();
    server.put(PODS, named);
    let mut mirror = Mirror::first(&server).await;
    let host = |text: &str| mesh_api::name::Host::parse(text).expect("valid");
    assert!(mirror.registry.workload_by_host(&host("web-0.web.shop.svc.cluster.local")).is_some());
    server.put(CONFIG_MAPS, settings("apiVersion: mini-mesh.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh, namespace: istio-system}\nspec: {clusterDomain: example.org}\n"));
    let renamed =
        |mirror: &Mirror| mirror.registry.workload_by_host(&host("web-0.web.shop.svc.example.org")).is_some();
    mirror.until("the pod is called by its new name", renamed).await;
    assert!(mirror.registry.service_by_host(&host("web.shop.svc.example.org")).is_some());
    assert!(mirror.registry.service_by_host(&host("web.shop.svc.cluster.local")).is_none());
}
