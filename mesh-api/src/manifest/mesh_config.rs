//! MeshConfig: the settings of the whole mesh, under Istio's names where Istio has them.

use super::MeshConfig;
use super::extension_provider;
use super::fields::Fields;
use super::input::Input;
use super::report::{Report, shortened};
use super::shape::Shape;
use super::traffic_policy::unenforced_field;
use super::tree::Place;
use crate::model::{AccessLogFormat, DefaultProviders, MeshSettings, OutboundPolicy, PathNormalization};
use crate::name::{Host, Namespace, TrustDomain};

const SERVED: [&str; 11] = [
    "trustDomain",
    "trustDomainAliases",
    "rootNamespace",
    "clusterDomain",
    "pathNormalization",
    "outboundTrafficPolicy",
    "accessLogFile",
    "accessLogEncoding",
    "connectTimeout",
    "extensionProviders",
    "defaultProviders",
];
/// Istio's settings that have no effect, with what holds instead.
const UNENFORCED: [(&str, Shape, &str); 12] = [
    ("accessLogFormat", Shape::Text, "records have Istio's default fields"),
    ("enableTracing", Shape::Boolean, "no spans are reported"),
    ("enableAutoMtls", Shape::Boolean, "mutual TLS is used wherever the server takes it"),
    ("enablePrometheusMerge", Shape::Boolean, "each proxy serves its own metrics"),
    ("defaultConfig", Shape::Any, "proxies are configured by their own flags"),
    ("discoverySelectors", Shape::Any, "every namespace is read"),
    ("defaultServiceExportTo", Shape::List(&Shape::Text), "every service is visible"),
    ("defaultVirtualServiceExportTo", Shape::List(&Shape::Text), "every VirtualService is visible"),
    ("defaultDestinationRuleExportTo", Shape::List(&Shape::Text), "every DestinationRule is visible"),
    ("defaultHttpRetryPolicy", Shape::Any, "the built-in retries hold"),
    ("localityLbSetting", Shape::Any, "localities are not told apart"),
    ("dnsRefreshRate", Shape::Duration, "the time that each answer states holds"),
];

/// Levels of path normalisation by name.
pub(super) const NORMALIZATIONS: [(&str, PathNormalization); 5] = [
    ("DEFAULT", PathNormalization::Base),
    ("BASE", PathNormalization::Base),
    ("NONE", PathNormalization::None),
    ("MERGE_SLASHES", PathNormalization::MergeSlashes),
    ("DECODE_AND_MERGE_SLASHES", PathNormalization::DecodeAndMergeSlashes),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Text,
    Json,
}

pub(super) fn lower(input: Input<'_, '_>, report: &mut Report) -> Option<MeshConfig> {
    let unenforced = UNENFORCED.iter().map(|(name, ..)| *name);
    let known: Vec<&str> = SERVED.into_iter().chain(unenforced).chain(["meshMTLS"]).collect();
    let spec = input.spec.fields(&known, report);
    for (name, shape, effect) in UNENFORCED {
        unenforced_field(spec, (name, shape), effect, report);
    }
    mesh_mtls(spec, report);
    let default = MeshSettings::default();
    let aliases = spec.get("trustDomainAliases").map(|place| place.items(report)).unwrap_or_default();
    let cluster_domain = spec
        .get("clusterDomain")
        .and_then(|place| cluster_domain(place, report))
        .unwrap_or(default.cluster_domain);
    let settings = MeshSettings {
        trust_domain: parsed(spec, "trustDomain", TrustDomain::parse, report).unwrap_or(default.trust_domain),
        trust_domain_aliases: aliases
            .into_iter()
            .filter_map(|place| place.parsed(TrustDomain::parse, report))
            .collect(),
        root_namespace: parsed(spec, "rootNamespace", Namespace::parse, report)
            .unwrap_or(default.root_namespace),
        extension_providers: spec
            .get("extensionProviders")
            .map(|place| extension_provider::read(place, &cluster_domain, report))
            .unwrap_or_default(),
        default_providers: spec
            .get("defaultProviders")
            .map(|place| default_providers(place, report))
            .unwrap_or_default(),
        cluster_domain,
        path_normalization: path_normalization(spec, report).unwrap_or_default(),
        outbound_policy: outbound_policy(spec, report).unwrap_or_default(),
        access_log: access_log(spec, report),
        connect_timeout_ms: spec
            .get("connectTimeout")
            .and_then(|place| place.duration(report))
            .unwrap_or(default.connect_timeout_ms),
    };
    Some(MeshConfig { meta: input.meta, settings })
}

