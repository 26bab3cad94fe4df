//! `networking.istio.io`.

mod destination_rule;
mod service_entry;
mod virtual_service;

pub(super) use destination_rule::DESTINATION_RULE;
pub(super) use service_entry::{SERVICE_ENTRY, WORKLOAD_ENTRY};
pub(super) use virtual_service::VIRTUAL_SERVICE;

const GROUP: &str = "networking.istio.io";
const VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];
