//! `extensionProviders` of MeshConfig: external authorizers, and what else Istio names there.
//!
//! Whatever Istio refuses is refused here too, and so is a list of header names that could never match: a
//! provider that is not as its author meant it would refuse, or let pass, what it was to judge.

use super::fields::Fields;
use super::host;
use super::report::{Report, alternatives, nearest, shortened};
use super::tree::{Found, Place};
use crate::model::{
    AuthorizerProtocol, BodyPacking, CheckBody, ExtensionProvider, ExternalAuthorizer, HttpCheck, LongerBody,
    OnAuthorizerError, ProviderKind,
};
use crate::name::{Host, Namespace};

/// Istio's default, which is longer than any request waits elsewhere: the authorizer's own time-outs hold.
const TIMEOUT_MS: u64 = 600_000;
/// Most bytes of a body that a proxy holds for a check.
const BODY_BYTES_MAX: i64 = 16 * 1024 * 1024;
/// Providers in one mesh.
const PROVIDERS_MAX: usize = 256;

const HTTP: &str = "envoyExtAuthzHttp";
const GRPC: &str = "envoyExtAuthzGrpc";
/// Kinds that have no effect.
const OTHERS: [&str; 14] = [
    "zipkin",
    "lightstep",
    "datadog",
    "stackdriver",
    "opencensus",
    "skywalking",
    "opentelemetry",
    "prometheus",
    "envoyFileAccessLog",
    "envoyHttpAls",
    "envoyTcpAls",
    "envoyOtelAls",
    "sds",
    "envoyLocalFileAccessLog",
];

const SHARED: [&str; 7] = [
    "service",
    "port",
    "timeout",
    "failOpen",
    "statusOnError",
    "includeRequestBodyInCheck",
    "clearRouteCache",
];
const HTTP_ONLY: [&str; 7] = [
    "pathPrefix",
    "includeHeadersInCheck",
    "includeRequestHeadersInCheck",
    "includeAdditionalHeadersInCheck",
    "headersToUpstreamOnAllow",
    "headersToDownstreamOnDeny",
    "headersToDownstreamOnAllow",
];

/// Reads the list. `cluster_domain` completes the names of services.
pub(super) fn read(place: Place<'_>, cluster_domain: &str, report: &mut Report) -> Vec<ExtensionProvider> {
    let items = place.items(report);
    if items.len() > PROVIDERS_MAX {
        report.error(place, format!("has {} entries, at most {PROVIDERS_MAX} are served", items.len()), "");
        return Vec::new();
    }
    let mut providers: Vec<ExtensionProvider> = Vec::new();
    for item in items {
        let Some(provider) = provider(item, cluster_domain, report) else { continue };
        if providers.iter().any(|other| other.name == provider.name) {
            let at = item.child("name").unwrap_or(item);
            report.error(
                at,
                format!("{:?} stands twice", shortened(&provider.name)),
                "Names must be unique.",
            );
        }
        providers.push(provider);
    }
    providers
}

fn provider(place: Place<'_>, cluster_domain: &str, report: &mut Report) -> Option<ExtensionProvider> {
    let known: Vec<&str> = ["name", HTTP, GRPC].into_iter().chain(OTHERS).collect();
    let Found::Map = place.found() else {
        place.fields(&known, report);
        return None;
    };
    let fields = Fields { place };
    let unknown: Vec<Place<'_>> = place.children().filter(|child| !known.contains(&child.name())).collect();
    for child in &unknown {
        let hint = nearest(child.name(), known.iter().copied()).map_or_else(
            || format!("Known here: name, {HTTP}, {GRPC}."),
            |name| format!("Did you mean {name}?"),
        );
        report.error(*child, "unknown field", hint);
    }
    let name = fields
        .required("name", "CUSTOM policies name the provider by it.", report)
        .and_then(|place| place.non_empty(report))
        .map(str::to_owned);
    let stated: Vec<Place<'_>> =
        place.children().filter(|child| known[1..].contains(&child.name())).collect();
    let kind = match stated.as_slice() {
        // A kind that is misspelt has been told already.
        [] if !unknown.is_empty() => None,
        [] => {
            report.error(place, "states no provider", format!("Write {}.", alternatives([HTTP, GRPC])));
            None
        }
        [only] => kind(*only, cluster_domain, report),
        [_, further, ..] => {
            report.error(*further, "a provider is of one kind only", "Write an entry for each.");
            None
        }
    };
    Some(ExtensionProvider { name: name?, kind: kind? })
}

