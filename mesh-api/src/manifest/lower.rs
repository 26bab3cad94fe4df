//! One document to one object of the model, or its problems.

use super::input::Input;
use super::report::Report;
use super::tree::Place;
use super::{
    LowerContext, Object, authorization_policy, core_kinds, destination_rule, mesh_config, meta,
    peer_authentication, request_authentication, service, service_entry, telemetry, virtual_service,
    workload_entry,
};
use crate::model::{Kind, ObjectMeta, Origin};

/// Reads the object of a document whose kind is known. With an error in `report` the object is not valid.
pub(super) fn object(
    kind: Kind,
    root: Place<'_>,
    origin: Origin,
    context: &LowerContext,
    report: &mut Report,
) -> Option<Object> {
    let meta = meta::read(kind, root, origin, context, report);
    let known: &[&str] = match kind {
        Kind::ServiceAccount => &core_kinds::SERVICE_ACCOUNT,
        Kind::AuthorizationPolicy
        | Kind::PeerAuthentication
        | Kind::RequestAuthentication
        | Kind::Telemetry
        | Kind::DestinationRule
        | Kind::VirtualService
        | Kind::ServiceEntry
        | Kind::WorkloadEntry
        | Kind::Pod
        | Kind::Service
        | Kind::Namespace
        | Kind::MeshConfig => &["apiVersion", "kind", "metadata", "spec", "status"],
    };
    root.fields(known, report);
    match kind {
        Kind::ServiceAccount => return meta.map(Object::ServiceAccount),
        Kind::Namespace => return meta.map(Object::Namespace),
        Kind::AuthorizationPolicy
        | Kind::PeerAuthentication
        | Kind::RequestAuthentication
        | Kind::Telemetry
        | Kind::DestinationRule
        | Kind::VirtualService
        | Kind::ServiceEntry
        | Kind::WorkloadEntry
        | Kind::Pod
        | Kind::Service
        | Kind::MeshConfig => {}
    }
    // Without this a file that ends after metadata would be a policy of its own, and an AuthorizationPolicy
    // without rules denies everything.
    let hint = "Write spec: {} if nothing is to be stated.";
    let spec = match root.child("spec") {
        Some(spec) if spec.is_null() => {
            report.error(spec, "is empty", hint);
            None
        }
        Some(spec) => Some(spec),
        None => {
            report.missing(root, "spec", hint);
            None
        }
    };
    // Problems of the spec are told even when the metadata is wrong.
    let is_named = meta.is_some();
    let meta = meta.unwrap_or_else(|| unnamed(kind, context));
    let input = Input { meta, root, spec: spec?, context };
    of_kind(kind, input, report).filter(|_| is_named)
}

/// Stands in for metadata that was refused; its object is never used.
fn unnamed(kind: Kind, context: &LowerContext) -> ObjectMeta {
    let object = crate::model::ObjectRef {
        kind,
        namespace: context.default_namespace.clone(),
        name: crate::name::ObjectName::parse("unnamed").expect("a valid constant"),
    };
    ObjectMeta {
        object,
        labels: Default::default(),
        annotations: Default::default(),
        created: 0,
        origin: Origin::default(),
    }
}

fn of_kind(kind: Kind, input: Input<'_, '_>, report: &mut Report) -> Option<Object> {
    Some(match kind {
        Kind::AuthorizationPolicy => Object::AuthorizationPolicy(authorization_policy::lower(input, report)?),
        Kind::PeerAuthentication => Object::PeerAuthentication(peer_authentication::lower(input, report)),
        Kind::RequestAuthentication => {
            Object::RequestAuthentication(request_authentication::lower(input, report))
        }
        Kind::Telemetry => Object::Telemetry(telemetry::lower(input, report)),
        Kind::DestinationRule => Object::DestinationRule(destination_rule::lower(input, report)?),
        Kind::VirtualService => Object::VirtualService(virtual_service::lower(input, report)),
        Kind::ServiceEntry => Object::Service(service_entry::lower(input, report)),
        Kind::WorkloadEntry => Object::Workload(workload_entry::lower(input, report)?),
        Kind::Service => Object::Service(service::lower(input, report)?),
        // Not a served kind of documents.
        Kind::Pod => return None,
        Kind::MeshConfig => Object::MeshConfig(mesh_config::lower(input, report)?),
        Kind::ServiceAccount => Object::ServiceAccount(input.meta),
        Kind::Namespace => Object::Namespace(input.meta),
    })
}
