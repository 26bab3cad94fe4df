//! The table itself.

use super::{Code, Severity};

codes! {
    REFERENCE = "IST0101" "ReferencedResourceNotFound" Error,
        "Something is named that does not exist: a host, subset, port, gateway, selector, secret or namespace. Requests that need it fail, or the clause never matches.",
        "http:\n- route:\n  - destination: {host: revews}   # the service is called reviews",
        "Correct the name, or add what it names to the files.";
    NOT_INJECTED = "IST0102" "NamespaceNotInjected" Info,
        "A namespace with workloads has no injection label, so that its pods get no proxy and no policy is enforced there.",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}",
        "Label it istio-injection=enabled, or istio-injection=disabled to say that this is meant.";
    MISSING_PROXY = "IST0103" "PodMissingProxy" Warning,
        "A pod of an injected namespace has no proxy: its traffic is not encrypted and no policy guards it.",
        "",
        "Restart the pod, so that the proxy is injected.";
    INVALID = "IST0106" "SchemaValidationError" Error,
        "The document breaks the schema or a rule of its kind and is refused. What stands in it protects nothing.",
        "spec:\n  action: DENNY",
        "Each message names the field and what it may be.";
    MISPLACED_ANNOTATION = "IST0107" "MisplacedAnnotation" Warning,
        "An Istio annotation stands on a kind of object that does not know it, and has no effect.",
        "kind: Deployment\nmetadata:\n  annotations:\n    sidecar.istio.io/proxyCPU: 100m   # belongs to spec.template.metadata",
        "Move it; annotations of pods belong to the template of the Deployment.";
    UNKNOWN_ANNOTATION = "IST0108" "UnknownAnnotation" Warning,
        "An annotation of an istio.io domain is not known to Istio, and has no effect.",
        "annotations:\n  networking.istio.io/exportsTo: \".\"",
        "Correct its name.";
    SAME_HOST = "IST0109" "ConflictingMeshGatewayVirtualServiceHosts" Error,
        "Several VirtualServices for the mesh name the same host and are visible in the same place. Only the oldest is used.",
        "",
        "Merge them into one VirtualService.";
    SIDECAR_OVERLAP = "IST0110" "ConflictingSidecarWorkloadSelectors" Error,
        "Several Sidecars of a namespace select the same workload; which one is used is not defined.",
        "",
        "Make their selectors disjoint.";
    SIDECAR_DEFAULTS = "IST0111" "MultipleSidecarsWithoutWorkloadSelectors" Error,
        "Several Sidecars of a namespace have no workloadSelector; which one is used is not defined.",
        "",
        "Keep one Sidecar without workloadSelector in each namespace.";
    PORT_REQUIRED = "IST0112" "VirtualServiceDestinationPortSelectorRequired" Error,
        "A route at a gateway leads to a service with several ports and does not say which one. (Inside the mesh the dialled port is used; then the level is Info.)",
        "- destination: {host: reviews}   # has ports 80 and 9090",
        "State destination.port.number.";
    MTLS_CONFLICT = "IST0113" "MTLSPolicyConflict" Error,
        "A DestinationRule sends mesh mutual TLS to workloads whose PeerAuthentication says DISABLE: the application gets TLS that it cannot read.",
        "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}",
        "Remove trafficPolicy.tls; the mesh chooses by what the server accepts.";
    SEVERAL_SERVICES = "IST0116" "DeploymentAssociatedToMultipleServices" Warning,
        "Services in front of the same pods declare one port with different protocols.",
        "",
        "Declare the port once, or with the same protocol.";
    PORT_NAME = "IST0118" "PortNameIsNotUnderNamingConvention" Info,
        "Neither the name of a service's port nor appProtocol says what is spoken; it is found out from the first bytes, which the client chooses.",
        "ports:\n- {name: web, port: 80}",
        "Name the port PROTOCOL or PROTOCOL-SUFFIX (http-web), or set appProtocol.";
    INVALID_REGEX = "IST0122" "InvalidRegexp" Warning,
        "A regular expression cannot be compiled, so that its match never holds.",
        "uri: {regex: \"/api/(\"}",
        "Correct it; the syntax is RE2's.";
    INJECTION_LABELS = "IST0123" "NamespaceMultipleInjectionLabels" Warning,
        "A namespace has injection labels of both kinds, and only one counts.",
        "labels: {istio-injection: enabled, istio.io/rev: canary}",
        "Keep one of them.";
    INVALID_ANNOTATION = "IST0125" "InvalidAnnotation" Warning,
        "An Istio annotation has a value that it cannot have, and is ignored.",
        "annotations:\n  sidecar.istio.io/inject: \"flase\"",
        "Correct the value.";
    NO_WORKLOAD = "IST0127" "NoMatchingWorkloadsFound" Warning,
        "The selector (or the namespace) of a policy holds no workload, so that the policy protects nothing.",
        "selector: {matchLabels: {app: catalogue}}   # the label is app: catalog",
        "Compare the labels with those of the workloads in the policy's own namespace.";
    NO_CA = "IST0128" "NoServerCertificateVerificationDestinationLevel" Warning,
        "A DestinationRule opens TLS without a CA, so that in Istio the server's certificate is not held against one of yours.",
        "trafficPolicy: {tls: {mode: SIMPLE}}",
        "State caCertificates (or credentialName with a workloadSelector), and subjectAltNames.";
    NO_CA_PORT = "IST0129" "NoServerCertificateVerificationPortLevel" Warning,
        "As IST0128, for one port.",
        "portLevelSettings:\n- {port: {number: 443}, tls: {mode: SIMPLE}}",
        "State caCertificates (or credentialName with a workloadSelector), and subjectAltNames.";
    UNREACHABLE_ROUTE = "IST0130" "VirtualServiceUnreachableRule" Warning,
        "Earlier routes take everything that this one matches.",
        "http:\n- route: [{destination: {host: a}}]\n- match: [{uri: {prefix: /v2}}]\n  route: [{destination: {host: b}}]",
        "Put narrower routes first, and the route without match last.";
    INEFFECTIVE_MATCH = "IST0131" "VirtualServiceIneffectiveMatch" Info,
        "An earlier match takes everything that this one would.",
        "match:\n- uri: {prefix: /product}\n- uri: {prefix: /products}",
        "Remove it, or put the narrower match first.";
    HOST_NOT_IN_GATEWAY = "IST0132" "VirtualServiceHostNotFoundInGateway" Warning,
        "A VirtualService names a host that no server of its Gateway has; the gateway answers 404 for it.",
        "",
        "Add the host to the Gateway, or correct it.";
    DOUBTFUL = "IST0133" "SchemaWarning" Warning,
        "The document is valid and probably not meant so.",
        "selector: {matchLabels: {}}",
        "Each message says what is odd.";
    ADDRESSES_REQUIRED = "IST0134" "ServiceEntryAddressesRequired" Warning,
        "A ServiceEntry has a TCP port and no address, so that its traffic cannot be told from other traffic to that port. (Info where the mesh assigns an address itself.)",
        "hosts: [\"*.db.example\"]\nports: [{number: 3306, name: tcp, protocol: TCP}]",
        "State addresses.";
    DEPRECATED_ANNOTATION = "IST0135" "DeprecatedAnnotation" Info,
        "Istio has given this annotation up.",
        "annotations:\n  sidecar.istio.io/statsInclusionPrefixes: cluster.outbound",
        "Remove it, or use what has taken its place.";
    TARGET_PORTS = "IST0137" "DeploymentConflictingPorts" Warning,
        "Services in front of the same pods reach one target port by different ports.",
        "",
        "Use the same port in all of them.";
    DUPLICATE_CERTIFICATE = "IST0138" "GatewayDuplicateCertificate" Warning,
        "Several Gateways on the same pods use one certificate; clients that reuse HTTP/2 connections get 404.",
        "",
        "Put the hosts into one Gateway.";
    INGRESS_UNAFFECTED = "IST0140" "IngressRouteRulesNotAffected" Warning,
        "A gateway routes to a host whose own VirtualService, with its subsets and matches, is for the mesh only: it has no effect on requests that come in through the gateway.",
        "",
        "Add the gateway to that VirtualService, or state the subsets in the gateway's route.";
    UID_1337 = "IST0144" "InvalidApplicationUID" Warning,
        "The application runs as user 1337, the proxy's own: its traffic goes past the proxy and past every policy.",
        "securityContext: {runAsUser: 1337}",
        "Run it as another user.";
    CONFLICTING_GATEWAYS = "IST0145" "ConflictingGateways" Error,
        "Several Gateways open the same port of the same pods for the same hosts.",
        "",
        "Merge the servers, or give them different hosts.";
    JWT_ROUTING = "IST0149" "JwtClaimBasedRoutingWithoutRequestAuthN" Error,
        "A route depends on the claims of a token, and no RequestAuthentication verifies tokens at that gateway: the match never holds.",
        "headers:\n  \"@request.auth.claims.group\": {exact: admin}",
        "Add a RequestAuthentication for the gateway's workloads.";
    EXTERNAL_NAME_PORT = "IST0150" "ExternalNameServiceTypeInvalidPortName" Warning,
        "A port of an ExternalName service is declared as TCP; traffic to it may catch that of others.",
        "type: ExternalName\nports: [{name: tcp-web, port: 80}]",
        "Name the port by what is spoken, for instance https.";
    TELEMETRY_PROVIDER = "IST0157" "InvalidTelemetryProvider" Warning,
        "A Telemetry configures access logs without a provider, and there is no default one: it is ignored.",
        "accessLogging: [{}]",
        "Name a provider.";
    TELEMETRY_OVERLAP = "IST0159" "ConflictingTelemetryWorkloadSelectors" Error,
        "Several Telemetries of a namespace select the same workload; which one is used is not defined.",
        "",
        "Make their selectors disjoint.";
    TELEMETRY_DEFAULTS = "IST0160" "MultipleTelemetriesWithoutWorkloadSelectors" Error,
        "Several Telemetries of a namespace have no selector; which one is used is not defined.",
        "",
        "Keep one Telemetry without selector in each namespace.";
    CREDENTIAL = "IST0161" "InvalidGatewayCredential" Error,
        "The Secret that a Gateway uses has no certificate or no key: the listener is not served.",
        "",
        "Give it tls.crt and tls.key.";
    GATEWAY_PORT = "IST0162" "GatewayPortNotDefinedOnService" Warning,
        "A Gateway opens a port that no Service in front of its pods has, so that nobody reaches it that way.",
        "",
        "Add the port to the Service.";
    INTERNAL_GATEWAY = "IST0165" "ReferencedInternalGateway" Warning,
        "A VirtualService is bound to a Gateway that Istio made itself from a Kubernetes Gateway.",
        "gateways: [istio-autogenerated-k8s-gateway-web-http]",
        "Use an HTTPRoute for a Kubernetes Gateway.";
    INEFFECTIVE_SELECTOR = "IST0166" "IneffectiveSelector" Warning,
        "A policy selects the pods of a Kubernetes Gateway by their label; waypoints ignore it, and whether gateways heed it is a switch.",
        "selector:\n  matchLabels: {gateway.networking.k8s.io/gateway-name: web}",
        "Use targetRefs.";
    INEFFECTIVE_POLICY = "IST0167" "IneffectivePolicy" Warning,
        "The policy has no effect where it stands.",
        "",
        "Each message says why.";
    EMPTY_SUBSET = "IST0173" "DestinationRuleSubsetNotSelectPods" Error,
        "A subset selects no endpoint of its host: requests that are routed to it fail with 503.",
        "subsets: [{name: v3, labels: {version: v3}}]",
        "Compare its labels with those of the workloads.";
    UNKNOWN_RULE_HOST = "IST0174" "UnknownDestinationRuleHost" Warning,
        "A DestinationRule is for a host that no Service or ServiceEntry has, and has no effect.",
        "host: revews",
        "Correct the host; a short name is one of the DestinationRule's own namespace.";
    JWKS_UNRESTRICTED = "IST0175" "JwksUriFetchUnrestricted" Warning,
        "RequestAuthentications name URLs that the control plane fetches, and an istiod among the files has no list of blocked addresses: whoever may write one can make it call internal addresses.",
        "",
        "Set BLOCKED_CIDRS_IN_JWKS_URIS in istiod's environment.";
    ENTRY_PROTOCOL = "IST0177" "ConflictingServiceEntryProtocol" Warning,
        "ServiceEntries declare one port of one host with different protocols; the oldest counts.",
        "",
        "Use one protocol.";
    INCOMPLETE = "MM0001" "AnalysisIncomplete" Info,
        "There is so much to compare that shadowed rules were looked for in a part of it only.",
        "",
        "Analyze namespace by namespace (-n).";
    UNREADABLE = "MM0101" "FileUnreadable" Error,
        "A file cannot be read. The last good version of what stood in it stays in force.",
        "",
        "The message says why.";
    LOST_FILE = "MM0102" "FileVanished" Warning,
        "A file of the configuration folder is gone or cut off in a way that looks like an accident.",
        "",
        "`meshctl confirm` makes it so.";
    UNLISTED = "MM0103" "FolderUnreadable" Error,
        "A folder cannot be listed.",
        "",
        "Give the control plane the right to read it.";
    STATE_UNREADABLE = "MM0104" "StateUnreadable" Warning,
        "The store of last good versions cannot be read or written.",
        "",
        "Look at the state directory's owner and space.";
    TWICE = "MM0105" "DefinedTwice" Error,
        "An object is defined twice; only one of the two can be in force.",
        "",
        "Remove one of the two.";
    SEVERAL_CONFIGS = "MM0106" "SeveralMeshConfigs" Warning,
        "There are several MeshConfigs; one is in force.",
        "",
        "Keep one MeshConfig.";
    TRUST_DOMAIN_FIXED = "MM0107" "TrustDomainFixed" Warning,
        "A MeshConfig changes the trust domain of a mesh that has its authority already; the old one stays.",
        "",
        "A new trust domain needs a new authority.";
    CONTESTED_HOST = "MM0108" "ContestedHost" Warning,
        "Two services claim one host name. A core Service goes first, then the oldest.",
        "",
        "Give each a host of its own.";
    CONTESTED_ADDRESS = "MM0109" "ContestedAddress" Warning,
        "Two services claim one address. The oldest goes first.",
        "",
        "Give each service an address of its own.";
    NO_ADDRESS = "MM0110" "NoVirtualAddress" Warning,
        "There is no virtual address left for a service.",
        "",
        "Start the control plane with a larger --vip-cidr.";
    SETTINGS_HELD = "MM0111" "SettingsHeld" Error,
        "The ConfigMap with the settings of the mesh is gone or holds none; the last good ones stay in force.",
        "",
        "Apply it again.";
    OLDER_WINS = "MM0201" "PeerAuthenticationConflict" Warning,
        "Two PeerAuthentications are of one level (mesh, namespace or workload). Only the oldest counts, even if it says UNSET; a younger STRICT is without effect.",
        "",
        "Keep one for each level.";
    ROOT_SELECTOR = "MM0202" "RootPeerAuthenticationSelector" Warning,
        "A PeerAuthentication with a selector in the root namespace has no effect anywhere, although Istio's reference says that it holds for all namespaces.",
        "metadata: {name: strict, namespace: istio-system}\nspec:\n  selector: {matchLabels: {app: catalog}}",
        "Put it into the namespace of the workloads that it is meant for.";
    PORT_LEVEL_SERVICE_PORT = "MM0203" "PortLevelServicePort" Warning,
        "portLevelMtls names the port of a Service, where the port of the workload is meant; the setting has no effect.",
        "portLevelMtls: {80: {mode: DISABLE}}   # targetPort: 8080",
        "Write the workload's port.";
    REGULATED = "MM0204" "PlaintextInRegulatedNamespace" Error,
        "A namespace is marked as regulated (mini-mesh.io/regulated: \"true\"), and plaintext is accepted in it.",
        "spec: {mtls: {mode: PERMISSIVE}}",
        "Set mtls.mode: STRICT for the namespace, and no exception for a workload or port.";
    PLAINTEXT_BYPASS = "MM0205" "PlaintextBypass" Warning,
        "A DENY rule names callers by identity, and the workload accepts plaintext: a caller that sends plaintext has no identity and is not denied. (Info when no PeerAuthentication says anything.)",
        "action: DENY\nrules:\n- from: [{source: {namespaces: [untrusted]}}]",
        "Set mtls.mode: STRICT, or deny everybody but those who may (notPrincipals, notNamespaces).";
    NO_IDENTITY = "MM0206" "IdentityWithoutMutualTls" Warning,
        "A rule asks for the identity of the caller, and mutual TLS is disabled at every workload that it is for: it never matches.",
        "",
        "Remove mtls.mode: DISABLE.";
    BAD_MATCH = "MM0301" "MatchLeftOut" Warning,
        "A match of a VirtualService cannot be compiled and is left out.",
        "",
        "The message says why.";
    SCHEME_IN_PRINCIPAL = "MM0401" "SchemeInPrincipal" Warning,
        "principals are written without spiffe://. With it the value never matches: an ALLOW lets nobody in, a DENY denies nobody.",
        "principals: [spiffe://cluster.local/ns/shop/sa/web]",
        "Remove the scheme: TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT.";
    LITERAL_STAR = "MM0402" "LiteralStar" Warning,
        "A star is a wildcard only as the first or last character, and not both. Any other stands for itself, so that the value hardly ever matches.",
        "paths: [\"*admin*\", /users/*/keys]",
        "Use a path template (/users/{*}/keys), or list the values.";
    HOST_PORT = "MM0403" "HostWithoutPort" Warning,
        "Hosts are compared with the whole authority. \"a.com\" does not cover \"a.com:8080\", which reaches the same application: a DENY is got round by writing the port.",
        "action: DENY\nrules:\n- to: [{operation: {hosts: [a.com]}}]",
        "List both: [\"a.com\", \"a.com:*\"].";
    HTTP_ON_TCP = "MM0404" "HttpFieldsOnTcp" Warning,
        "A rule tests what only HTTP has, and applies to a port that is not HTTP. An ALLOW rule is dropped there; from a DENY rule those fields are dropped, so that it denies every connection.",
        "action: DENY\nrules:\n- to: [{operation: {paths: [/admin]}}]   # and port 5432 is TCP",
        "Restrict the rule to the HTTP ports (operation.ports).";
    STRAY_DASH = "MM0405" "StrayDash" Warning,
        "A dash too many makes two entries of one, and entries of a list are ORed: the rule holds when either does. An ALLOW then lets anybody do the one thing, and the caller do anything.",
        "rules:\n- from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]\n- to: [{operation: {methods: [GET]}}]",
        "Put both under one dash.";
    ANONYMOUS = "MM0406" "AnonymousAllowed" Warning,
        "An ALLOW source that only excludes identities also holds for callers that have none: plaintext, or without a token.",
        "- from: [{source: {notNamespaces: [untrusted]}}]",
        "Add principals: [\"*\"] (or requestPrincipals: [\"*\"]) to demand one.";
    REMOTE_IP = "MM0407" "RemoteIpAtSidecar" Warning,
        "At a sidecar remoteIpBlocks reads the last entry of X-Forwarded-For, which any caller can write.",
        "remoteIpBlocks: [203.0.113.0/24]",
        "Use remoteIpBlocks at gateways, ipBlocks or principals elsewhere.";
    IPV4_ONLY = "MM0408" "AddressFamilyMissing" Warning,
        "0.0.0.0/0 covers no IPv6 address, and ::/0 no IPv4 address.",
        "ipBlocks: [0.0.0.0/0]",
        "List both, or leave the field out.";
    BARE_ACCOUNT = "MM0409" "BareAccountInRootNamespace" Warning,
        "A service account without namespace means one of the policy's own namespace. In a policy of the root namespace that is the root namespace, not that of the workload.",
        "serviceAccounts: [web]   # in istio-system",
        "Write NAMESPACE/ACCOUNT.";
    TARGET_REFS = "MM0410" "TargetRefsWithoutTarget" Warning,
        "A policy with targetRefs applies at gateways and waypoints only. Sidecars ignore it, and do not fall back to the whole namespace.",
        "targetRefs: [{kind: Service, group: \"\", name: catalog}]",
        "Use a selector to protect workloads.";
    SHADOWED = "MM0411" "ShadowedRule" Warning,
        "Another rule with the same action matches everything that this one does: it changes nothing.",
        "",
        "Remove it, or narrow the other one.";
    NEVER_ALLOWED = "MM0412" "AllowBehindDeny" Warning,
        "A DENY rule covers everything that this ALLOW rule matches: it never lets anything pass.",
        "",
        "Narrow the DENY rule, or remove this one.";
    CONTRADICTION = "MM0413" "NeverMatches" Warning,
        "What the rule asks for excludes itself, so that it never matches: an ALLOW rule lets nobody in, a DENY rule denies nobody.",
        "paths: [/api]\nnotPaths: [/api*]",
        "Remove one of the two.";
    SERVICE_PORT = "MM0414" "ServicePortInPolicy" Warning,
        "A rule names the port of a Service. Policies test the port of the workload, so that the rule never matches.",
        "ports: [\"80\"]   # targetPort: 8080",
        "Write the workload's port.";
    NOTHING_ALLOWED = "MM0415" "NothingAllowed" Info,
        "An ALLOW policy without rules selects workloads that no other ALLOW policy is for: every request to them is denied. An AUDIT policy without rules records nothing.",
        "selector: {matchLabels: {app: catalog}}\naction: ALLOW",
        "Add rules, or remove the policy; rules: [{}] allows everything.";
    GATEWAY_LOCKED = "MM0416" "GatewayLockedOut" Warning,
        "A policy that allows nothing (or denies everything) holds for an ingress gateway too, and nothing allows requests there: nobody reaches the mesh from outside.",
        "metadata: {name: deny-all, namespace: istio-system}\nspec: {}",
        "Allow what the gateway is to serve with a policy that selects it.";
    INGRESS_LOCKED = "MM0417" "IngressNotAllowed" Warning,
        "A gateway routes to a workload, and no ALLOW rule of that workload admits the gateway as a caller: requests from outside get 403.",
        "",
        "Add the gateway's principal to `from`.";
    SCRAPER_LOCKED = "MM0418" "ScraperNotAllowed" Info,
        "A workload asks to be scraped on a port of its own, and no ALLOW policy lets any request to it pass.",
        "annotations: {prometheus.io/scrape: \"true\", prometheus.io/port: \"9102\"}",
        "Allow the scraper: principals of Prometheus, ports: [\"9102\"].";
    FOREIGN_TRUST_DOMAIN = "MM0419" "UnknownTrustDomain" Warning,
        "A principal is of a trust domain that is neither the mesh's nor one of its aliases. (Info when no MeshConfig says which one is the mesh's.)",
        "principals: [old.example/ns/shop/sa/web]",
        "Correct it, or add the trust domain to trustDomainAliases.";
    UNKNOWN_ACCOUNT = "MM0420" "UnknownServiceAccount" Warning,
        "A caller is named by a service account that nobody has: the clause never matches.",
        "principals: [cluster.local/ns/shop/sa/wep]",
        "Correct the account; it is that of the caller's workloads.";
    DRY_RUN_ONLY = "MM0421" "OnlyDryRunAllows" Info,
        "Only dry-run ALLOW policies are for these workloads: nothing is denied.",
        "annotations: {istio.io/dry-run: \"true\"}",
        "Remove the annotation to enforce the policy.";
    METHOD_CASE = "MM0422" "MethodNeverMatches" Warning,
        "Methods are compared byte for byte, and requests carry them in capitals.",
        "methods: [get]",
        "Write it in capitals.";
    PATH_FORM = "MM0423" "PathNeverMatches" Warning,
        "No request has such a path where policy is judged: paths start with a slash, have neither query nor fragment, and are normalised first.",
        "paths: [api/v1, \"/search?q=*\", /a/../b, /%61dmin]",
        "Write the path as it is after normalisation.";
    PATH_GAP = "MM0424" "PathVariants" Info,
        "An exact path refuses itself only: \"/admin/\" and what is below it pass, although many applications serve them alike. A prefix such as \"/admin*\" also covers \"/administrator\".",
        "action: DENY\nrules:\n- to: [{operation: {paths: [/admin]}}]",
        "List [\"/admin\", \"/admin/*\"]; better, allow what is wanted rather than deny what is not.";
    COMPLEMENTS = "MM0425" "ComplementsOred" Warning,
        "Entries that each exclude something are ORed, and together hold for everything: what the one excludes the other takes.",
        "- operation: {notPaths: [/a]}\n- operation: {notPaths: [/b]}",
        "Put the values into one list: notPaths: [/a, /b].";
    REQUEST_PRINCIPAL = "MM0426" "RequestPrincipalNeverMatches" Warning,
        "A request principal is ISSUER/SUBJECT, cut at the last slash; a leading star is looked at first. \"*/*\" asks for the subject \"*\", \"https://*\" for the issuer \"https:/\".",
        "requestPrincipals: [\"*/*\"]",
        "Write \"*\" for any token, \"ISSUER/*\" for any of an issuer.";
    REGEX = "MM0427" "RegexNotSupported" Warning,
        "The value looks like a regular expression. Policies compare text: the value stands for itself.",
        "paths: [\"/api/.*\", \"^/admin$\"]",
        "Use a prefix (/api/*), a suffix, or a path template.";
    PRINCIPAL_FORM = "MM0428" "PrincipalNeverMatches" Warning,
        "A principal is TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT; no identity has another form, so that the value never matches.",
        "principals: [shop/web]",
        "Write it in full, or use serviceAccounts: [NAMESPACE/ACCOUNT].";
    HOST_FORM = "MM0429" "HostNeverMatches" Warning,
        "A host of a request has neither scheme nor path.",
        "hosts: [\"https://a.com\"]",
        "Write the host alone.";
    ABSENT_HOLDS = "MM0435" "AbsentValueAllowed" Info,
        "An ALLOW rule whose condition only excludes values also holds when the header or claim is absent.",
        "when: [{key: \"request.headers[x-tenant]\", notValues: [guest]}]",
        "Add values: [\"*\"] to demand that there is one.";
    NOT_NORMALIZED = "MM0436" "PathsNotNormalized" Warning,
        "Paths are not normalised (pathNormalization NONE), and policies test paths: /./admin, //admin and /%61dmin are other paths to them and the same to most applications.",
        "pathNormalization: {normalization: NONE}",
        "Use BASE, or MERGE_SLASHES where the application merges slashes.";
    EXCLUDED_FROM_ALLOW = "MM0437" "ExceptionIsDenied" Info,
        "An ALLOW rule that asks for a token excludes paths, and no other rule allows them: requests to them are denied, not let through without a token.",
        "rules:\n- from: [{source: {requestPrincipals: [\"*\"]}}]\n  to: [{operation: {notPaths: [/healthz]}}]",
        "Add a rule that allows the paths to anybody.";
    UNKNOWN_AUTHORIZER = "MM0438" "UnknownAuthorizer" Warning,
        "A CUSTOM policy names a provider that MeshConfig does not state as an external authorizer. Nobody can be asked, so what the policy matches is denied.",
        "spec:\n  action: CUSTOM\n  provider: {name: opa}   # extensionProviders has only `authz`",
        "Correct the name, or add the provider to extensionProviders.";
    FOREIGN_ROUTE = "MM0501" "RouteForForeignHost" Info,
        "A VirtualService routes the host of another namespace for every caller.",
        "",
        "Make sure that the owner of the host agrees.";
    SECOND_RULE = "MM0502" "SeveralDestinationRules" Warning,
        "Several DestinationRules of a namespace are for one host. Their subsets are put together, but only the oldest trafficPolicy counts.",
        "",
        "Keep one DestinationRule for each host.";
    PLAINTEXT_TO_STRICT = "MM0503" "PlaintextToStrict" Error,
        "A DestinationRule sends plaintext to workloads that accept mutual TLS only: every connection is closed.",
        "trafficPolicy: {tls: {mode: DISABLE}}",
        "Remove trafficPolicy.tls; the mesh chooses by what the server accepts.";
    WILDCARD_OVERLAP = "MM0504" "OverlappingWildcardHosts" Warning,
        "The hosts of two VirtualServices for the mesh overlap. The more specific one is used whole: the routes of the other are not tried for what it does not match.",
        "hosts: [\"*.example.com\"]   # and another has api.example.com",
        "Make the hosts disjoint, or merge the routes.";
    ENTRY_OVERLAP = "MM0505" "OverlappingServiceEntryHosts" Warning,
        "Two ServiceEntries are for the same host and port.",
        "",
        "Merge them.";
    PORT_LEVEL_TLS = "MM0506" "PortLevelDropsTls" Warning,
        "portLevelSettings do not inherit: an entry without tls drops the tls of the rule for that port.",
        "trafficPolicy:\n  tls: {mode: ISTIO_MUTUAL}\n  portLevelSettings:\n  - {port: {number: 80}, loadBalancer: {simple: RANDOM}}",
        "Repeat tls in the entry for the port.";
    DOUBLE_SLASH = "MM0507" "RewriteMakesDoubleSlash" Info,
        "Rewriting the prefix \"/foo\" to \"/\" turns \"/foo/x\" into \"//x\", which policies and applications may read as another path.",
        "match: [{uri: {prefix: /foo}}]\nrewrite: {uri: /}",
        "Match the prefix /foo/ first, then /foo.";
    PLAINTEXT_ON_443 = "MM0508" "PlaintextOnTlsPort" Warning,
        "A ServiceEntry declares port 443 as HTTP, and no DestinationRule opens TLS to it: clients send HTTPS there, and the proxy reads it as HTTP and fails.",
        "ports: [{number: 443, name: http, protocol: HTTP}]",
        "Declare it as HTTPS or TLS.";
    DOUBLE_TLS = "MM0509" "TlsInTls" Warning,
        "A port that carries TLS already gets a DestinationRule that opens TLS: the server finds TLS within TLS.",
        "ports: [{number: 443, name: https, protocol: HTTPS}]   # with tls: {mode: SIMPLE}",
        "Declare the port as HTTP if the proxy is to open TLS, or remove tls.";
    GATEWAY_TLS = "MM0510" "GatewayTlsMismatch" Warning,
        "A Gateway passes TLS through, and the VirtualService has http routes only (or the Gateway ends TLS, and it has tls routes only): none of them is used.",
        "tls: {mode: PASSTHROUGH}   # and the VirtualService has http: […]",
        "Use tls routes with sniHosts for PASSTHROUGH, http routes where TLS ends.";
    NOT_ENFORCED = "MM0601" "NotEnforced" Warning,
        "The field or kind is valid in Istio and has no effect in this version.",
        "",
        "Do not rely on it.";
    FOREIGN = "MM0602" "PassedOver" Info,
        "The document is not the mesh's and is passed over.",
        "",
        "Nothing.";
    TOKEN_NOT_REQUIRED = "MM0701" "TokenNotRequired" Warning,
        "A RequestAuthentication refuses bad tokens and lets requests without any pass; no policy requires a token of these workloads.",
        "kind: RequestAuthentication",
        "Add an AuthorizationPolicy: DENY with notRequestPrincipals: [\"*\"], or ALLOW with requestPrincipals.";
    TOKEN_NOT_VERIFIED = "MM0702" "TokenNeverVerified" Warning,
        "A rule asks for a token, and no RequestAuthentication verifies tokens at the workload: there is never a principal or claim. An ALLOW rule never matches, a DENY of those without token denies everybody.",
        "- from: [{source: {requestPrincipals: [\"*\"]}}]",
        "Add a RequestAuthentication for the issuer with the same selector.";
    JWKS_PLAINTEXT = "MM0703" "JwksOverPlaintext" Warning,
        "Keys are fetched over http://: whoever is on the way can put in keys of their own and sign any token.",
        "jwksUri: http://idp.example/keys",
        "Use https://.";
    NO_AUDIENCE = "MM0704" "AudienceNotChecked" Info,
        "Without audiences any token of the issuer is accepted, also one that was issued for another service.",
        "jwtRules: [{issuer: https://idp.example}]",
        "State audiences.";
}
