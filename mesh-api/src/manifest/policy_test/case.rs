//! One case: the workload, the request, and what is expected.

use std::sync::Arc;

use super::super::report::Report;
use super::super::tree::Place;
use super::{TestCase, context, expectation, mesh, policies, request, without_effect};
use crate::model::Origin;
use crate::name::{Labels, Namespace, ServiceAccount};
use crate::policy_test::{Case, MeshOverrides, Workload};

const KNOWN: [&str; 8] = ["name", "now", "mesh", "policies", "workload", "request", "port", "expect"];

pub(super) fn read(
    file: &Arc<str>,
    place: Place<'_>,
    of_test: &MeshOverrides,
    report: &mut Report,
) -> Option<TestCase> {
    let fields = place.fields(&KNOWN, report);
    let name = fields.required("name", "Name the case.", report).and_then(|place| super::name(place, report));
    let mesh = match fields.optional("mesh") {
        Some(place) => merged(of_test, mesh(place, report)),
        None => of_test.clone(),
    };
    let policies = fields.optional("policies").map(|place| policies(file, place, &context(&mesh), report));
    let now = fields.optional("now").map(|place| request::time(place, report));
    let workload = match fields.optional("workload") {
        Some(place) => workload(place, report),
        None => Workload {
            namespace: default_namespace(),
            labels: Default::default(),
            service_account: default_account(),
        },
    };
    let port = fields.optional("port").map(|place| place.port(report));
    let request = fields.optional("request").map(|place| request::read(place, &workload, report));
    if let (Some(place), Some(_)) = (fields.optional("port"), &request) {
        without_effect(place, "has no effect beside a request, which states its own port", report);
    }
    let expect = fields.required("expect", "State what is to become of it: allow, deny, or a map.", report);
    let expect = expect.and_then(|place| expectation::read(place, report));
    let expect = expect?;
    if request.is_none() && expect.needs_request() {
        let hint = "Only mtls can be expected without one.";
        report.missing(place, "request", hint);
    }
    Some(TestCase {
        case: Case {
            name: name?.to_owned(),
            origin: Origin { file: Arc::clone(file), line: place.line() },
            now: now.flatten(),
            mesh,
            workload,
            port: port.flatten(),
            request: request.flatten(),
            expect,
        },
        policies,
    })
}

fn merged(of_test: &MeshOverrides, of_case: MeshOverrides) -> MeshOverrides {
    let of_test = of_test.clone();
    MeshOverrides {
        root_namespace: of_case.root_namespace.or(of_test.root_namespace),
        trust_domain: of_case.trust_domain.or(of_test.trust_domain),
        trust_domain_aliases: of_case.trust_domain_aliases.or(of_test.trust_domain_aliases),
        path_normalization: of_case.path_normalization.or(of_test.path_normalization),
    }
}

fn workload(place: Place<'_>, report: &mut Report) -> Workload {
    let fields = place.fields(&["namespace", "labels", "serviceAccount"], report);
    let namespace = fields.optional("namespace").and_then(|place| place.parsed(Namespace::parse, report));
    let account =
        fields.optional("serviceAccount").and_then(|place| place.parsed(ServiceAccount::parse, report));
    Workload {
        namespace: namespace.unwrap_or_else(default_namespace),
        labels: fields.optional("labels").map(|place| labels(place, report)).unwrap_or_default(),
        service_account: account.unwrap_or_else(default_account),
    }
}

/// Labels, whose values need no quotes here.
fn labels(place: Place<'_>, report: &mut Report) -> Labels {
    let entries = place.entries(report).into_iter();
    let label = |entry: Place<'_>, report: &mut Report| {
        Some((entry.name().to_owned(), super::loose_text(entry, report)?.to_owned()))
    };
    entries.filter_map(|entry| label(entry, report)).collect()
}

fn default_namespace() -> Namespace {
    Namespace::parse("default").expect("a valid constant")
}

fn default_account() -> ServiceAccount {
    ServiceAccount::parse("default").expect("a valid constant")
}
