use super::*;
use crate::model::destination::StringMatch;
use crate::model::service::{Protocol, Resolution};
use crate::model::{Action, Balance, MtlsMode};
use crate::problem::Severity;

fn read(text: &str) -> Vec<Document> {
    parse("f.yaml", text, &LowerContext::default()).documents
}

/// The only object of a text.
fn object(text: &str) -> Object {
    let documents = read(text);
    assert_eq!(documents.len(), 1, "{documents:#?}");
    documents.into_iter().next().expect("one").outcome.expect("valid")
}

fn policy(name: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {name}\n  \
         namespace: backend\nspec:\n  rules:\n  - to:\n    - operation:\n        methods: [GET]\n"
    )
}

fn names(documents: &[Document]) -> Vec<String> {
    let name = |document: &Document| match &document.identity {
        Some(object) => format!("{}/{}", object.namespace, object.name),
        None => "?".to_owned(),
    };
    documents.iter().map(name).collect()
}

#[test]
fn a_policy_becomes_the_model() {
    let text = "apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata: {name: p, namespace: backend, annotations: {istio.io/dry-run: 'true'}}
spec:
  selector: {matchLabels: {app: catalog}}
  action: DENY
  rules:
  - from: [{source: {principals: [a, b], notNamespaces: [x]}}]
    to: [{operation: {ports: ['80'], paths: ['/a/{*}']}}]
    when: [{key: 'request.headers[x-a]', notValues: [v]}]
";
    let Object::AuthorizationPolicy(policy) = object(text) else { unreachable!("a policy") };
    assert_eq!(policy.action, Action::Deny);
    assert!(policy.dry_run);
    assert_eq!(policy.selector.match_labels["app"], "catalog");
    let rule = &policy.rules[0];
    assert_eq!(rule.from[0].principals, ["a", "b"]);
    assert_eq!(rule.from[0].not_namespaces, ["x"]);
    assert_eq!(rule.to[0].ports, ["80"]);
    assert_eq!(rule.to[0].paths, ["/a/{*}"]);
    assert_eq!(
        (rule.when[0].key.as_str(), rule.when[0].not_values[0].as_str()),
        ("request.headers[x-a]", "v")
    );
    assert_eq!(policy.meta.origin, Origin { file: "f.yaml".into(), line: 1 });
}

#[test]
fn a_peer_authentication_becomes_the_model() {
    let text = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                metadata: {name: p, creationTimestamp: '2026-01-01T00:00:01Z'}\n\
                spec: {selector: {matchLabels: {a: b}}, mtls: {mode: UNSET}, portLevelMtls: {8080: {mode: STRICT}}}\n";
    let Object::PeerAuthentication(peer) = object(text) else { unreachable!("a peer authentication") };
    assert_eq!(peer.mode, None);
    assert_eq!(peer.port_level[&8080], Some(MtlsMode::Strict));
    assert_eq!(peer.meta.created, 1_767_225_601);
    assert_eq!(peer.meta.object.namespace.as_str(), "default");
}

#[test]
fn a_service_becomes_the_model() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec:\n  clusterIP: None\n  \
                selector: {app: s}\n  ports:\n  - {name: grpc-api, port: 80, targetPort: api}\n  \
                - {name: db, port: 5432, appProtocol: postgresql, targetPort: 15432}\n  \
                - {name: dns, port: 53, protocol: UDP}\n";
    let Object::Service(service) = object(text) else { unreachable!("a service") };
    assert_eq!(service.hosts[0].as_str(), "s.shop.svc.cluster.local");
    assert!(service.headless);
    assert_eq!(service.ports.len(), 2);
    assert_eq!(service.ports[0].protocol, Protocol::Grpc);
    assert_eq!(service.ports[0].target_port_name.as_deref(), Some("api"));
    assert_eq!((service.ports[1].protocol, service.ports[1].target_port), (Protocol::Tcp, 15432));
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: null, clusterIP: 10.0.0.1, ports: [{port: 80}]}\n";
    let Object::Service(service) = object(text) else { unreachable!("a service") };
    assert_eq!(service.selector, None);
    assert_eq!(service.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().expect("valid")]);
    assert_eq!((service.ports[0].target_port, service.ports[0].protocol), (80, Protocol::Auto));
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: ExternalName, externalName: example.com}\n";
    let Object::Service(service) = object(text) else { unreachable!("a service") };
    assert!(service.external);
    assert_eq!(service.resolution, Resolution::Dns);
    assert_eq!(service.endpoints[0].dns_name.as_deref(), Some("example.com"));
}

