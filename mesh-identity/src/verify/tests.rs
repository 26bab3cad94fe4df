use super::*;
use crate::certificate::InspectError;
use crate::fixture::{Forge, HOUR, MINUTE, authority, domain, id, leaf_params, now, workload};
use proptest::prelude::*;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use std::time::Duration;

const CATALOG: &str = "spiffe://cluster.local/ns/backend/sa/catalog";

/// Signs a leaf by a root that is trusted for `cluster.local`, and verifies it there.
fn verdict(params: &CertificateParams) -> Result<VerifiedPeer, VerifyError> {
    let root = Forge::root("root");
    verify(&[root.sign(params)], &root.trusted_for("cluster.local"), PeerRole::Client, now())
}

fn verify(
    chain: &[Vec<u8>],
    bundle: &TrustBundle,
    role: PeerRole,
    now: SystemTime,
) -> Result<VerifiedPeer, VerifyError> {
    let chain: Vec<_> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    verify_peer(&chain, bundle, &[domain("cluster.local")], role, now)
}

#[test]
fn a_workload_of_our_authority_is_who_it_says_in_both_roles() {
    let authority = authority("cluster.local", now());
    let svid = workload(&authority, &id(CATALOG), HOUR, now());
    let bundle = crate::ca::Issuer::trust_bundle(&authority);
    for role in [PeerRole::Client, PeerRole::Server] {
        let peer = verify_peer(svid.chain(), &bundle, &[domain("cluster.local")], role, now());
        assert_eq!(peer, Ok(VerifiedPeer { id: id(CATALOG), not_after: now() + HOUR }));
    }
}

#[test]
fn an_empty_chain_is_no_identity() {
    assert_eq!(verify(&[], &TrustBundle::new(), PeerRole::Client, now()), Err(VerifyError::NoCertificate));
}

#[test]
fn a_leaf_has_exactly_one_uri_name() {
    let two = ["spiffe://cluster.local/ns/a/sa/a", CATALOG];
    let not_spiffe = ["https://example.com/", CATALOG];
    for (names, found) in [(&[][..], 0), (&two[..], 2), (&not_spiffe[..], 2)] {
        assert_eq!(verdict(&leaf_params(names)), Err(VerifyError::Leaf(LeafError::UriCount { found })));
    }
}

#[test]
fn a_dns_name_or_a_subject_is_never_an_identity() {
    let mut params = leaf_params(&[]);
    params.subject_alt_names.push(SanType::DnsName("cluster.local".try_into().expect("ASCII")));
    params.distinguished_name.push(rcgen::DnType::CommonName, CATALOG);
    assert_eq!(verdict(&params), Err(VerifyError::Leaf(LeafError::UriCount { found: 0 })));
}

#[test]
fn a_uri_that_is_not_a_spiffe_id_is_refused() {
    for bad in [
        "https://cluster.local/ns/backend/sa/catalog",
        "spiffe://cluster.local/ns/backend/sa/../sa/root",
        "spiffe://cluster.local/ns//sa/catalog",
        "spiffe://cluster.local:8080/ns/backend/sa/catalog",
        "spiffe://user@cluster.local/ns/backend/sa/catalog",
        "spiffe://cluster.local/ns/backend/sa/catalog?a=b",
        "spiffe://cluster.local/ns/backend/sa/cat%00alog",
        "spiffe://cluster.local/ns/backend/sa/cat\0alog",
    ] {
        let verdict = verdict(&leaf_params(&[bad]));
        assert!(
            matches!(verdict, Err(VerifyError::Leaf(LeafError::SpiffeId(_)))),
            "{bad:?} gave {verdict:?}"
        );
    }
}

#[test]
fn the_id_of_a_whole_trust_domain_is_no_workload() {
    let verdict = verdict(&leaf_params(&["spiffe://cluster.local"]));
    assert_eq!(verdict, Err(VerifyError::Leaf(LeafError::NoPath)));
}

#[test]
fn a_name_that_is_not_ascii_is_refused() {
    let root = Forge::root("root");
    let key = crate::key::WorkloadKey::generate().expect("key");
    let mut der = root.sign_for(&leaf_params(&[CATALOG]), &key);
    let at = der.windows(CATALOG.len()).position(|window| window == CATALOG.as_bytes()).expect("the name");
    der[at + 30] = 0xff;
    let verdict = verify(&[der], &root.trusted_for("cluster.local"), PeerRole::Client, now());
    assert!(
        matches!(
            verdict,
            Err(VerifyError::Leaf(LeafError::NotText | LeafError::Malformed(InspectError::Extension)))
        ),
        "{verdict:?}"
    );
}

