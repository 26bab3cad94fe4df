use super::*;
use crate::fixture::{Forge, domain, leaf_params};
use proptest::prelude::*;

#[test]
fn a_bundle_is_a_set() {
    let (old, new) = (Forge::root("old"), Forge::root("new"));
    let mesh = domain("cluster.local");
    let mut bundle = TrustBundle::new();
    assert!(bundle.insert(&mesh, &old.der).expect("an anchor"));
    assert!(bundle.insert(&mesh, &new.der).expect("an anchor"));
    assert!(!bundle.insert(&mesh, &old.der).expect("known already"));
    assert_eq!(bundle.anchors("cluster.local").len(), 2);
    assert!(bundle.remove(&mesh, &old.der));
    assert!(!bundle.remove(&mesh, &old.der));
    assert_eq!(bundle.certificates("cluster.local"), std::slice::from_ref(&new.der));
    assert!(bundle.remove(&mesh, &new.der));
    assert!(bundle.is_empty());
}

#[test]
fn equal_sets_have_equal_hashes_in_whatever_order_they_grew() {
    let (a, b) = (Forge::root("a"), Forge::root("b"));
    let (a, b) = (a.trusted_for("cluster.local"), b.trusted_for("cluster.local"));
    let (ab, ba) = (a.union(&b).expect("both"), b.union(&a).expect("both"));
    assert_eq!(ab, ba);
    assert_eq!(ab.content_hash(), ba.content_hash());
    assert_ne!(ab.content_hash(), a.content_hash());
    assert!(ab.contains(&a) && ab.contains(&b) && !a.contains(&ab));
}

#[test]
fn the_domain_is_part_of_the_hash_and_of_containment() {
    let root = Forge::root("root");
    let (ours, theirs) = (root.trusted_for("cluster.local"), root.trusted_for("partner"));
    assert_ne!(ours.content_hash(), theirs.content_hash());
    assert!(!ours.contains(&theirs));
    assert!(ours.anchors("partner").is_empty());
}

#[test]
fn only_authorities_become_anchors() {
    let leaf = Forge::root("root").sign(&leaf_params(&["spiffe://cluster.local/ns/a/sa/a"]));
    let mut bundle = TrustBundle::new();
    assert!(matches!(bundle.insert(&domain("cluster.local"), &leaf), Err(BundleError::NotAuthority { .. })));
    assert!(matches!(bundle.insert(&domain("cluster.local"), b"no"), Err(BundleError::Malformed { .. })));
    assert!(bundle.is_empty());
}

#[test]
fn the_number_of_anchors_is_bounded() {
    let mut bundle = TrustBundle::new();
    for number in 0..ANCHORS_MAX {
        bundle.insert(&domain("cluster.local"), &Forge::root(&number.to_string()).der).expect("room");
    }
    let one_more = Forge::root("one more");
    assert!(matches!(
        bundle.insert(&domain("cluster.local"), &one_more.der),
        Err(BundleError::TooMany { .. })
    ));
    assert!(bundle.insert(&domain("partner"), &one_more.der).is_ok());
}

#[test]
fn pem_and_model_read_back_what_they_wrote() {
    let (a, b) = (Forge::root("a"), Forge::root("b"));
    let bundle = a.trusted_for("cluster.local").union(&b.trusted_for("cluster.local")).expect("both");
    assert_eq!(TrustBundle::from_pem(&domain("cluster.local"), &bundle.to_pem()).expect("read"), bundle);
    assert_eq!(TrustBundle::from_model(&bundle.to_model()).expect("read"), bundle);
}

#[test]
fn text_without_certificates_is_refused() {
    for text in ["", "no certificate", "-----BEGIN X-----\nAAAA\n-----END X-----\n"] {
        assert!(
            matches!(TrustBundle::from_pem(&domain("cluster.local"), text), Err(BundleError::Empty)),
            "{text:?}"
        );
    }
    let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    assert!(TrustBundle::from_pem(&domain("cluster.local"), cut).is_err());
}

#[test]
fn one_unusable_anchor_refuses_the_whole_model() {
    let mut model = Forge::root("root").trusted_for("cluster.local").to_model();
    model.anchors.get_mut("cluster.local").expect("the domain").push(vec![0x30, 0]);
    assert!(matches!(TrustBundle::from_model(&model), Err(BundleError::Malformed { .. })));
    let mut model = Forge::root("root").trusted_for("cluster.local").to_model();
    model.anchors.insert("Not A Domain".to_owned(), Vec::new());
    assert!(matches!(TrustBundle::from_model(&model), Err(BundleError::TrustDomain(_))));
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "(-----BEGIN CERTIFICATE-----)?[ -~\n]{0,200}") {
        prop_assert!(TrustBundle::from_pem(&domain("cluster.local"), &text).is_err());
    }
}
