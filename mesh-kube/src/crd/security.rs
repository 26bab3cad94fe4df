//! `security.istio.io`.

use super::Definition;
use super::schema::{SELECTOR, Shape, TARGET, TARGETS, TEXTS, UNBOUNDED};

const GROUP: &str = "security.istio.io";
const VERSIONS: &[&str] = &["v1", "v1beta1"];
/// Most rules of a policy, and most sources of a rule.
const ENTRIES_MAX: usize = 512;
/// Most service accounts of one field.
const ACCOUNTS_MAX: usize = 16;

const ACCOUNTS: Shape = Shape::List(&Shape::Text, ACCOUNTS_MAX);
const SOURCE: Shape = Shape::Object(&[
    (
        "principals",
        TEXTS,
        "Identities of peers, as cluster.local/ns/NAMESPACE/sa/ACCOUNT; a star at an end matches any.",
    ),
    ("notPrincipals", TEXTS, "Identities of peers that do not match."),
    ("requestPrincipals", TEXTS, "ISSUER/SUBJECT of the request's token."),
    ("notRequestPrincipals", TEXTS, ""),
    ("namespaces", TEXTS, "Namespaces of peers, taken from their identity."),
    ("notNamespaces", TEXTS, ""),
    ("serviceAccounts", ACCOUNTS, "NAME or NAMESPACE/NAME of the peer's service account."),
    ("notServiceAccounts", ACCOUNTS, ""),
    ("ipBlocks", TEXTS, "Addresses or ranges of the peer's connection."),
    ("notIpBlocks", TEXTS, ""),
    ("remoteIpBlocks", TEXTS, "Addresses or ranges of the original client."),
    ("notRemoteIpBlocks", TEXTS, ""),
    ("trustDomains", TEXTS, "Trust domains of peers."),
    ("notTrustDomains", TEXTS, ""),
]);
const OPERATION: Shape = Shape::Object(&[
    ("hosts", TEXTS, "Host names of requests; a star at an end matches any."),
    ("notHosts", TEXTS, ""),
    ("ports", TEXTS, "Ports of the workload, as texts: \"8080\"."),
    ("notPorts", TEXTS, ""),
    ("methods", TEXTS, "Methods of requests: GET, POST."),
    ("notMethods", TEXTS, ""),
    ("paths", TEXTS, "Paths of requests; a star at an end matches any, {*} one segment, {**} several."),
    ("notPaths", TEXTS, ""),
]);
const CONDITION: Shape = Shape::Object(&[
    (
        "key",
        Shape::Text,
        "Attribute: source.ip, request.headers[NAME], request.auth.claims[NAME], connection.sni.",
    ),
    ("values", TEXTS, "Values of which one must match."),
    ("notValues", TEXTS, "Values of which none may match."),
]);
const RULE: Shape = Shape::Object(&[
    (
        "from",
        Shape::List(
            &Shape::Object(&[("source", SOURCE, "All fields that are stated must match.")]),
            ENTRIES_MAX,
        ),
        "Who asks: one of the entries must match. Absent: anybody.",
    ),
    (
        "to",
        Shape::List(
            &Shape::Object(&[("operation", OPERATION, "All fields that are stated must match.")]),
            UNBOUNDED,
        ),
        "What is asked for: one of the entries must match. Absent: anything.",
    ),
    ("when", Shape::List(&CONDITION, UNBOUNDED), "Further conditions, all of which must hold."),
]);