#[test]
fn a_name_that_the_client_looks_up_itself_is_dialled_as_it_came() {
    let text = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec:\n  hosts: [api.example.com]\n  \
                ports: [{number: 443, name: https, protocol: TLS}]\n  resolution: DNS\n";
    let Object::Service(service) = object(text) else { unreachable!("a service entry") };
    assert!(service.external);
    assert_eq!(service.resolution, Resolution::None);
    let text = text.to_owned() + "  endpoints: [{address: 10.0.0.1}]\n";
    let Object::Service(service) = object(&text) else { unreachable!("a service entry") };
    assert_eq!((service.resolution, service.endpoints.len()), (Resolution::Dns, 1));
}

#[test]
fn a_workload_takes_labels_of_its_object_and_says_whether_it_is_meshed() {
    let text = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
                metadata: {name: w, labels: {app: x, tier: t}}\n\
                spec: {address: '::ffff:10.0.0.1', labels: {app: w, security.istio.io/tlsMode: istio}, ports: {http: 8080}, serviceAccount: acc}\n";
    let Object::Workload(workload) = object(text) else { unreachable!("a workload") };
    assert_eq!(workload.addresses[0].to_string(), "10.0.0.1");
    assert_eq!((workload.labels["app"].as_str(), workload.labels["tier"].as_str()), ("w", "t"));
    assert!(workload.meshed);
    assert_eq!(workload.ports["http"], 8080);
    assert_eq!((workload.service_account.as_str(), workload.weight), ("acc", 1));
}

#[test]
fn short_hosts_are_of_the_own_namespace() {
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: shop}\nspec:\n  \
                hosts: [catalog]\n  http:\n  - match: [{uri: {prefix: /v2}, headers: {X-A: {}}}]\n    timeout: 1.5s\n    \
                route: [{destination: {host: catalog, subset: v2}, weight: 10}, {destination: {host: other.ns.svc.cluster.local}, weight: 90}]\n";
    let Object::VirtualService(service) = object(text) else { unreachable!("a virtual service") };
    assert_eq!(service.hosts[0].as_str(), "catalog.shop.svc.cluster.local");
    let route = &service.http[0];
    assert_eq!(route.timeout_ms, Some(1_500));
    assert_eq!(route.targets[0].host.as_str(), "catalog.shop.svc.cluster.local");
    assert_eq!(route.targets[1].host.as_str(), "other.ns.svc.cluster.local");
    assert_eq!(route.matches[0].headers, [("x-a".to_owned(), StringMatch::Present)]);
}

#[test]
fn a_route_whose_matches_are_for_gateways_only_does_not_become_a_catch_all() {
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec:\n  hosts: [a]\n  http:\n  \
                - match: [{gateways: [ns/gw]}]\n    route: [{destination: {host: b}}]\n  \
                - match: [{gateways: [gw]}, {gateways: [mesh], port: 80}]\n    route: [{destination: {host: c}}]\n";
    let Object::VirtualService(service) = object(text) else { unreachable!("a virtual service") };
    assert_eq!(service.http.len(), 1);
    assert_eq!(service.http[0].matches.len(), 1);
    assert_eq!(service.http[0].matches[0].port, Some(80));
}

#[test]
fn a_destination_rule_becomes_the_model() {
    let text = "apiVersion: networking.istio.io/v1alpha3\nkind: DestinationRule\nmetadata: {name: d, namespace: shop}\nspec:\n  \
                host: catalog\n  trafficPolicy:\n    loadBalancer: {simple: ROUND_ROBIN}\n    connectionPool: {tcp: {connectTimeout: 2s}}\n    \
                portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: LEAST_CONN}}]\n  \
                subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}]\n";
    let Object::DestinationRule(rule) = object(text) else { unreachable!("a destination rule") };
    assert_eq!(rule.host.as_str(), "catalog.shop.svc.cluster.local");
    assert_eq!(
        (rule.policy.balance, rule.policy.connect_timeout_ms),
        (Some(Balance::RoundRobin), Some(2_000))
    );
    assert_eq!(rule.port_level[0].1.balance, Some(Balance::LeastRequest));
    assert_eq!(rule.subsets[0].labels["version"], "v1");
    assert!(rule.subsets[0].policy.tls.is_some());
}

