//! Policies that are tried on live traffic: nothing changes for callers, and differences are counted.

use mesh_api::admin::{PolicyDifference, PolicyDifferences, TriedChange};
use mesh_api::model::{
    AuthorizerProtocol, CandidatePolicies, JwtRule, PeerAuthentication, RequestAuthentication, Selector,
};

use super::custom::{self, on_paths, policy};
use super::*;

/// Has the server try something beside what is in force.
fn try_beside(mesh: &Mesh, candidate: Option<CandidatePolicies>) {
    let state = mesh.server.load_full();
    let before = state.workload.as_ref().expect("published");
    let policies = WorkloadPolicies { candidate: candidate.map(Box::new), ..before.policies.clone() };
    let next = WorkloadState::compile(before.config.clone(), policies, "trial".into(), Some(before));
    mesh.server.publish(ProxyState {
        revision: 0,
        workload: Some(Arc::new(next)),
        destinations: state.destinations.clone(),
    });
}

fn report(mesh: &Mesh) -> PolicyDifferences {
    crate::admin::dump::differences(&mesh.server.load())
}

/// The only difference there is.
fn only(mesh: &Mesh) -> PolicyDifference {
    let mut report = report(mesh);
    assert_eq!(report.differences.len(), 1, "{report:?}");
    report.differences.remove(0)
}

fn deny(paths: &[&str]) -> CandidatePolicies {
    let mode = MtlsMode::Permissive;
    let denies = policy("no-admin", Action::Deny, on_paths(paths));
    CandidatePolicies { authorization: vec![denies], mtls: mode, ..CandidatePolicies::default() }
}

/// A PeerAuthentication of the server's namespace.
fn peer(mode: MtlsMode) -> Arc<PeerAuthentication> {
    let mut meta = policy("mode", Action::Allow, Vec::new()).meta.clone();
    meta.object.kind = Kind::PeerAuthentication;
    let selector = Selector::default();
    Arc::new(PeerAuthentication { meta, selector, mode: Some(mode), port_level: BTreeMap::new() })
}

async fn plaintext(mesh: &Mesh) -> TcpStream {
    TcpStream::connect(mesh.inbound).await.expect("connected")
}

#[test]
fn a_tried_deny_refuses_nobody_and_counts_whom_it_would_refuse() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mesh| {
        let mut stream = mesh.dial().await;
        assert_eq!(report(&mesh), PolicyDifferences::default());
        try_beside(&mesh, Some(deny(&["/admin/*"])));
        for path in ["/admin/1", "/a", "/admin/2?token=secret"] {
            assert!(get(&mut stream, path).await.0.starts_with("HTTP/1.1 200"), "{path}");
        }
        let found = report(&mesh);
        assert_eq!((found.judged, found.differing), (3, 2));
        assert_eq!(found.tried.len(), 1);
        assert_eq!(found.tried[0].change, TriedChange::Added);
        let difference = only(&mesh);
        assert_eq!(difference.caller, account("client").to_string());
        assert_eq!((difference.method.as_str(), difference.path.as_str()), ("GET", "/admin/{*}"));
        assert_eq!((difference.port, difference.count), (mesh.application.port(), 2));
        assert_eq!(difference.now.to_string(), "allowed");
        assert_eq!(difference.then.to_string(), "refused 403 (ns[web]-policy[no-admin]-rule[0])");
        assert!(mesh.denials.list().is_empty());
    });
}

#[test]
fn the_count_goes_on_while_the_same_is_compared_and_begins_anew_with_another_trial() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mesh| {
        let mut stream = mesh.dial().await;
        try_beside(&mesh, Some(deny(&["/a"])));
        get(&mut stream, "/a").await;
        try_beside(&mesh, Some(deny(&["/a"])));
        assert_eq!(report(&mesh).judged, 1);
        try_beside(&mesh, Some(deny(&["/b"])));
        assert_eq!((report(&mesh).judged, report(&mesh).tried.len()), (0, 1));
        get(&mut stream, "/b").await;
        // What is in force is the other half of the comparison.
        mesh.publish_mode(MtlsMode::Strict);
        assert_eq!(report(&mesh).judged, 0);
        try_beside(&mesh, None);
        assert_eq!(report(&mesh), PolicyDifferences::default());
    });
}