#[test]
fn a_trust_domain_that_only_begins_like_ours_is_another_one() {
    for foreign in ["spiffe://cluster.local.evil/ns/a/sa/a", "spiffe://cluster.loca/ns/a/sa/a"] {
        let verdict = verdict(&leaf_params(&[foreign]));
        assert_eq!(verdict, Err(VerifyError::TrustDomain { id: id(foreign) }));
    }
}

#[test]
fn the_root_of_another_domain_cannot_vouch_for_ours() {
    let (ours, theirs) = (Forge::root("ours"), Forge::root("theirs"));
    let bundle = ours.trusted_for("cluster.local").union(&theirs.trusted_for("partner")).expect("both");
    let domains = [domain("cluster.local"), domain("partner")];
    let judge = |forge: &Forge, name: &str| {
        let leaf = forge.sign(&leaf_params(&[name]));
        verify_peer(&[CertificateDer::from(leaf)], &bundle, &domains, PeerRole::Client, now())
    };
    let partner = "spiffe://partner/ns/a/sa/a";
    assert!(judge(&ours, CATALOG).is_ok());
    assert!(judge(&theirs, partner).is_ok());
    assert_eq!(judge(&theirs, CATALOG), Err(VerifyError::UnknownIssuer { id: id(CATALOG) }));
    assert_eq!(judge(&ours, partner), Err(VerifyError::UnknownIssuer { id: id(partner) }));
}

#[test]
fn an_alias_without_roots_of_its_own_is_vouched_for_by_ours() {
    let root = Forge::root("ours");
    let old = "spiffe://old.example/ns/a/sa/a";
    let leaf = root.sign(&leaf_params(&[old]));
    let chain = [CertificateDer::from(leaf)];
    let bundle = root.trusted_for("cluster.local");
    let judge = |domains: &[TrustDomain]| verify_peer(&chain, &bundle, domains, PeerRole::Client, now());
    assert!(judge(&[domain("cluster.local"), domain("old.example")]).is_ok());
    assert_eq!(judge(&[domain("cluster.local")]), Err(VerifyError::TrustDomain { id: id(old) }));
}

#[test]
fn nobody_is_trusted_by_an_empty_bundle() {
    let leaf = Forge::root("root").sign(&leaf_params(&[CATALOG]));
    assert_eq!(
        verify(&[leaf], &TrustBundle::new(), PeerRole::Client, now()),
        Err(VerifyError::NoAnchor { id: id(CATALOG) })
    );
}

#[test]
fn validity_is_judged_at_both_ends() {
    let root = Forge::root("root");
    let leaf = [root.sign(&leaf_params(&[CATALOG]))];
    let bundle = root.trusted_for("cluster.local");
    let second = Duration::from_secs(1);
    let at = |time| verify(&leaf, &bundle, PeerRole::Client, time);
    assert!(at(now() + HOUR).is_ok());
    assert!(matches!(at(now() + HOUR + second), Err(VerifyError::Expired { not_after, .. })
        if not_after == 1_800_003_600));
    assert!(at(now() - HOUR).is_ok());
    assert!(matches!(at(now() - HOUR - second), Err(VerifyError::NotYetValid { not_before, .. })
        if not_before == 1_799_996_400));
}

#[test]
fn an_expired_intermediate_ends_the_chain() {
    let authority = authority("cluster.local", now());
    let svid = workload(&authority, &id(CATALOG), 90 * 24 * HOUR, now());
    // The leaf was shortened to its signer's end, so both end together.
    let end = now() + 30 * 24 * HOUR;
    assert_eq!(svid.not_after(), end);
    let bundle = crate::ca::Issuer::trust_bundle(&authority);
    let domains = [domain("cluster.local")];
    let verdict = verify_peer(svid.chain(), &bundle, &domains, PeerRole::Client, end + MINUTE);
    assert!(matches!(verdict, Err(VerifyError::Expired { .. })), "{verdict:?}");
}

#[test]
fn a_usage_for_the_other_role_is_refused() {
    for (usage, role) in [
        (ExtendedKeyUsagePurpose::ServerAuth, PeerRole::Client),
        (ExtendedKeyUsagePurpose::ClientAuth, PeerRole::Server),
        (ExtendedKeyUsagePurpose::CodeSigning, PeerRole::Client),
    ] {
        let mut params = leaf_params(&[CATALOG]);
        params.extended_key_usages = vec![usage];
        let root = Forge::root("root");
        let verdict = verify(&[root.sign(&params)], &root.trusted_for("cluster.local"), role, now());
        assert!(matches!(verdict, Err(VerifyError::Chain { .. })), "{role:?}: {verdict:?}");
    }
}

