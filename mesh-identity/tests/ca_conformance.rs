//! The rules that every issuer keeps, run against the built-in authority as made and as read from disk.

use std::time::{Duration, SystemTime};

use mesh_api::name::{SpiffeId, TrustDomain};
use mesh_identity::ca::disk::{Origin, StateDirectory};
use mesh_identity::ca::{Authority, BACKDATE, CaSettings, Event, IssueError, Issuer, MaintainError};
use mesh_identity::certificate::inspect;
use mesh_identity::csr;
use mesh_identity::key::WorkloadKey;
use mesh_identity::svid::Svid;
use mesh_identity::verify::{PeerRole, verify_peer};
use rcgen::{CertificateParams, DnType, IsCa, KeyPair, SanType};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_700)
}

fn mesh() -> TrustDomain {
    TrustDomain::parse("cluster.local").expect("valid")
}

fn catalog() -> SpiffeId {
    SpiffeId::parse("spiffe://cluster.local/ns/backend/sa/catalog").expect("valid")
}

fn request() -> Vec<u8> {
    csr::build(&WorkloadKey::generate().expect("key")).expect("request")
}

fn made() -> Authority {
    Authority::create(CaSettings::new(mesh()), now()).expect("an authority")
}

/// Runs a rule against every issuer that there is.
fn every_issuer(rule: impl Fn(&dyn Issuer)) {
    rule(&made());
    let parent = tempfile::tempdir().expect("a directory");
    let load = || {
        let directory = StateDirectory::open(&parent.path().join("ca")).expect("opened");
        directory.load_or_create(CaSettings::new(mesh()), now()).expect("usable")
    };
    assert_eq!(load().1, Origin::Created);
    let (loaded, origin) = load();
    assert_eq!(origin, Origin::Loaded);
    rule(&loaded);
}

#[test]
fn what_is_issued_verifies_against_the_bundle_and_belongs_to_the_key() {
    every_issuer(|issuer| {
        let key = WorkloadKey::generate().expect("key");
        let csr = csr::build(&key).expect("request");
        let issued = issuer.issue(&csr, &catalog(), None, now()).expect("issued");
        assert_eq!(issued.id, catalog());
        let svid = Svid::new(issued.chain, &key).expect("belongs together");
        assert_eq!(svid.serial(), issued.serial);
        assert_eq!((svid.not_before(), svid.not_after()), (issued.not_before, issued.not_after));
        for role in [PeerRole::Client, PeerRole::Server] {
            let peer = verify_peer(svid.chain(), &issuer.trust_bundle(), &[mesh()], role, now());
            assert_eq!(peer.expect("good").id, catalog());
        }
    });
}

#[test]
fn nothing_in_the_request_but_the_key_reaches_the_certificate() {
    every_issuer(|issuer| {
        let pair = KeyPair::generate().expect("key");
        let mut wishes = CertificateParams::default();
        wishes.distinguished_name.push(DnType::CommonName, "spiffe://cluster.local/ns/root/sa/admin");
        wishes.subject_alt_names = vec![
            SanType::URI("spiffe://cluster.local/ns/root/sa/admin".try_into().expect("ASCII")),
            SanType::DnsName("admin.example.com".try_into().expect("ASCII")),
        ];
        wishes.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        wishes.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let csr = wishes.serialize_request(&pair).expect("request");
        let issued = issuer.issue(csr.der(), &catalog(), None, now()).expect("issued");
        let leaf = inspect(&issued.chain[0]).expect("readable");
        assert_eq!(leaf.spiffe_id, Some(catalog()));
        assert_eq!(leaf.subject, "");
        assert!(!leaf.is_ca);
        let (_, certificate) = X509Certificate::from_der(&issued.chain[0]).expect("readable");
        let names = certificate.subject_alternative_name().expect("readable").expect("there");
        assert!(names.critical, "with an empty subject the name is critical");
        assert!(matches!(names.value.general_names[..], [GeneralName::URI(_)]));
        let wanted = rcgen::PublicKeyData::subject_public_key_info(&pair);
        assert_eq!(certificate.public_key().raw, wanted);
    });
}