#[test]
fn a_tried_deletion_counts_who_would_pass() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mesh| {
        mesh.publish_server(Some(allow_get_of(&["/a"], "client")), 2);
        let without = vec![policy("allow", Action::Allow, Vec::new()).meta.object.clone()];
        let mode = MtlsMode::Permissive;
        try_beside(&mesh, Some(CandidatePolicies { without, mtls: mode, ..CandidatePolicies::default() }));
        let mut stream = mesh.dial().await;
        assert!(get(&mut stream, "/a").await.0.starts_with("HTTP/1.1 200"));
        assert!(get(&mut stream, "/b").await.0.starts_with("HTTP/1.1 403"));
        assert_eq!((report(&mesh).judged, report(&mesh).tried[0].change), (2, TriedChange::Deleted));
        let difference = only(&mesh);
        assert_eq!(difference.path, "/b");
        assert_eq!(
            (difference.now.to_string(), difference.then.to_string()),
            ("refused 403".into(), "allowed".into())
        );
    });
}

#[test]
fn a_tried_strict_counts_plaintext_and_nobody_of_the_mesh() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mesh| {
        let strict = MtlsMode::Strict;
        let candidate =
            CandidatePolicies { peer: vec![peer(strict)], mtls: strict, ..CandidatePolicies::default() };
        try_beside(&mesh, Some(candidate));
        for mut stream in [mesh.dial().await, plaintext(&mesh).await] {
            assert!(get(&mut stream, "/a").await.0.starts_with("HTTP/1.1 200"));
        }
        assert_eq!(report(&mesh).judged, 2);
        let difference = only(&mesh);
        assert_eq!((difference.caller.as_str(), difference.path.as_str()), ("none", "/a"));
        assert_eq!(difference.then.to_string(), "refused, mutual TLS (PeerAuthentication web/mode)");
    });
}

#[test]
fn a_tried_permissive_counts_plaintext_that_strict_refuses() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let permissive = MtlsMode::Permissive;
        let candidate = CandidatePolicies {
            peer: vec![peer(permissive)],
            mtls: permissive,
            ..CandidatePolicies::default()
        };
        try_beside(&mesh, Some(candidate));
        let mut stream = plaintext(&mesh).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: server\r\n\r\n").await.expect("written");
        let _either_way = stream.read_to_end(&mut Vec::new()).await;
        let difference = only(&mesh);
        assert_eq!(difference.now.to_string(), "refused, mutual TLS");
        assert_eq!(difference.then.to_string(), "plaintext is admitted (PeerAuthentication web/mode)");
    });
}

#[test]
fn were_a_port_in_disable_its_callers_would_have_no_identity() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mesh| {
        mesh.publish_server(Some(allow_get_of(&["/a"], "client")), 2);
        let disable = MtlsMode::Disable;
        let candidate =
            CandidatePolicies { peer: vec![peer(disable)], mtls: disable, ..CandidatePolicies::default() };
        try_beside(&mesh, Some(candidate));
        let mut stream = mesh.dial().await;
        assert!(get(&mut stream, "/a").await.0.starts_with("HTTP/1.1 200"));
        assert_eq!(only(&mesh).then.to_string(), "refused 403");
    });
}

#[test]
fn a_tried_token_rule_judges_the_request_as_it_came_and_takes_nothing_off_it() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let mut meta = policy("jwt", Action::Allow, Vec::new()).meta.clone();
        meta.object.kind = Kind::RequestAuthentication;
        let rule = JwtRule { issuer: "i".to_owned(), jwks: "{\"keys\":[]}".to_owned(), ..JwtRule::default() };
        let tried = RequestAuthentication {
            meta,
            selector: Selector::default(),
            targets: Vec::new(),
            jwt_rules: vec![rule],
        };
        let candidate = CandidatePolicies {
            request: vec![Arc::new(tried)],
            mtls: MtlsMode::Strict,
            ..CandidatePolicies::default()
        };
        try_beside(&mesh, Some(candidate));
        let mut stream = mesh.dial().await;
        assert!(get(&mut stream, "/a").await.0.starts_with("HTTP/1.1 200"));
        let head = "GET /a HTTP/1.1\r\nHost: server\r\nAuthorization: Bearer nonsense\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("written");
        let (head, body) = response(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(body.to_lowercase().contains("authorization: bearer nonsense"), "{body}");
        assert_eq!(report(&mesh).judged, 2);
        assert_eq!(only(&mesh).then.to_string(), "refused 401, token (ns[web]-policy[jwt]-rule[0])");
    });
}

