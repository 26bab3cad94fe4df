use super::*;
use mesh_api::name::TrustDomain;
use mesh_identity::attest::RedeemError;
use mesh_identity::ca::CaSettings;
use std::net::IpAddr;

const FRONTEND: &str = "spiffe://cluster.local/ns/web/sa/frontend";
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const MINUTE: Duration = Duration::from_secs(60);

struct Bench {
    state: tempfile::TempDir,
    service: Option<IssueService>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { state: tempfile::tempdir().expect("a folder"), service: None };
        bench.restart();
        bench
    }

    fn restart(&mut self) {
        self.service = None;
        let directory = StateDirectory::open(&self.state.path().join("ca")).expect("opened");
        let settings = CaSettings::new(TrustDomain::parse("cluster.local").expect("valid"));
        let (authority, _) = directory.load_or_create(settings, SystemTime::now()).expect("an authority");
        let tokens = self.state.path().join("join-tokens.json");
        self.service = Some(IssueService::new(authority, Some(directory), tokens).expect("a service"));
    }

    fn service(&self) -> &IssueService {
        self.service.as_ref().expect("it is there")
    }

    fn token(&self) -> String {
        self.service().issue_token(id(FRONTEND), MINUTE, SystemTime::now()).expect("a token")
    }

    fn ask(&self, attestation: Attestation<'_>) -> Result<Issued, IssueRefusal> {
        self.ask_with(&csr(), None, attestation)
    }

    fn ask_with(
        &self,
        csr: &[u8],
        ttl: Option<Duration>,
        attestation: Attestation<'_>,
    ) -> Result<Issued, IssueRefusal> {
        let ask = Ask { csr, ttl, attestation, address: ADDRESS };
        self.service().issue(ask, SystemTime::now(), Instant::now())
    }
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).expect("valid")
}

fn csr() -> Vec<u8> {
    csr::build(&WorkloadKey::generate().expect("a key")).expect("a request")
}

#[test]
fn the_identity_is_the_tokens_and_the_token_is_good_once_also_after_a_restart() {
    let mut bench = Bench::new();
    let token = bench.token();
    let issued = bench.ask(Attestation::JoinToken(&token)).expect("issued");
    assert_eq!(issued.chain.id, id(FRONTEND));
    for _ in 0..2 {
        let refusal = bench.ask(Attestation::JoinToken(&token)).expect_err("refused");
        let used = AttestError::JoinToken(RedeemError::Used);
        assert!(matches!(&refusal, IssueRefusal::Attestation(reason) if *reason == used), "{refusal:?}");
        bench.restart();
    }
}

#[test]
fn a_lost_answer_is_given_again_to_the_same_key_and_to_no_other() {
    let mut bench = Bench::new();
    let token = bench.token();
    let attestation = Attestation::JoinToken(&token);
    let key = WorkloadKey::generate().expect("a key");
    for _ in 0..2 {
        // A request is signed anew each time; what counts is the key in it.
        let again = csr::build(&key).expect("a request");
        let issued = bench.ask_with(&again, None, attestation).expect("issued");
        assert_eq!(issued.chain.id, id(FRONTEND));
        assert!(matches!(bench.ask(attestation), Err(IssueRefusal::Attestation(_))));
        bench.restart();
    }
}

#[test]
fn a_mistake_in_the_request_does_not_cost_the_token() {
    let bench = Bench::new();
    let token = bench.token();
    let attestation = Attestation::JoinToken(&token);
    assert!(matches!(bench.ask_with(b"not a request", None, attestation), Err(IssueRefusal::Issue(_))));
    let century = Some(Duration::from_secs(100 * 365 * 86_400));
    assert!(matches!(bench.ask_with(&csr(), century, attestation), Err(IssueRefusal::Issue(_))));
    assert!(bench.ask(attestation).is_ok());
    assert_eq!(bench.service().counts(), (1, 2));
}

#[test]
fn tokens_are_for_workloads_of_this_mesh_only() {
    let bench = Bench::new();
    for foreign in ["spiffe://other.example/ns/web/sa/frontend", "spiffe://cluster.local/admin"] {
        let refused = bench.service().issue_token(id(foreign), MINUTE, SystemTime::now());
        assert!(matches!(refused, Err(TokenRefusal::ForeignTrustDomain { .. })), "{foreign}");
    }
}

#[test]
fn refused_attempts_from_one_address_are_limited() {
    let bench = Bench::new();
    let mut answers = Vec::new();
    for _ in 0..60 {
        answers.push(bench.ask(Attestation::JoinToken("mmjoin_guess")).expect_err("refused"));
    }
    assert!(matches!(answers.first(), Some(IssueRefusal::Attestation(_))));
    assert!(matches!(answers.last(), Some(IssueRefusal::TooMany { .. })));
}

#[test]
fn damaged_tokens_keep_the_service_from_starting() {
    let mut bench = Bench::new();
    bench.token();
    bench.service = None;
    let tokens = bench.state.path().join("join-tokens.json");
    std::fs::write(&tokens, b"{").expect("written");
    let directory = StateDirectory::open(&bench.state.path().join("ca")).expect("opened");
    let settings = CaSettings::new(TrustDomain::parse("cluster.local").expect("valid"));
    let (authority, _) = directory.load_or_create(settings, SystemTime::now()).expect("an authority");
    assert!(matches!(
        IssueService::new(authority, Some(directory), tokens),
        Err(StateFileError::Damaged { .. })
    ));
}

#[test]
fn the_own_certificate_is_renewed_at_half_of_its_life() {
    let bench = Bench::new();
    let domains = vec![TrustDomain::parse("cluster.local").expect("valid")];
    let source = IdentitySource::new(bench.service().authority().trust_bundle(), domains);
    let own = id("spiffe://cluster.local/ns/istio-system/sa/mesh-control");
    let now = SystemTime::now();
    let renew = |at| bench.service().renew_own(&source, &own, at).expect("no failure");
    assert!(renew(now));
    assert!(!renew(now + Duration::from_secs(11 * 3600)));
    assert!(renew(now + Duration::from_secs(13 * 3600)));
}
