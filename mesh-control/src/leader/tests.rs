use super::*;
use crate::fixture::versioned_objects::VersionedObjects;
use serde_json::json;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/istio-system/leases/mesh-control-leader";
const SECOND: Duration = Duration::from_secs(1);

struct Replica {
    leadership: Leadership,
    resign: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn replica(server: &VersionedObjects, name: &str) -> Replica {
    let (candidate, leadership) = Candidate::new(server.client(), "istio-system", name, Timing::default());
    let resign = CancellationToken::new();
    let task = tokio::spawn(candidate.run(resign.clone()));
    Replica { leadership, resign, task }
}

fn leaders(replicas: &[&Replica]) -> usize {
    replicas.iter().filter(|replica| replica.leadership.is_leader()).count()
}

#[tokio::test(start_paused = true)]
async fn one_of_several_leads_and_keeps_leading() {
    let server = VersionedObjects::default();
    let (a, b, c) = (replica(&server, "a"), replica(&server, "b"), replica(&server, "c"));
    tokio::time::sleep(5 * SECOND).await;
    let first = [&a, &b, &c].map(|replica| replica.leadership.is_leader());
    for _ in 0..60 {
        tokio::time::sleep(SECOND).await;
        assert_eq!([&a, &b, &c].map(|replica| replica.leadership.is_leader()), first);
    }
    assert_eq!(leaders(&[&a, &b, &c]), 1);
    let lease = server.get(LEASE).expect("there");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], json!(15));
    assert_eq!(lease["spec"]["leaseTransitions"], json!(0));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_ends_is_followed_at_once_and_one_that_was_killed_after_its_lease() {
    let server = VersionedObjects::default();
    let a = replica(&server, "a");
    tokio::time::sleep(3 * SECOND).await;
    let b = replica(&server, "b");
    tokio::time::sleep(3 * SECOND).await;
    assert!(a.leadership.is_leader() && !b.leadership.is_leader());
    a.resign.cancel();
    tokio::time::sleep(3 * SECOND).await;
    assert!(!a.leadership.is_leader() && b.leadership.is_leader());
    let c = replica(&server, "c");
    b.task.abort();
    tokio::time::sleep(13 * SECOND).await;
    assert!(!c.leadership.is_leader(), "the lease was taken too early");
    tokio::time::sleep(8 * SECOND).await;
    assert!(c.leadership.is_leader());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_reach_the_api_server_stops_leading_and_its_duties_are_dropped() {
    struct Dropped(watch::Sender<bool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.send_replace(true);
        }
    }
    let server = VersionedObjects::default();
    let a = replica(&server, "a");
    let (begun, mut has_begun) = watch::channel(0);
    let (dropped, mut was_dropped) = watch::channel(false);
    let duty = a.leadership.clone().lead("test", move || {
        let (begun, guard) = (begun.clone(), Dropped(dropped.clone()));
        async move {
            let _guard = guard;
            begun.send_modify(|number| *number += 1);
            std::future::pending().await
        }
    });
    let duty = tokio::spawn(duty);
    has_begun.wait_for(|number| *number == 1).await.expect("it begins");
    server.set_away(true);
    let cut = Instant::now();
    was_dropped.wait_for(|dropped| *dropped).await.expect("it ends");
    assert!(!a.leadership.is_leader());
    assert!(cut.elapsed() <= Timing::default().lead, "{:?}", cut.elapsed());
    server.set_away(false);
    has_begun.wait_for(|number| *number == 2).await.expect("it begins anew");
    duty.abort();
}