#[test]
fn mesh_settings_have_istio_s_names_and_defaults() {
    let text = "apiVersion: mini-mesh.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: m}\nspec:\n  trustDomain: example.org\n  \
                pathNormalization: {normalization: MERGE_SLASHES}\n  outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n  \
                accessLogFile: ''\n  connectTimeout: 3s\n";
    let Object::MeshConfig(config) = object(text) else { unreachable!("a mesh config") };
    assert_eq!(config.meta.object.namespace.as_str(), "istio-system");
    let expected = MeshSettings {
        trust_domain: crate::name::TrustDomain::parse("example.org").expect("valid"),
        path_normalization: crate::model::PathNormalization::MergeSlashes,
        outbound_policy: crate::model::OutboundPolicy::RegistryOnly,
        access_log: crate::model::AccessLogFormat::Off,
        connect_timeout_ms: 3_000,
        ..MeshSettings::default()
    };
    assert_eq!(config.settings, expected);
}

#[test]
fn a_broken_document_leaves_its_neighbours_alone_and_is_known_by_name() {
    let broken = policy("b").replace("rules:", "rules: [");
    let documents = read(&format!("{}---\n{broken}---\n{}", policy("a"), policy("c")));
    assert_eq!(names(&documents), ["backend/a", "backend/b", "backend/c"]);
    assert!(documents[0].outcome.is_ok() && documents[2].outcome.is_ok());
    let problems = documents[1].outcome.as_ref().expect_err("broken");
    assert_eq!(problems[0].code, "IST0106");
    assert!((12..=22).contains(&problems[0].origin.line), "{problems:?}");
    assert_eq!(documents[2].origin.line, 23);
    let documents = read(&broken);
    assert_eq!(documents[0].identity, None, "what followed may be missing too");
    let problems = documents[0].outcome.as_ref().expect_err("broken");
    assert_eq!(
        problems[0].object.as_ref().map(|object| object.name.as_str()),
        Some("b"),
        "the problem names it"
    );
    let documents = read(policy("b").replace("methods: [GET]", "methods: [1]").trim_end());
    assert_eq!(documents[0].identity, None, "a last line without its end may be half a line");
}

#[test]
fn a_name_that_may_be_cut_off_is_not_taken_for_whole() {
    let whole = policy("catalog");
    // Cut anywhere before spec: neither name nor namespace can be relied on.
    let spec_at = whole.find("spec:").expect("a spec");
    for end in 1..spec_at {
        let documents = read(&whole[..end]);
        let [document] = &documents[..] else { continue };
        assert!(document.outcome.is_err(), "{:?} is taken for an object", &whole[..end]);
        assert_eq!(document.identity, None, "{:?}", &whole[..end]);
    }
    // The same before another document is whole, and names its object.
    let documents = read(&format!("{}---\n{}", &whole[..spec_at], policy("b")));
    assert_eq!(names(&documents), ["backend/catalog", "backend/b"]);
    assert!(documents[0].outcome.is_err());
}

#[test]
fn a_policy_that_is_cut_off_never_widens() {
    let whole = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec:\n  rules:\n  \
                 - from:\n    - source:\n        principals:\n        - x\n";
    for end in (0..whole.len()).filter(|end| whole[..*end].ends_with(':')) {
        for document in read(&whole[..end]) {
            assert!(document.outcome.is_err(), "{:?} is taken for a policy", &whole[..end]);
        }
    }
    assert!(read(whole)[0].outcome.is_ok());
}