fn kind(place: Place<'_>, cluster_domain: &str, report: &mut Report) -> Option<ProviderKind> {
    let http = match place.name() {
        HTTP => true,
        GRPC => false,
        other => {
            place.entries(report);
            report.not_enforced(place, "nothing is reported to it, and CUSTOM policies that name it refuse");
            return Some(ProviderKind::Other(other.to_owned()));
        }
    };
    let known: Vec<&str> = SHARED.into_iter().chain(HTTP_ONLY.into_iter().filter(|_| http)).collect();
    let fields = place.fields(&known, report);
    let service = fields
        .required("service", "Write the host of its service, NAMESPACE/ before it if you like.", report)
        .and_then(|place| service(place, cluster_domain, report));
    let port =
        fields.required("port", "State the service's port.", report).and_then(|place| place.port(report));
    let timeout = fields.get("timeout").map(|place| place.duration(report));
    let on_error = fields.get("failOpen").and_then(|place| place.boolean(report)).map_or_else(
        OnAuthorizerError::default,
        |opens| {
            if opens { OnAuthorizerError::Pass } else { OnAuthorizerError::Refuse }
        },
    );
    let status = fields.get("statusOnError").map(|place| status(place, report));
    let body = fields.get("includeRequestBodyInCheck").map(|place| body(place, report));
    if let Some(place) = fields.get("clearRouteCache")
        && place.boolean(report) == Some(true)
    {
        report.note(
            "MM0602",
            place,
            "changes nothing: what a request is routed by is chosen after the check",
            "",
        );
    }
    let protocol = if http {
        AuthorizerProtocol::Http(Box::new(http_check(fields, report)))
    } else {
        AuthorizerProtocol::Grpc
    };
    let (namespace, host) = service?;
    Some(ProviderKind::Authorizer(Box::new(ExternalAuthorizer {
        host,
        namespace,
        port: port?,
        timeout_ms: timeout.unwrap_or(Some(TIMEOUT_MS))?,
        on_error,
        status_on_error: status.unwrap_or(Some(403))?,
        body: match body {
            Some(body) => Some(body?),
            None => None,
        },
        protocol,
    })))
}

/// `[NAMESPACE/]HOST`.
fn service(place: Place<'_>, cluster_domain: &str, report: &mut Report) -> Option<(Option<Namespace>, Host)> {
    let text = place.non_empty(report)?;
    let (namespace, host) = match text.split_once('/') {
        None => (None, text),
        Some((namespace, host)) => match Namespace::parse(namespace) {
            Ok(namespace) => (Some(namespace), host),
            Err(error) => {
                report.error(place, error.to_string(), "Write HOST or NAMESPACE/HOST.");
                return None;
            }
        },
    };
    let full = match &namespace {
        Some(namespace) if !host.contains('.') && !host.is_empty() => {
            format!("{host}.{namespace}.svc.{cluster_domain}")
        }
        _ => host.to_owned(),
    };
    match Host::parse(&full) {
        Ok(host) if host.is_wildcard() => {
            report.error(place, "must not be a wildcard", "Write the host of one service.");
            None
        }
        Ok(host) if !host.as_str().contains('.') => {
            let hint = format!("Write {host}.NAMESPACE.svc.{cluster_domain}, or NAMESPACE/{host}.");
            report.error(place, format!("{:?} is not a fully qualified host", shortened(text)), hint);
            None
        }
        Ok(host) => Some((namespace, host)),
        Err(error) => {
            report.error(place, error.to_string(), host::hint(host));
            None
        }
    }
}

/// A status that Envoy knows (`envoy.type.v3.StatusCode`), as a string; Istio has it so.
fn status(place: Place<'_>, report: &mut Report) -> Option<u16> {
    let text = place.text(report)?;
    let code = text.parse::<u16>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let is_known = |code: u16| {
        matches!(code, 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=417 | 421..=424 | 426 | 428 | 429 | 431
            | 500..=508 | 510 | 511)
    };
    let Some(code) = code.filter(|code| is_known(*code)) else {
        report.error(
            place,
            format!("{:?} is not a status that can be answered", shortened(text)),
            "Write a final HTTP status in quotes, such as \"403\" or \"503\".",
        );
        return None;
    };
    if code < 300 {
        report.warn(place, "refuses with a status that says success", "Write a status such as \"403\".");
    }
    Some(code)
}

