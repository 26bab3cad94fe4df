//! Every check: its code, what it asks, what it means when it fails, and what to do. docs/check.md is this table; a
//! test holds the two equal.

/// Where the page is, as messages name it.
const PAGE: &str = "docs/check.md";

/// A section of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// The API server.
    Kubernetes,
    /// Before an installation.
    Install,
    /// The control plane.
    Control,
    /// Injection and validation.
    Webhooks,
    /// Authority and roots.
    Identity,
    /// Proxies.
    Proxies,
    /// Workloads and services.
    Workloads,
}

impl Section {
    /// Its title.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes-api",
            Self::Install => "pre-install",
            Self::Control => "control-plane",
            Self::Webhooks => "webhooks",
            Self::Identity => "identity",
            Self::Proxies => "data-plane",
            Self::Workloads => "workloads",
        }
    }
}

/// One check.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// Its code: the anchor of the page, and what programs look at.
    pub(super) id: &'static str,
    /// Where it stands.
    pub(super) section: Section,
    /// What is so when it is well.
    pub(super) title: &'static str,
    /// What it looks at, and what happens when it is not well.
    pub(super) meaning: &'static str,
    /// What to do.
    pub(super) fix: &'static str,
}

impl Check {
    /// Its place in the documentation.
    pub(super) fn anchor(&self) -> String {
        format!("{PAGE}#{}", self.id)
    }
}

macro_rules! checks {
    ($($ident:ident = $id:literal $section:ident $title:literal, $meaning:literal, $fix:literal;)*) => {
        $(pub(super) const $ident: &Check = &Check {
            id: $id,
            section: Section::$section,
            title: $title,
            meaning: $meaning,
            fix: $fix,
        };)*

        /// All of them, section by section.
        #[cfg(test)]
        const ALL: &[&Check] = &[$($ident),*];
    };
}

