//! Certificates per second and core: the whole of what the authority does for one request, which is reading
//! it, checking its signature, and signing a leaf (DESIGN section 9 asks for at least 5,000).

use std::time::{Duration, SystemTime};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mesh_api::name::{SpiffeId, TrustDomain};
use mesh_identity::ca::{Authority, CaSettings, Issuer};
use mesh_identity::csr;
use mesh_identity::key::WorkloadKey;

fn issue(criterion: &mut Criterion) {
    let domain = TrustDomain::parse("cluster.local").expect("a valid constant");
    let id = SpiffeId::parse("spiffe://cluster.local/ns/web/sa/frontend").expect("a valid constant");
    let now = SystemTime::now();
    let authority = Authority::create(CaSettings::new(domain), now).expect("an authority");
    let request = csr::build(&WorkloadKey::generate().expect("key")).expect("request");

    let mut group = criterion.benchmark_group("authority");
    group.throughput(Throughput::Elements(1));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group.bench_function("issue", |bencher| {
        bencher.iter(|| authority.issue(&request, &id, None, now).expect("issued"))
    });
    group.bench_function("check_request", |bencher| bencher.iter(|| csr::check(&request).expect("accepted")));
    group.finish();
}

criterion_group!(benches, issue);
criterion_main!(benches);