fn body(place: Place<'_>, report: &mut Report) -> Option<CheckBody> {
    let fields = place.fields(&["maxRequestBytes", "allowPartialMessage", "packAsBytes"], report);
    let bytes_max = fields
        .required("maxRequestBytes", "State how many bytes the authorizer is shown.", report)
        .and_then(|place| place.integer(1..=BODY_BYTES_MAX, report))
        .and_then(|bytes| u32::try_from(bytes).ok());
    let is_set = |name: &str, report: &mut Report| {
        fields.get(name).and_then(|place| place.boolean(report)).unwrap_or(false)
    };
    let (cuts, packs) = (is_set("allowPartialMessage", report), is_set("packAsBytes", report));
    Some(CheckBody {
        bytes_max: bytes_max?,
        longer: if cuts { LongerBody::Cut } else { LongerBody::Refused },
        packing: if packs { BodyPacking::Bytes } else { BodyPacking::Text },
    })
}

fn http_check(fields: Fields<'_>, report: &mut Report) -> HttpCheck {
    let names = |name: &str, report: &mut Report| {
        fields.get(name).map(|place| header_patterns(place, report)).unwrap_or_default()
    };
    let deprecated = names("includeHeadersInCheck", report);
    if let Some(place) = fields.get("includeHeadersInCheck") {
        let hint = "Write includeRequestHeadersInCheck.";
        report.warn(place, "is deprecated", hint);
    }
    let current = names("includeRequestHeadersInCheck", report);
    HttpCheck {
        path_prefix: fields
            .get("pathPrefix")
            .and_then(|place| path_prefix(place, report))
            .unwrap_or_default(),
        request_headers: if current.is_empty() { deprecated } else { current },
        additional_headers: fields
            .get("includeAdditionalHeadersInCheck")
            .map(|place| additional_headers(place, report))
            .unwrap_or_default(),
        to_upstream: names("headersToUpstreamOnAllow", report),
        to_client_on_deny: names("headersToDownstreamOnDeny", report),
        to_client_on_allow: names("headersToDownstreamOnAllow", report),
    }
}

fn path_prefix(place: Place<'_>, report: &mut Report) -> Option<String> {
    let text = place.text(report)?;
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\'));
    if text.is_empty() || (text.starts_with('/') && is_plain) {
        return Some(text.to_owned());
    }
    report.error(place, "must begin with / and be a path", "Write a path such as /check, without a query.");
    None
}

/// Names of headers: `name`, `prefix*` or `*suffix`.
fn header_patterns(place: Place<'_>, report: &mut Report) -> Vec<String> {
    let mut patterns = Vec::new();
    for item in place.items(report) {
        let Some(text) = item.non_empty(report) else { continue };
        let bare = text.strip_prefix('*').or_else(|| text.strip_suffix('*')).unwrap_or(text);
        if is_header_name(bare) {
            patterns.push(text.to_ascii_lowercase());
        } else {
            let hint = "Write name, prefix* or *suffix.";
            report.error(item, format!("{:?} matches no header", shortened(text)), hint);
        }
    }
    patterns
}

fn additional_headers(place: Place<'_>, report: &mut Report) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (name, value) in place.string_map(report) {
        let at = place.child(&name).unwrap_or(place);
        let is_value = value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
        let lower = name.to_ascii_lowercase();
        // Lines by which a request is delimited or addressed are not for others to write (RFC 9110 section 7).
        let is_ours = matches!(
            lower.as_str(),
            "host" | "content-length" | "transfer-encoding" | "connection" | "upgrade" | "te" | "trailer"
        );
        if !is_header_name(&name) || is_ours {
            report.error(at, format!("{:?} cannot be added as a header", shortened(&name)), "");
        } else if !is_value {
            report.error(at, "holds a control character", "");
        } else {
            headers.push((lower, value));
        }
    }
    headers
}

/// A token (RFC 9110 section 5.6.2) without a star, which has a meaning of its own here.
fn is_header_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte))
}