checks! {
    KUBERNETES_API = "kubernetes-reachable" Kubernetes "can query the Kubernetes API",
        "The API server answers with the credentials of the kubeconfig. Nothing else can be checked before.",
        "Choose the cluster with --kubeconfig and --context; `kubectl cluster-info` tells whether it is up.";
    KUBERNETES_VERSION = "kubernetes-version" Kubernetes "is running a supported Kubernetes version",
        "Kubernetes 1.29 or newer has native sidecars: proxies start before init containers and end after the application, and Jobs complete by themselves. On older servers the mesh falls back to plain containers, and below 1.25 it is not supported.",
        "Upgrade the cluster; until then read what docs/injection.md says of clusters without native sidecars.";
    INSTALL_RIGHTS = "install-rights" Install "can create what an installation needs",
        "This user may create every kind of object that `meshctl install` applies, in the cluster and in the control plane's namespace. The missing rights are listed.",
        "Install as an administrator of the cluster (cluster-admin), or have these rights granted.";
    INSTALL_NAMESPACE = "install-namespace" Install "control plane namespace can be used",
        "The namespace of the control plane is not there yet, or is there and not being deleted.",
        "Wait until the namespace is gone: `kubectl get namespace` shows its finalizers.";
    INSTALL_CRDS = "install-crds" Install "custom resource definitions are absent or can be used",
        "Definitions of Istio's kinds that are there already are used and not overwritten. Each must serve a version that the mesh reads.",
        "Update the definitions of Istio to a version that serves v1 or v1beta1, or delete them when Istio is gone.";
    INSTALL_WEBHOOKS = "install-webhooks" Install "no other mesh injects into pods",
        "Another mesh's injector is registered. A pod that both inject has two proxies that intercept each other's traffic.",
        "Leave namespaces to one mesh each: give this one a revision and label namespaces with istio.io/rev, or uninstall the other mesh.";
    CRDS = "crds" Control "custom resource definitions are installed",
        "Policies and routes are objects of these kinds. Without its definition a kind can be neither written nor enforced.",
        "`meshctl install --crds | kubectl apply -f -` installs them.";
    CONTROL_SETTINGS = "control-settings" Control "settings of the control plane are there",
        "The ConfigMap mini-mesh of each revision holds the settings of the mesh (mesh.yaml) and of injection (inject.yaml). Without it the control plane does not start and nothing is injected.",
        "`meshctl upgrade` restores it.";
    CONTROL_READY = "control-ready" Control "control plane is ready",
        "Every replica of the control plane runs and is ready. Proxies keep serving with what they have while none is, but new pods get no configuration and no certificate.",
        "`meshctl logs --control` and `kubectl describe pod` in its namespace say why.";
    CONTROL_ANSWERS = "control-answers" Control "control plane answers",
        "Each replica answers at its admin port by port-forward.",
        "`meshctl logs --control` says what it does; port-forward takes the right to create pods/portforward in its namespace.";
    CONTROL_LEADER = "control-leader" Control "one replica leads",
        "One replica holds the Lease mesh-control-leader and renews it. The leader keeps webhooks, roots in namespaces and the conditions of policies current.",
        "`meshctl logs --control` says why no replica takes the lease: often the right to update leases is missing.";
    CONTROL_SOURCES = "control-sources" Control "configuration is read completely",
        "The control plane reads everything it watches. While a watch is down, or an object is held in its last good version, what is in force is older than what is written.",
        "`meshctl status` names the watch or the object; `meshctl logs --control` says more.";
    CONTROL_POLICIES = "control-policies" Control "policies and routes are accepted",
        "No object of the mesh's kinds has an error. One that has is not in force: its last good version is, if there is one.",
        "`meshctl analyze` lists every problem with its field and what to do.";
    CONTROL_KEYS = "control-keys" Control "keys of token issuers are there",
        "For each issuer that a RequestAuthentication names the control plane has signing keys. Without keys all tokens of the issuer are refused.",
        "Let the control plane reach the URL, or state the keys with jwks.";
    CONTROL_VERSION = "control-version" Control "meshctl and the control plane have one version",
        "This program and the control plane are of the same version. Others work as long as they are one minor version apart at most.",
        "Use the meshctl of the control plane's version, or `meshctl upgrade`.";
    WEBHOOKS = "webhook-configurations" Webhooks "webhooks are registered",
        "The API server asks the control plane for each pod of an injected namespace and for each policy. Without the injector new pods have no proxy; without the validator mistakes show only afterwards.",
        "`meshctl upgrade` restores them.";
    WEBHOOK_POLICY = "webhook-failure-policy" Webhooks "injection fails closed",
        "With failurePolicy Ignore a pod that is created while the control plane is away gets no proxy, and nobody is told.",
        "Set webhooks.injectorFailurePolicy to Fail.";
    WEBHOOK_TRUST = "webhook-trust" Webhooks "webhooks trust the mesh's authority",
        "The caBundle of each webhook holds the authority's present root. With another one the API server refuses the control plane's certificate and every pod of an injected namespace with it.",
        "The leader restores it within seconds: `meshctl logs --control` says what keeps it from that.";
    WEBHOOK_CERTIFICATE = "webhook-certificate" Webhooks "webhooks' certificates are valid",
        "Each replica's certificate for the webhooks is verified with the authority's root, as the API server does it, and has an hour left at least. It lives a day, and is renewed at half of that.",
        "It is renewed by the control plane itself: `meshctl logs --control` says what keeps it from that; `kubectl rollout restart` of the control plane makes a new one.";
    WEBHOOK_INJECTS = "webhook-injects" Webhooks "injector answers",
        "A pod that asks for a proxy is created as a dry run, and has one: API server, network, certificate and injector work together.",
        "The message is the API server's. A time-out means that it does not reach the control plane's Service; `meshctl check` above says whether that is ready.";
    WEBHOOK_VALIDATES = "webhook-validates" Webhooks "validator answers",
        "A policy that cannot be valid is created as a dry run, and is refused by the control plane.",
        "The message is the API server's. Without the validator `meshctl analyze` is where mistakes show.";
    TRUST_ROOTS = "trust-roots" Identity "trust anchors are valid",
        "The roots of the authority are valid now and for at least 60 days more. When a root ends, every certificate below it does.",
        "Rotate the root before it ends.";
    TRUST_ISSUERS = "trust-issuers" Identity "issuing certificates are valid",
        "The intermediates that sign workload certificates are valid, for longer than a workload certificate lives.",
        "They are renewed by the control plane itself: `meshctl logs --control` says what keeps it from that.";
    TRUST_BUNDLES = "trust-bundles" Identity "every namespace with proxies has the roots",
        "The ConfigMap mini-mesh-ca-root-cert of each namespace with proxies holds the present roots. A pod without it does not start; one with an old one trusts no new control plane.",
        "The leader writes it within seconds: `meshctl logs --control` says what keeps it from that.";
    PROXIES_RUN = "proxies-run" Proxies "proxies are ready",
        "The proxy runs in every meshed pod and says that it is ready: it has a certificate, its configuration and its listeners. Until then the pod's application does not start, or is not reached.",
        "`meshctl logs --proxy POD.NAMESPACE` and `kubectl describe pod` say why not.";
    PROXIES_CONNECTED = "proxies-connected" Proxies "proxies are connected to the control plane",
        "Each proxy has an open stream to a replica. One that has none serves on with what it has, and learns of no change.",
        "`meshctl logs --proxy POD.NAMESPACE` says why it does not connect.";
    PROXIES_SYNCED = "proxies-synced" Proxies "proxies are in sync",
        "Each proxy has acknowledged what it was sent last. One that refused something keeps what it had.",
        "`meshctl proxy-status POD.NAMESPACE` shows each resource type and the reason.";
    PROXIES_VERSION = "proxies-version" Proxies "proxies have the control plane's version",
        "Proxies keep the version of the time at which their pod was created.",
        "`kubectl rollout restart` gives pods the present version.";
    PROXIES_CERTIFICATES = "proxies-certificates" Proxies "proxies' certificates are valid and match the authority",
        "Each proxy answers, has a valid certificate, and trusts the present root. One that does not can neither call nor be called.",
        "`meshctl proxy-config secret POD.NAMESPACE` shows its certificates; restart the pod if they stay.";
    PROXIES_CLOCKS = "proxies-clocks" Proxies "clocks agree",
        "The clock of each proxy's node is within 5 seconds of the control plane's. Certificates and tokens begin and end by the clock.",
        "Set up time synchronisation on the node.";
    PROXIES_STRICT = "proxies-strict" Proxies "mutual TLS is required",
        "The mode of each workload and port is STRICT. PERMISSIVE takes plain connections too, from callers that nobody has identified; it is for the time of a migration.",
        "Apply a PeerAuthentication with mode STRICT once `meshctl x denied` and access logs show no plain caller that is needed.";
    UNMESHED = "unmeshed" Workloads "pods of injected namespaces have a proxy",
        "A pod in a namespace that asks for injection has no proxy: it was created before the label, or while injection was away. It is outside of the mesh and no policy holds for it.",
        "`kubectl rollout restart` its workload; `meshctl x check-inject POD.NAMESPACE` says why it has none.";
    INJECTION_EVENTS = "injection-events" Workloads "no pod was refused a proxy",
        "Events of the last hour tell of pods that could not be created or injected.",
        "The events' words say why; `meshctl x check-inject` explains the decision.";
    PORTS_NAMED = "ports-named" Workloads "service ports say their protocol",
        "A port whose appProtocol or name says no protocol is taken for what its first bytes look like. That costs time at servers that speak first, and routes and HTTP rules hold only for what is known to be HTTP.",
        "Set appProtocol, or name ports http-…, grpc-…, tcp-….";
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTRODUCTION: &str = "\
# What `meshctl check` looks at

`meshctl check --pre` tells whether a cluster and this user can install the mesh, `meshctl check` whether the mesh is
well, `meshctl check --proxy -n NAMESPACE` looks at the proxies of one namespace. √ is well, ‼ may be meant, × is wrong;
the exit status is 1 when anything is ×. `-o short` leaves out what is well, `-o json` is for programs: `code` of a check
is its heading here and does not change. `--wait SECONDS` goes on looking until nothing is × any more.

On a mesh on this machine it makes those checks that have a meaning there.
";

    fn page() -> String {
        let mut page = String::from(INTRODUCTION);
        let mut section = None;
        for check in ALL {
            if section != Some(check.section) {
                page.push_str(&format!("\n## {}\n", check.section.as_str()));
                section = Some(check.section);
            }
            page.push_str(&format!(
                "\n### {}\n\n√ {}\n\n{}\n\nFix: {}\n",
                check.id, check.title, check.meaning, check.fix
            ));
        }
        page
    }

    #[test]
    fn the_page_is_the_catalogue() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/check.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, page()).expect("the page can be written");
        }
        let written = std::fs::read_to_string(path).expect("docs/check.md is there");
        assert!(written == page(), "run this test with UPDATE_DOCS=1");
    }

    #[test]
    fn no_two_checks_share_a_code() {
        let mut ids: Vec<&str> = ALL.iter().map(|check| check.id).collect();
        ids.sort_unstable();
        let number = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), number);
    }
}
