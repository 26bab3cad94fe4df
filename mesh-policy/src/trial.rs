//! Policies as they would be: what is tried on live traffic beside what is in force.
//!
//! An object that is tried, or whose deletion is, says so by its annotations ([`ObjectMeta::trial`]). Whatever
//! selects policies for a decision leaves out what is not in force; here the other set is made: without what
//! would be deleted or replaced, and with what is tried, as objects that carry no annotation of the trial any
//! more. So everything that works on policies works on either set, and cannot mix them up.
//!
//! An object that replaces another takes its place also where age decides (SEMANTICS 1.4): it is as old as the
//! other, and goes by its name.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::model::{
    AuthorizationPolicy, DRY_RUN, DRY_RUN_REPLACES, ObjectMeta, ObjectRef, PeerAuthentication,
    RequestAuthentication, Trial,
};
use mesh_api::name::ObjectName;

/// A kind of which objects can be tried.
pub trait Triable: Clone {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// The same, to be changed.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
}

macro_rules! triable {
    ($($kind:ty),+) => {$(
        impl Triable for $kind {
            fn meta(&self) -> &ObjectMeta {
                &self.meta
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.meta
            }
        }
    )+};
}

triable!(AuthorizationPolicy, PeerAuthentication, RequestAuthentication);

/// Whether something is tried of an object.
pub fn is_tried<T: Triable>(object: &Arc<T>) -> bool {
    object.meta().trial() != Trial::None
}

/// The objects of one kind as they would be. The order is that of `objects`.
#[must_use]
pub fn candidates<T: Triable>(objects: &[Arc<T>]) -> Vec<Arc<T>> {
    let replaced: BTreeSet<ObjectRef> =
        objects.iter().filter_map(|object| replaced_by(object.meta())).collect();
    let mut taken = BTreeSet::new();
    let would_be = |object: &Arc<T>| {
        let meta = object.meta();
        match meta.trial() {
            Trial::None => (!replaced.contains(&meta.object)).then(|| Arc::clone(object)),
            Trial::Deletion => None,
            Trial::Addition { .. } => {
                let place = replaced_by(meta).filter(|place| taken.insert(place.clone()));
                let former = place.and_then(|place| objects.iter().find(|it| it.meta().object == place));
                Some(Arc::new(tried(&**object, former.map(|former| former.meta()))))
            }
        }
    };
    objects.iter().filter_map(would_be).collect()
}

/// The object whose place another would take.
#[must_use]
pub fn replaced_by(meta: &ObjectMeta) -> Option<ObjectRef> {
    let Trial::Addition { replaces: Some(name) } = meta.trial() else { return None };
    let name = ObjectName::parse(name).ok()?;
    Some(ObjectRef { name, ..meta.object.clone() })
}

fn tried<T: Triable>(object: &T, former: Option<&ObjectMeta>) -> T {
    let mut object = object.clone();
    let meta = object.meta_mut();
    meta.annotations.remove(DRY_RUN);
    meta.annotations.remove(DRY_RUN_REPLACES);
    if let Some(former) = former {
        meta.object = former.object.clone();
        meta.created = former.created;
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::model::{MeshSettings, MtlsMode, Origin, Selector};
    use mesh_api::name::{Labels, Namespace, ServiceAccount};

    use crate::peer_authentication;
    use crate::select::Subject;

    fn peer(
        name: &str,
        created: i64,
        mode: MtlsMode,
        annotations: &[(&str, &str)],
    ) -> Arc<PeerAuthentication> {
        let object = ObjectRef {
            kind: mesh_api::model::Kind::PeerAuthentication,
            namespace: Namespace::parse("shop").expect("namespace"),
            name: ObjectName::parse(name).expect("name"),
        };
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Arc::new(PeerAuthentication {
            meta: ObjectMeta {
                object,
                labels: Labels::new(),
                annotations: annotations.collect(),
                created,
                origin: Origin::default(),
            },
            selector: Selector::default(),
            mode: Some(mode),
            port_level: Default::default(),
        })
    }

    fn mode(policies: &[Arc<PeerAuthentication>]) -> MtlsMode {
        let namespace = Namespace::parse("shop").expect("namespace");
        let service_account = ServiceAccount::parse("default").expect("account");
        let labels = Labels::new();
        let subject = Subject { namespace: &namespace, labels: &labels, service_account: &service_account };
        peer_authentication::resolve(&MeshSettings::default(), &subject, policies).mode
    }

    fn names(policies: &[Arc<PeerAuthentication>]) -> Vec<&str> {
        policies.iter().map(|policy| policy.meta.object.name.as_str()).collect()
    }

    #[test]
    fn what_is_tried_is_not_in_force_and_would_be() {
        let all = [peer("a", 1, MtlsMode::Strict, &[(DRY_RUN, "true")])];
        assert_eq!((is_tried(&all[0]), mode(&all)), (true, MtlsMode::default()));
        assert_eq!(mode(&candidates(&all)), MtlsMode::Strict);
        assert!(!is_tried(&candidates(&all)[0]));
    }

    #[test]
    fn what_would_be_deleted_is_in_force_and_would_not_be() {
        let all = [peer("a", 1, MtlsMode::Strict, &[(DRY_RUN, "delete")])];
        assert_eq!((mode(&all), candidates(&all).len()), (MtlsMode::Strict, 0));
    }

    #[test]
    fn what_replaces_another_is_as_old_and_goes_by_its_name() {
        let edited = [(DRY_RUN, "true"), (DRY_RUN_REPLACES, "old")];
        let all = [
            peer("old", 1, MtlsMode::Disable, &[]),
            peer("young", 2, MtlsMode::Permissive, &[]),
            peer("edited", 3, MtlsMode::Strict, &edited),
        ];
        assert_eq!(mode(&all), MtlsMode::Disable);
        let candidates = candidates(&all);
        assert_eq!((names(&candidates), mode(&candidates)), (vec!["young", "old"], MtlsMode::Strict));
    }

    #[test]
    fn two_that_replace_the_same_are_told_apart() {
        let edited = [(DRY_RUN, "true"), (DRY_RUN_REPLACES, "old")];
        let all = [
            peer("old", 1, MtlsMode::Disable, &[]),
            peer("b", 2, MtlsMode::Strict, &edited),
            peer("c", 3, MtlsMode::Strict, &edited),
        ];
        assert_eq!(names(&candidates(&all)), ["old", "c"]);
    }

    #[test]
    fn what_replaces_nothing_that_exists_is_an_addition() {
        let all = [peer("a", 1, MtlsMode::Strict, &[(DRY_RUN, "true"), (DRY_RUN_REPLACES, "gone")])];
        assert_eq!(names(&candidates(&all)), ["a"]);
    }
}