/// AuthorizationPolicy.
pub(super) const AUTHORIZATION_POLICY: Definition = Definition {
    group: GROUP,
    kind: "AuthorizationPolicy",
    plural: "authorizationpolicies",
    singular: "authorizationpolicy",
    short: "ap",
    versions: VERSIONS,
    about: "Who may do what with the workloads that it selects.",
    spec: Shape::Object(&[
        ("selector", SELECTOR, "Workloads of the namespace for which it holds. Absent: all of them."),
        ("targetRef", TARGET, "Service for whose workloads it holds."),
        ("targetRefs", TARGETS, "Services for whose workloads it holds."),
        (
            "action",
            Shape::OneOf(&["ALLOW", "DENY", "AUDIT", "CUSTOM"]),
            "What becomes of requests that a rule matches. Where there is an ALLOW policy, what none matches is refused. Default: ALLOW.",
        ),
        (
            "provider",
            Shape::Object(&[("name", Shape::Text, "Name of the extension provider in MeshConfig.")]),
            "Who decides, for CUSTOM only.",
        ),
        (
            "rules",
            Shape::List(&RULE, ENTRIES_MAX),
            "One of them must match. Absent: nothing matches, so that ALLOW refuses everything; one empty rule matches everything.",
        ),
    ]),
    columns: &[("Action", "string", ".spec.action")],
};

const MTLS: Shape = Shape::Object(&[(
    "mode",
    Shape::OneOf(&["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]),
    "STRICT takes mutual TLS only, PERMISSIVE plaintext too, DISABLE plaintext only, UNSET what holds around it.",
)]);

/// PeerAuthentication.
pub(super) const PEER_AUTHENTICATION: Definition = Definition {
    group: GROUP,
    kind: "PeerAuthentication",
    plural: "peerauthentications",
    singular: "peerauthentication",
    short: "pa",
    versions: VERSIONS,
    about: "Whether workloads demand mutual TLS of those who connect to them.",
    spec: Shape::Object(&[
        ("selector", SELECTOR, "Workloads of the namespace for which it holds. Absent: all of them."),
        ("mtls", MTLS, "The mode."),
        ("portLevelMtls", Shape::Map(&MTLS), "Modes of single ports of the workload; needs a selector."),
    ]),
    columns: &[("Mode", "string", ".spec.mtls.mode")],
};

const JWT_RULE: Shape = Shape::Object(&[
    ("issuer", Shape::Text, "Issuer of the tokens (iss)."),
    ("audiences", TEXTS, "Audiences of which a token must have one (aud). Absent: any."),
    ("jwksUri", Shape::Text, "Where the keys are, http or https. Absent: found through the issuer."),
    ("jwks_uri", Shape::Text, "Another name of jwksUri."),
    ("jwks", Shape::Text, "The keys themselves, JSON in a text."),
    (
        "fromHeaders",
        Shape::List(
            &Shape::Object(&[
                ("name", Shape::Text, ""),
                ("prefix", Shape::Text, "What stands before the token."),
            ]),
            UNBOUNDED,
        ),
        "Headers in which a token is looked for. Default: Authorization with Bearer.",
    ),
    ("fromParams", TEXTS, "Query parameters in which a token is looked for."),
    ("fromCookies", TEXTS, "Cookies in which a token is looked for."),
    ("forwardOriginalToken", Shape::Boolean, "Whether the application gets the token too. Default: false."),
    ("outputPayloadToHeader", Shape::Text, "Header that gets the token's payload in base64url."),
    (
        "outputClaimToHeaders",
        Shape::List(&Shape::Object(&[("header", Shape::Text, ""), ("claim", Shape::Text, "")]), UNBOUNDED),
        "Headers that get single claims.",
    ),
    ("timeout", Shape::Duration, "For fetching keys. Default: 5s."),
    ("spaceDelimitedClaims", Shape::List(&Shape::Text, 64), "Claims that are lists separated by spaces."),
]);

/// RequestAuthentication.
pub(super) const REQUEST_AUTHENTICATION: Definition = Definition {
    group: GROUP,
    kind: "RequestAuthentication",
    plural: "requestauthentications",
    singular: "requestauthentication",
    short: "ra",
    versions: VERSIONS,
    about: "Which tokens workloads believe. A request without a token passes; an AuthorizationPolicy demands one.",
    spec: Shape::Object(&[
        ("selector", SELECTOR, "Workloads of the namespace for which it holds. Absent: all of them."),
        ("targetRef", TARGET, "Service for whose workloads it holds."),
        ("targetRefs", TARGETS, "Services for whose workloads it holds."),
        ("jwtRules", Shape::List(&JWT_RULE, 4096), "Issuers, with where their keys are."),
    ]),
    columns: &[],
};