#[test]
fn a_list_is_unrolled_and_its_items_read_the_same_on_their_own() {
    let block = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}# between\n- {}",
        policy("a").trim_end().replace('\n', "\n  ") + "\n",
        policy("b").replace("[GET]", "[1]").trim_end().replace('\n', "\n  ")
    );
    let documents = read(&block);
    assert_eq!(names(&documents), ["backend/a", "backend/b"]);
    assert_eq!(documents[0].origin.line, 4);
    let problem = &documents[1].outcome.as_ref().expect_err("an integer")[0];
    assert_eq!(problem.field, "items[1].spec.rules[0].to[0].operation.methods[0]");
    let json = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}]}"#;
    let shared = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: n, labels: &l {a: b}}}\n\
                  - {apiVersion: v1, kind: Namespace, metadata: {name: m, labels: *l}}\n";
    for text in [block.as_str(), json, shared] {
        for document in read(text) {
            let again = read(&document.text);
            assert_eq!(again.len(), 1, "{}", document.text);
            match (&document.outcome, &again[0].outcome) {
                (Ok(first), Ok(second)) => assert_eq!(first.object_ref(), second.object_ref()),
                (first, second) => assert_eq!(first.is_ok(), second.is_ok(), "{}", document.text),
            }
        }
    }
    assert_eq!(read(json).len(), 2);
}

#[test]
fn aliases_and_merge_keys_are_followed_within_bounds() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: n\n  labels: &l {a: b, c: d}\n  annotations: {<<: *l, c: e}\n";
    let Object::Namespace(meta) = object(text) else { unreachable!("a namespace") };
    assert_eq!((meta.annotations["a"].as_str(), meta.annotations["c"].as_str()), ("b", "e"));
    let mut bomb = "apiVersion: v1\nkind: Namespace\na0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let documents = read(&bomb);
    let problems = documents[0].outcome.as_ref().expect_err("a bomb");
    assert!(problems[0].message.contains("aliases"), "{problems:?}");
}

#[test]
fn hostile_texts_are_refused_in_a_line() {
    for (text, part) in [
        (format!("a: {}{}", "[".repeat(100), "]".repeat(100)), "deeper"),
        (format!("a: {}", "[".repeat(100_000)), "recursion"),
        ("a: b\0c\n".to_owned(), "U+0000"),
        ("a: &a [*a]\n".to_owned(), "inside of what it names"),
        ("a: *b\n".to_owned(), "YAML"),
        ("a: 1\na: 2\n".to_owned(), "twice"),
        ("a: !!python/object:os.system x\n".to_owned(), "tag"),
        ("? [a]\n: b\n".to_owned(), "key"),
        ("\u{feff}- a\n".to_owned(), "must be a map"),
        ("just text".to_owned(), "must be a map"),
        ("a: \"open\n".to_owned(), "YAML"),
    ] {
        let documents = read(&text);
        let problems = documents[0].outcome.as_ref().expect_err("refused");
        assert_eq!(problems[0].severity, Severity::Error);
        assert!(problems[0].message.contains(part), "{part}: {problems:?}");
        assert!(problems[0].origin.line >= 1, "{part}: without a line");
    }
}

#[test]
fn a_flood_of_problems_is_bounded_and_counted() {
    let fields: String = (0..5_000).map(|number| format!("  unknown{number}: x\n")).collect();
    let text = policy("p").replace("spec:\n", &format!("spec:\n{fields}"));
    let documents = read(&text);
    let problems = documents[0].outcome.as_ref().expect_err("unknown fields");
    assert!(problems.len() <= 101, "{}", problems.len());
    assert!(
        problems.iter().any(|problem| problem.message.contains("more problems")),
        "the rest is not counted"
    );
}

#[test]
fn ten_thousand_documents_are_read_in_linear_time() {
    let started = std::time::Instant::now();
    let text: Vec<String> = (0..10_000).map(|number| policy(&format!("p{number}"))).collect();
    let documents = read(&text.join("---\n"));
    assert_eq!(documents.len(), 10_000);
    assert!(documents.iter().all(|document| document.outcome.is_ok()));
    // Unoptimised on a loaded machine; what is guarded against is a quadratic step.
    assert!(started.elapsed() < std::time::Duration::from_secs(60), "took {:?}", started.elapsed());
}
