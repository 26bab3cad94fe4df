//! Cost of one decision with 10 and with 10,000 rules, and of compiling them.
//!
//! The budget (DESIGN.md section 9): 10,000 rules cost at most 1.5 times what 10 cost, and a microsecond at
//! most. Shapes: every rule names another caller; callers times paths, so that no single attribute tells
//! them apart; path prefixes; address blocks. Requests cycle through many callers, so that caches are not
//! flattered.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use mesh_api::model::{
    Action, AuthorizationPolicy, Kind, MeshSettings, ObjectMeta, ObjectRef, Operation, Origin, Rule,
    Selector, Source,
};
use mesh_api::name::{Namespace, ObjectName, SpiffeId};
use mesh_policy::authorize::{Attributes, Authorizer, HeaderList, HttpAttributes};

/// How rules and requests are told apart.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Callers,
    CallersTimesPaths,
    Prefixes,
    Blocks,
}

impl Shape {
    const ALL: [Self; 4] = [Self::Callers, Self::CallersTimesPaths, Self::Prefixes, Self::Blocks];

    fn name(self) -> &'static str {
        match self {
            Self::Callers => "callers",
            Self::CallersTimesPaths => "callers times paths",
            Self::Prefixes => "path prefixes",
            Self::Blocks => "address blocks",
        }
    }

    fn rule(self, number: usize, rules: usize) -> Rule {
        let side = if rules > 100 { 100 } else { 3 };
        let (source, operation) = match self {
            Self::Callers => (caller_source(number), get(&format!("/api/v1/items/{number}"))),
            Self::CallersTimesPaths => {
                (caller_source(number / side), get(&format!("/api/v1/items/{}", number % side)))
            }
            Self::Prefixes => (caller_source(0), get(&format!("/api/v1/items/{number}/*"))),
            Self::Blocks => {
                let block = format!("10.{}.{}.0/24", number / 256, number % 256);
                (Source { ip_blocks: vec![block], ..Source::default() }, get("/api*"))
            }
        };
        Rule { from: vec![source], to: vec![operation], when: Vec::new() }
    }

    /// Caller, path and address that rule `number` allows.
    fn request(self, number: usize, rules: usize) -> (SpiffeId, String, IpAddr) {
        let side = if rules > 100 { 100 } else { 3 };
        let (caller, path) = match self {
            Self::Callers => (number, format!("/api/v1/items/{number}")),
            Self::CallersTimesPaths => (number / side, format!("/api/v1/items/{}", number % side)),
            Self::Prefixes => (0, format!("/api/v1/items/{number}/detail")),
            Self::Blocks => (number, "/api/v1/items".to_owned()),
        };
        let id = SpiffeId::parse(&format!("spiffe://{}", principal(caller))).expect("valid");
        let octet = |value: usize| u8::try_from(value % 256).expect("below 256");
        (id, path, IpAddr::from([10, octet(number / 256), octet(number), 7]))
    }
}

fn principal(number: usize) -> String {
    format!("cluster.local/ns/team-{}/sa/service-{number}", number % 50)
}

fn caller_source(number: usize) -> Source {
    Source { principals: vec![principal(number)], ..Source::default() }
}

fn get(path: &str) -> Operation {
    Operation { methods: vec!["GET".to_owned()], paths: vec![path.to_owned()], ..Operation::default() }
}

/// One policy for each rule, and a DENY beside them as real meshes have.
fn policies(shape: Shape, rules: usize) -> Vec<Arc<AuthorizationPolicy>> {
    let deny = Rule {
        to: vec![Operation { paths: vec!["/admin*".to_owned()], ..Operation::default() }],
        ..Rule::default()
    };
    let policy = |name: String, action, rule| {
        Arc::new(AuthorizationPolicy {
            meta: ObjectMeta {
                object: ObjectRef {
                    kind: Kind::AuthorizationPolicy,
                    namespace: Namespace::parse("backend").expect("valid"),
                    name: ObjectName::parse(&name).expect("valid"),
                },
                labels: Default::default(),
                annotations: Default::default(),
                created: 0,
                origin: Origin::default(),
            },
            selector: Selector::default(),
            targets: Vec::new(),
            action,
            provider: None,
            rules: vec![rule],
            dry_run: false,
        })
    };
    (0..rules - 1)
        .map(|number| policy(format!("p{number}"), Action::Allow, shape.rule(number, rules)))
        .chain([policy("no-admin".to_owned(), Action::Deny, deny)])
        .collect()
}

fn decisions(criterion: &mut Criterion) {
    for shape in Shape::ALL {
        let mut group = criterion.benchmark_group(shape.name());
        for rules in [10, 10_000] {
            let authorizer = Authorizer::compile(&MeshSettings::default(), &policies(shape, rules));
            let requests: Vec<_> =
                (0..256).map(|step| shape.request(step * 37 % (rules - 1), rules)).collect();
            let headers = HeaderList(&[]);
            let mut step = 0;
            group.bench_function(BenchmarkId::from_parameter(rules), |bencher| {
                bencher.iter(|| {
                    step = (step + 1) % requests.len();
                    let (peer, path, source_ip) = &requests[step];
                    let attributes = Attributes {
                        peer: Some(peer),
                        source_ip: *source_ip,
                        remote_ip: *source_ip,
                        destination_ip: IpAddr::from([10, 255, 0, 1]),
                        destination_port: 8080,
                        sni: None,
                        http: Some(HttpAttributes {
                            method: "GET",
                            authority: "catalog.backend:8080",
                            path,
                            headers: &headers,
                            claims: None,
                        }),
                    };
                    let decision = authorizer.authorize(black_box(&attributes));
                    assert!(decision.is_allowed());
                    decision
                });
            });
        }
        group.finish();
    }
}

fn compiling(criterion: &mut Criterion) {
    let policies = policies(Shape::Callers, 10_000);
    let mesh = MeshSettings::default();
    criterion.bench_function("compile 10000 policies", |bencher| {
        bencher.iter(|| Authorizer::compile(&mesh, black_box(&policies)));
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
        .configure_from_args();
    decisions(&mut criterion);
    compiling(&mut criterion);
    criterion.final_summary();
}