#[test]
fn usages_are_those_of_a_workload() {
    every_issuer(|issuer| {
        let issued = issuer.issue(&request(), &catalog(), None, now()).expect("issued");
        let (_, certificate) = X509Certificate::from_der(&issued.chain[0]).expect("readable");
        let usage = certificate.key_usage().expect("readable").expect("there").value;
        // digitalSignature and keyEncipherment: bits 0 and 2 of the BIT STRING.
        assert_eq!(usage.flags, 0b101);
        let extended = certificate.extended_key_usage().expect("readable").expect("there").value;
        assert!(extended.server_auth && extended.client_auth && !extended.any && !extended.code_signing);
        let has_authority_key = certificate
            .extensions()
            .iter()
            .any(|one| matches!(one.parsed_extension(), ParsedExtension::AuthorityKeyIdentifier(_)));
        assert!(has_authority_key);
    });
}

#[test]
fn the_lifetime_is_the_one_asked_for_or_a_refusal() {
    every_issuer(|issuer| {
        let second = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for (requested, granted) in [
            (None, DAY),
            (Some(Duration::ZERO), DAY),
            (Some(HOUR), HOUR),
            (Some(Duration::from_secs(5)), Duration::from_secs(5)),
        ] {
            let issued = issuer.issue(&request(), &catalog(), requested, now()).expect("issued");
            assert_eq!(issued.not_after, second + granted);
            assert_eq!(issued.not_before, second - BACKDATE);
            let leaf = inspect(&issued.chain[0]).expect("readable");
            assert_eq!((leaf.not_before, leaf.not_after), (issued.not_before, issued.not_after));
        }
        for long in [90 * DAY + Duration::from_secs(1), Duration::MAX] {
            let refused = issuer.issue(&request(), &catalog(), Some(long), now());
            assert!(matches!(refused, Err(IssueError::TtlTooLong { .. })), "{refused:?}");
        }
        let refused = issuer.issue(&request(), &catalog(), Some(Duration::from_millis(1)), now());
        assert!(matches!(refused, Err(IssueError::TtlTooShort { .. })));
    });
}

#[test]
fn another_trust_domain_is_refused_also_if_it_begins_like_ours() {
    every_issuer(|issuer| {
        for foreign in ["spiffe://partner/ns/a/sa/a", "spiffe://cluster.local.evil/ns/a/sa/a"] {
            let id = SpiffeId::parse(foreign).expect("valid");
            let refused = issuer.issue(&request(), &id, None, now());
            assert!(matches!(refused, Err(IssueError::ForeignTrustDomain { .. })), "{foreign}");
        }
    });
}

#[test]
fn a_request_that_its_key_did_not_sign_is_refused() {
    every_issuer(|issuer| {
        let mut forged = request();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        let refused = issuer.issue(&forged, &catalog(), None, now());
        assert!(matches!(refused, Err(IssueError::Request(csr::CsrError::Signature))), "{refused:?}");
    });
}

#[test]
fn the_key_of_somebody_else_in_a_request_is_refused() {
    every_issuer(|issuer| {
        let (mine, theirs) = (WorkloadKey::generate().expect("key"), WorkloadKey::generate().expect("key"));
        let mut stolen = csr::build(&mine).expect("request");
        let (from, to) = (mine.public_key_info(), theirs.public_key_info());
        let at = stolen.windows(from.len()).position(|window| window == from).expect("the key");
        stolen[at..at + to.len()].copy_from_slice(&to);
        let refused = issuer.issue(&stolen, &catalog(), None, now());
        assert!(matches!(refused, Err(IssueError::Request(csr::CsrError::Signature))), "{refused:?}");
    });
}

#[test]
fn serial_numbers_differ() {
    every_issuer(|issuer| {
        let csr = request();
        let serials: std::collections::BTreeSet<_> =
            (0..50).map(|_| issuer.issue(&csr, &catalog(), None, now()).expect("issued").serial).collect();
        assert_eq!(serials.len(), 50);
    });
}