fn default_providers(place: Place<'_>, report: &mut Report) -> DefaultProviders {
    let fields = place.fields(&["accessLogging", "metrics", "tracing"], report);
    let names = |name: &str, report: &mut Report| {
        fields.get(name).map(|place| place.texts(report)).unwrap_or_default()
    };
    DefaultProviders {
        access_logging: names("accessLogging", report),
        metrics: names("metrics", report),
        tracing: names("tracing", report),
    }
}

fn parsed<T, E: std::fmt::Display>(
    spec: Fields<'_>,
    name: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
    report: &mut Report,
) -> Option<T> {
    spec.get(name).and_then(|place| place.parsed(parse, report))
}

fn cluster_domain(place: Place<'_>, report: &mut Report) -> Option<String> {
    let host = place.parsed(Host::parse, report)?;
    if host.is_wildcard() {
        report.error(place, "must not be a wildcard", "Write a domain such as cluster.local.");
        return None;
    }
    Some(host.as_str().to_owned())
}

/// TLS between proxies is 1.3 whatever is stated, which satisfies every minimum.
fn mesh_mtls(spec: Fields<'_>, report: &mut Report) {
    let Some(place) = spec.get("meshMTLS") else { return };
    let fields = place.fields(&["minProtocolVersion", "ecdhCurves", "cipherSuites"], report);
    if let Some(place) = fields.get("minProtocolVersion") {
        let versions = [("TLS_AUTO", ()), ("TLSV1_2", ()), ("TLSV1_3", ())];
        let _ = place.choice(&versions, report);
    }
    for name in ["ecdhCurves", "cipherSuites"] {
        let effect = "TLS 1.3 with the built-in suites and groups is used";
        unenforced_field(fields, (name, Shape::List(&Shape::Text)), effect, report);
    }
}

fn path_normalization(spec: Fields<'_>, report: &mut Report) -> Option<PathNormalization> {
    let place = spec.get("pathNormalization")?;
    let fields = place.fields(&["normalization"], report);
    fields.get("normalization")?.choice(&NORMALIZATIONS, report)
}

fn outbound_policy(spec: Fields<'_>, report: &mut Report) -> Option<OutboundPolicy> {
    let place = spec.get("outboundTrafficPolicy")?;
    let fields = place.fields(&["mode"], report);
    let choices = [("ALLOW_ANY", OutboundPolicy::AllowAny), ("REGISTRY_ONLY", OutboundPolicy::RegistryOnly)];
    fields.get("mode")?.choice(&choices, report)
}

/// `accessLogFile` says whether there are records, `accessLogEncoding` what they look like. Where they go is
/// a flag of each proxy.
fn access_log(spec: Fields<'_>, report: &mut Report) -> AccessLogFormat {
    let encodings = [("JSON", Encoding::Json), ("TEXT", Encoding::Text)];
    let encoding = spec.get("accessLogEncoding").and_then(|place| place.choice(&encodings, report));
    let file = spec.get("accessLogFile").and_then(|place| Some((place, place.text(report)?)));
    match file {
        Some((_, "")) => return AccessLogFormat::Off,
        Some((place, file)) if file != "/dev/stdout" => {
            let hint = "Start the proxies with --access-log FILE.";
            report.warn(
                place,
                format!("{:?} is a matter of each proxy and is not used", shortened(file)),
                hint,
            );
        }
        Some(_) | None => {}
    }
    match encoding {
        Some(Encoding::Text) => AccessLogFormat::Text,
        Some(Encoding::Json) | None => AccessLogFormat::Json,
    }
}
