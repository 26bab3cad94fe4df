use super::*;
use crate::fixture::plane_of;
use crate::fixture::versioned_objects::VersionedObjects;
use mesh_api::name::TrustDomain;
use serde_json::json;
use tokio::sync::watch;

const SECRET: &str = "/api/v1/namespaces/istio-system/secrets/mini-mesh-ca";
const ROOT: &str = "/api/v1/namespaces/istio-system/configmaps/mini-mesh-ca-root-cert";
/// More than half of an intermediate's life of 30 days.
const MORE_THAN_HALF: Duration = Duration::from_secs(16 * 86_400);

fn settings() -> CaSettings {
    CaSettings::new(TrustDomain::parse("cluster.local").expect("valid"))
}

fn shared(server: &VersionedObjects) -> SharedAuthority {
    SharedAuthority::new(server.client(), "istio-system", settings())
}

#[tokio::test]
async fn replicas_that_start_together_have_one_root() {
    let server = VersionedObjects::default();
    let (a, b, c) = (shared(&server), shared(&server), shared(&server));
    let (a, b, c) = tokio::join!(a.wait(), b.wait(), c.wait());
    assert_eq!(a.root_certificate(), b.root_certificate());
    assert_eq!(a.root_certificate(), c.root_certificate());
    assert_eq!(a.intermediate_certificate(), c.intermediate_certificate());
    assert_eq!(server.writes(), 1);
}

#[tokio::test]
async fn where_there_was_an_authority_no_root_is_made() {
    let server = VersionedObjects::default();
    server.put(ROOT, json!({"metadata": {"name": "mini-mesh-ca-root-cert"}}));
    assert!(matches!(shared(&server).read_or_create().await, Err(SharedError::Gone)));
    server.delete(ROOT);
    assert!(shared(&server).read_or_create().await.is_ok());
}

#[tokio::test]
async fn a_secret_of_another_mesh_or_without_a_part_is_no_reason_for_a_new_root() {
    let server = VersionedObjects::default();
    shared(&server).wait().await;
    let foreign = CaSettings::new(TrustDomain::parse("prod.example").expect("valid"));
    let foreign = SharedAuthority::new(server.client(), "istio-system", foreign);
    assert!(matches!(foreign.read_or_create().await, Err(SharedError::Damaged(_))));
    let mut cut = server.get(SECRET).expect("there");
    cut["data"].as_object_mut().expect("parts").remove("ca-key.pem");
    server.put(SECRET, cut);
    assert!(matches!(shared(&server).read_or_create().await, Err(SharedError::Damaged(_))));
    assert_eq!(server.writes(), 2, "only the test has written");
}

#[tokio::test]
async fn the_leader_restores_what_vanished_was_damaged_or_was_replaced_and_a_follower_writes_nothing() {
    let server = VersionedObjects::default();
    let shared = shared(&server);
    let plane = plane_of(shared.wait().await);
    let good = server.get(SECRET).expect("there")["data"].clone();
    let other = VersionedObjects::default();
    self::shared(&other).wait().await;
    let foreign = other.get(SECRET).expect("there")["data"].clone();
    for data in [None, Some(json!({"ca-key.pem": "AAAA"})), Some(foreign)] {
        match &data {
            None => server.delete(SECRET),
            Some(data) => {
                let mut object = server.get(SECRET).expect("there");
                object["data"] = data.clone();
                server.put(SECRET, object);
            }
        }
        let (found, writes) = (server.get(SECRET), server.writes());
        shared.look(&plane, false, SystemTime::now()).await.expect("an alarm is no failure");
        assert_eq!((server.get(SECRET), server.writes()), (found, writes), "a follower has written");
        shared.look(&plane, true, SystemTime::now()).await.expect("restored");
        assert_eq!(server.get(SECRET).expect("there")["data"], good);
    }
}

#[tokio::test]
async fn the_next_intermediate_is_stored_by_the_leader_and_taken_up_by_the_others() {
    let server = VersionedObjects::default();
    let (leader, follower) = (shared(&server), shared(&server));
    let later = SystemTime::now() + MORE_THAN_HALF;
    let (leading, following) = (plane_of(leader.wait().await), plane_of(follower.wait().await));
    let intermediate = |plane: &Plane| plane.issue.authority().intermediate_certificate();
    let first = intermediate(&leading);
    follower.look(&following, false, later).await.expect("nothing to do");
    assert_eq!(intermediate(&following), first, "a follower does not rotate");
    leader.look(&leading, true, later).await.expect("rotated");
    assert_ne!(intermediate(&leading), first);
    follower.look(&following, false, later).await.expect("taken up");
    assert_eq!(intermediate(&following), intermediate(&leading));
}

#[tokio::test(start_paused = true)]
async fn an_intermediate_that_cannot_be_stored_is_not_signed_with() {
    let server = VersionedObjects::default();
    let shared = shared(&server);
    let later = SystemTime::now() + MORE_THAN_HALF;
    let plane = plane_of(shared.wait().await);
    let before = plane.issue.authority().intermediate_certificate();
    let stale = Some("0");
    assert!(matches!(shared.rotate(&plane, stale, later).await, Err(SharedError::Conflict)));
    server.set_away(true);
    assert!(matches!(shared.look(&plane, true, later).await, Err(SharedError::Silent)));
    assert_eq!(plane.issue.authority().intermediate_certificate(), before);
}

#[tokio::test(start_paused = true)]
async fn the_secret_is_restored_by_whoever_becomes_the_leader() {
    let server = VersionedObjects::default();
    let shared = shared(&server);
    let plane = plane_of(shared.wait().await);
    let (leads, following) = watch::channel(false);
    let task = tokio::spawn(shared.follow(plane, Leadership::following(following)));
    tokio::time::sleep(CHECK_EVERY).await;
    server.delete(SECRET);
    tokio::time::sleep(CHECK_EVERY * 3).await;
    assert!(server.get(SECRET).is_none(), "a follower has written");
    leads.send_replace(true);
    tokio::time::sleep(RETRY_AFTER * 2).await;
    assert!(server.get(SECRET).is_some());
    task.abort();
}