#[test]
fn a_stream_counts_once_whether_its_client_speaks_or_listens() {
    for protocol in [Protocol::Tcp, Protocol::Auto] {
        run_test(protocol, MtlsMode::Permissive, greeting, async |mesh| {
            let everything = policy("nobody", Action::Deny, vec![Rule::default()]);
            let candidate = CandidatePolicies {
                authorization: vec![everything],
                mtls: MtlsMode::Permissive,
                ..CandidatePolicies::default()
            };
            try_beside(&mesh, Some(candidate));
            for mut stream in [mesh.dial().await, plaintext(&mesh).await] {
                stream.read_exact(&mut [0; 11]).await.expect("greeted");
            }
            let found = report(&mesh);
            assert_eq!((found.judged, found.differing), (2, 2), "{:?}", mesh.protocol);
            let words = found.differences[0].then.to_string();
            assert_eq!(words, "refused (ns[web]-policy[nobody]-rule[0])");
            assert!(found.differences.iter().all(|it| it.method.is_empty() && it.path.is_empty()));
        });
    }
}

#[test]
fn a_request_of_a_client_that_hesitated_is_no_stream() {
    run_test(Protocol::Auto, MtlsMode::Permissive, reflecting, async |mesh| {
        try_beside(&mesh, Some(deny(&["/a"])));
        let mut stream = plaintext(&mesh).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(get(&mut stream, "/a").await.0.starts_with("HTTP/1.1 200"));
        assert_eq!((report(&mesh).judged, only(&mesh).path.as_str()), (1, "/a"));
    });
}

#[test]
fn an_external_authorizer_is_asked_once_and_its_answer_stands_for_both() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let (at, asked) = custom::grpc(custom::by_header).await;
        let ext = custom::authorizer(AuthorizerProtocol::Grpc);
        let ask = policy("ask", Action::Custom, on_paths(&["/a*"]));
        custom::publish(&mesh, Some((&ext, at)), vec![Arc::clone(&ask)]);
        let candidate = |authorization: Vec<_>, without: Vec<_>| {
            let mtls = MtlsMode::Strict;
            Some(CandidatePolicies { authorization, without, mtls, ..CandidatePolicies::default() })
        };
        let mut stream = mesh.dial().await;
        let may = "GET /a HTTP/1.1\r\nHost: server\r\nX-May: yes\r\n\r\n";
        // Both ask: what is refused stays refused, and what passes meets the rest.
        try_beside(&mesh, candidate(vec![policy("deny", Action::Deny, on_paths(&["/a*"]))], Vec::new()));
        assert!(get(&mut stream, "/a").await.0.starts_with("HTTP/1.1 403 "));
        assert_eq!((report(&mesh).judged, report(&mesh).differing), (1, 0));
        assert!(custom::send(&mut stream, may).await.0.starts_with("HTTP/1.1 200 "));
        assert_eq!(only(&mesh).then.to_string(), "refused 403 (ns[web]-policy[deny]-rule[0])");
        assert_eq!(asked.checks.borrow().len(), 2);
        // Nobody would be asked.
        try_beside(&mesh, candidate(Vec::new(), vec![ask.meta.object.clone()]));
        assert!(get(&mut stream, "/a").await.0.starts_with("HTTP/1.1 403 "));
        let difference = only(&mesh);
        assert_eq!(difference.then.to_string(), "allowed");
        assert!(difference.now.to_string().starts_with("refused 403, external authorizer"), "{difference:?}");
        // Somebody would be asked who is not today.
        let more = policy("more", Action::Custom, on_paths(&["/b"]));
        try_beside(&mesh, candidate(vec![more], Vec::new()));
        assert!(get(&mut stream, "/b").await.0.starts_with("HTTP/1.1 200 "));
        assert!(only(&mesh).then.to_string().starts_with("an external authorizer decides"));
        assert_eq!(asked.checks.borrow().len(), 3);
    });
}
