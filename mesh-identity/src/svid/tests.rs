use super::*;
use crate::fixture::{Forge, HOUR, authority, id, leaf_params, now, workload};

const CATALOG: &str = "spiffe://cluster.local/ns/backend/sa/catalog";

/// A chain of leaf and intermediate, and the leaf's key.
fn parts() -> (Vec<Vec<u8>>, WorkloadKey) {
    let root = Forge::root("root");
    let intermediate = Forge::intermediate("intermediate", &root);
    let key = WorkloadKey::generate().expect("key");
    (vec![intermediate.sign_for(&leaf_params(&[CATALOG]), &key), intermediate.der], key)
}

#[test]
fn an_svid_says_what_its_leaf_says() {
    let svid = workload(&authority("cluster.local", now()), &id(CATALOG), HOUR, now());
    assert_eq!(svid.id(), &id(CATALOG));
    assert_eq!(svid.not_after(), now() + HOUR);
    assert_eq!(svid.not_before(), now() - crate::ca::BACKDATE);
    assert_eq!(svid.chain().len(), 2);
    assert!(svid.is_valid_at(now()));
    assert!(svid.is_valid_at(now() + HOUR));
    assert!(!svid.is_valid_at(now() + HOUR + HOUR));
    assert!(!svid.is_valid_at(now() - HOUR));
}

#[test]
fn a_key_of_another_leaf_is_refused() {
    let (chain, key) = parts();
    assert!(Svid::new(chain.clone(), &key).is_ok());
    let other = WorkloadKey::generate().expect("key");
    assert!(matches!(Svid::new(chain, &other), Err(SvidError::KeyMismatch)));
}

#[test]
fn each_certificate_is_followed_by_its_issuer() {
    let (chain, key) = parts();
    let stranger = Forge::intermediate("intermediate", &Forge::root("another"));
    // The same name, and another key.
    let wrong = vec![chain[0].clone(), stranger.der];
    assert!(matches!(Svid::new(wrong, &key), Err(SvidError::Order { index: 0 })));
    let twice = vec![chain[0].clone(), chain[1].clone(), chain[1].clone()];
    assert!(matches!(Svid::new(twice, &key), Err(SvidError::Order { index: 1 })));
}

#[test]
fn empty_long_and_unreadable_chains_are_refused() {
    let (chain, key) = parts();
    assert!(matches!(Svid::new(vec![], &key), Err(SvidError::Empty)));
    let long = vec![chain[0].clone(); CHAIN_MAX + 1];
    assert!(matches!(Svid::new(long, &key), Err(SvidError::TooLong { length }) if length == CHAIN_MAX + 1));
    assert!(matches!(Svid::new(vec![vec![1, 2, 3]], &key), Err(SvidError::Leaf(_))));
}

#[test]
fn a_leaf_with_two_names_makes_no_svid() {
    let root = Forge::root("root");
    let key = WorkloadKey::generate().expect("key");
    let leaf = root.sign_for(&leaf_params(&[CATALOG, "spiffe://cluster.local/ns/a/sa/a"]), &key);
    assert!(matches!(Svid::new(vec![leaf], &key), Err(SvidError::Leaf(LeafError::UriCount { found: 2 }))));
}