#[test]
fn an_authority_is_no_workload() {
    let mut params = leaf_params(&[CATALOG]);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    assert_eq!(verdict(&params), Err(VerifyError::Leaf(LeafError::Authority)));
}

#[test]
fn a_leaf_that_may_sign_certificates_or_no_handshake_is_refused() {
    for usages in [
        vec![],
        vec![KeyUsagePurpose::KeyAgreement],
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign],
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign],
    ] {
        let mut params = leaf_params(&[CATALOG]);
        params.key_usages = usages.clone();
        assert_eq!(verdict(&params), Err(VerifyError::Leaf(LeafError::KeyUsage)), "{usages:?}");
    }
}

#[test]
fn a_workload_cannot_sign_for_another() {
    let root = Forge::root("root");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
    let params = leaf_params(&[CATALOG]);
    let leaf = root.sign(&params);
    let forger = rcgen::Issuer::new(params, key);
    let stolen = leaf_params(&["spiffe://cluster.local/ns/backend/sa/payments"]);
    let stolen =
        stolen.signed_by(&rcgen::KeyPair::generate().expect("key"), &forger).expect("signed").der().to_vec();
    let verdict = verify(&[stolen, leaf], &root.trusted_for("cluster.local"), PeerRole::Client, now());
    assert!(
        matches!(verdict, Err(VerifyError::Chain { .. } | VerifyError::UnknownIssuer { .. })),
        "{verdict:?}"
    );
}

#[test]
fn a_chain_without_its_intermediate_does_not_reach_the_root() {
    let root = Forge::root("root");
    let intermediate = Forge::intermediate("intermediate", &root);
    let leaf = intermediate.sign(&leaf_params(&[CATALOG]));
    let bundle = root.trusted_for("cluster.local");
    assert!(verify(&[leaf.clone(), intermediate.der.clone()], &bundle, PeerRole::Client, now()).is_ok());
    assert_eq!(
        verify(&[leaf], &bundle, PeerRole::Client, now()),
        Err(VerifyError::UnknownIssuer { id: id(CATALOG) })
    );
}

#[test]
fn the_expected_peer_is_compared_as_a_whole() {
    let expected = ExpectedPeer::one(id(CATALOG));
    let equal = [domain("cluster.local"), domain("old.example")];
    assert!(expected.accepts(&id(CATALOG), &[]));
    assert!(expected.accepts(&id("spiffe://old.example/ns/backend/sa/catalog"), &equal));
    for other in [
        "spiffe://cluster.local/ns/backend/sa/catalog2",
        "spiffe://cluster.local/ns/backend/sa/catalo",
        "spiffe://old.example/ns/backend/sa/payments",
        "spiffe://partner/ns/backend/sa/catalog",
    ] {
        assert!(!expected.accepts(&id(other), &equal), "{other}");
    }
    assert!(!expected.accepts(&id("spiffe://old.example/ns/backend/sa/catalog"), &[]));
}

#[test]
fn nobody_expected_is_not_anybody() {
    assert_eq!(ExpectedPeer::any_of([]), None);
    let (a, b) = (id(CATALOG), id("spiffe://cluster.local/ns/backend/sa/payments"));
    assert_eq!(
        ExpectedPeer::any_of([b.clone(), a.clone(), b.clone()]),
        ExpectedPeer::any_of([a.clone(), b.clone()])
    );
    assert_eq!(ExpectedPeer::any_of([b, a]).expect("two").to_string().matches(" or ").count(), 1);
}

#[test]
fn a_changed_bit_anywhere_in_the_leaf_ends_its_trust() {
    let root = Forge::root("root");
    let leaf = root.sign(&leaf_params(&[CATALOG]));
    let bundle = root.trusted_for("cluster.local");
    for at in 0..leaf.len() {
        for bit in 0..8 {
            let mut changed = leaf.clone();
            changed[at] ^= 1 << bit;
            assert!(verify(&[changed], &bundle, PeerRole::Client, now()).is_err(), "bit {bit} of byte {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_judged_without_a_panic(
        chain in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..3),
    ) {
        let bundle = Forge::root("root").trusted_for("cluster.local");
        prop_assert!(verify(&chain, &bundle, PeerRole::Client, now()).is_err());
    }
}
