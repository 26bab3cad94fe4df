//! What replicas tell each other: how far objects have come at their proxies, to nobody but the control plane.

use super::support::{CATALOG, Mesh, Proxy, policy};
use mesh_api::admin::ObjectStatus;
use mesh_api::wire::replicas::ReportRequest;
use mesh_api::wire::replicas::replica_service_client::ReplicaServiceClient;
use mesh_api::wire::{SELF, TypeUrl};
use tonic::Code;
use tonic::transport::Channel;

const CONTROL: &str = "spiffe://cluster.local/ns/istio-system/sa/mesh-control";

async fn report(channel: Channel, activity: u64) -> Result<(u64, Vec<ObjectStatus>), tonic::Status> {
    let request = ReportRequest { activity };
    let answer = ReplicaServiceClient::new(channel).report(request).await?.into_inner();
    let objects = match answer.objects.is_empty() {
        true => Vec::new(),
        false => serde_json::from_slice(&answer.objects).expect("a list"),
    };
    Ok((answer.activity, objects))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_told_how_far_an_object_has_come_and_then_only_what_is_new() {
    let mesh = Mesh::start().await;
    let replica = mesh.bootstrap(CONTROL).await;
    let channel = mesh.authenticated(&replica).await;
    let catalog = mesh.bootstrap(CATALOG).await;
    let mut proxy =
        Proxy::connect(mesh.authenticated(&catalog).await, "catalog-0.backend").await.expect("served");
    proxy.subscribe(TypeUrl::WorkloadPolicies, &[SELF], &[]).await;
    proxy.next().await;
    mesh.write("policy.yaml", &policy("access", "GET"));
    let pushed = proxy.receive().await.expect("served").expect("the policy");
    let (_, objects) = report(channel.clone(), 0).await.expect("told");
    let found = objects.iter().find(|object| object.name == "access").expect("listed");
    assert_eq!((found.accepted, found.applies, found.enforced), (true, 1, 0));
    assert_eq!(found.laggards, ["catalog-0.backend"]);
    proxy.answer(&pushed, None).await;
    let enforced = async {
        loop {
            let (activity, objects) = report(channel.clone(), 0).await.expect("told");
            if objects.iter().any(|object| object.name == "access" && object.enforced == 1) {
                return activity;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let activity =
        tokio::time::timeout(super::support::SOON, enforced).await.expect("the acknowledgement counts");
    let (same, nothing) = report(channel, activity).await.expect("told");
    assert_eq!((same, nothing), (activity, Vec::new()), "nothing is said twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_control_plane_is_told() {
    let mesh = Mesh::start().await;
    let catalog = mesh.bootstrap(CATALOG).await;
    for channel in [mesh.authenticated(&catalog).await, mesh.anonymous().await] {
        let refused = report(channel, 0).await.expect_err("refused");
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
}