#[test]
fn an_expired_or_future_signer_signs_nothing() {
    every_issuer(|issuer| {
        for time in [now() + 31 * DAY, now() - HOUR] {
            let refused = issuer.issue(&request(), &catalog(), None, time);
            assert!(matches!(refused, Err(IssueError::SignerNotValid { .. })), "{refused:?}");
        }
    });
}

#[test]
fn a_leaf_never_outlives_its_signer() {
    every_issuer(|issuer| {
        let time = now() + 30 * DAY - HOUR;
        let issued = issuer.issue(&request(), &catalog(), Some(DAY), time).expect("issued");
        let signer = inspect(&issued.chain[1]).expect("readable");
        assert_eq!(issued.not_after, signer.not_after);
        assert_eq!(inspect(&issued.chain[0]).expect("readable").not_after, signer.not_after);
    });
}

#[test]
fn an_intermediate_is_followed_at_half_of_its_life_and_old_chains_stay_good() {
    let authority = made();
    let key = WorkloadKey::generate().expect("key");
    let csr = csr::build(&key).expect("request");
    let old = authority.issue(&csr, &catalog(), Some(30 * DAY), now()).expect("issued");
    assert_eq!(authority.maintain(now() + 15 * DAY - HOUR).expect("kept"), []);
    let events = authority.maintain(now() + 15 * DAY).expect("kept");
    assert!(matches!(events[..], [Event::IntermediateRotated { .. }]), "{events:?}");
    assert_eq!(authority.maintain(now() + 15 * DAY).expect("kept"), [], "twice");
    let new = authority.issue(&csr, &catalog(), None, now() + 15 * DAY).expect("issued");
    assert_ne!(old.chain[1], new.chain[1]);
    for issued in [old, new] {
        let svid = Svid::new(issued.chain, &key).expect("whole");
        let at = now() + 15 * DAY;
        verify_peer(svid.chain(), &authority.trust_bundle(), &[mesh()], PeerRole::Client, at).expect("good");
    }
}

#[test]
fn maintenance_comes_in_time_over_the_whole_life_of_a_root() {
    let settings = CaSettings {
        root_ttl: 100 * HOUR,
        intermediate_ttl: 10 * HOUR,
        workload_ttl: HOUR,
        ..CaSettings::new(mesh())
    };
    let authority = Authority::create(settings, now()).expect("an authority");
    let csr = request();
    let (mut time, end) = (now(), now() + 99 * HOUR);
    let (mut rotations, mut warned) = (0, None);
    while time < end {
        for event in authority.maintain(time).expect("kept") {
            match event {
                Event::IntermediateRotated { .. } => rotations += 1,
                Event::RootExpiring { .. } => warned = warned.or(Some(time)),
            }
        }
        authority.issue(&csr, &catalog(), None, time).expect("signs at any time");
        let next = authority.next_maintenance(time);
        assert!(next > time && next <= time + HOUR);
        time = next;
    }
    assert!((18..=20).contains(&rotations), "{rotations}");
    let warned = warned.expect("a root that ends is announced");
    assert!(warned >= now() + 79 * HOUR && warned <= now() + 81 * HOUR);
    let after = authority.maintain(now() + 101 * HOUR);
    assert!(matches!(after, Err(MaintainError::RootNotValid { .. })), "{after:?}");
}

#[test]
fn a_clock_set_back_makes_a_new_intermediate_and_not_a_standstill() {
    let authority = made();
    authority.maintain(now() + 15 * DAY).expect("kept");
    let back = now() + DAY;
    assert!(authority.issue(&request(), &catalog(), None, back).is_err());
    let events = authority.maintain(back).expect("kept");
    assert!(matches!(events[..], [Event::IntermediateRotated { .. }]));
    assert!(authority.issue(&request(), &catalog(), None, back).is_ok());
}

#[test]
fn lifetimes_past_the_year_9999_make_no_authority() {
    let settings = CaSettings { root_ttl: Duration::MAX, ..CaSettings::new(mesh()) };
    assert!(Authority::create(settings, now()).is_err());
}
