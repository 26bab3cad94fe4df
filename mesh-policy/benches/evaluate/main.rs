//! Cost of one decision with 10 and with 10,000 rules, of compiling them, and of compiling one change to them.
//!
//! The budget (DESIGN.md section 9): 10,000 rules cost at most 1.5 times what 10 cost, and a microsecond at
//! most. Requests cycle through many callers, so that caches are not flattered.
//!
//! `evaluate shapes` names the shapes. `evaluate count SHAPE RULES DECISIONS` takes no time: it makes that many
//! decisions and ends, for whoever counts instructions and allocations (`cargo xtask bench policy`).

mod shapes;

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use mesh_api::model::MeshSettings;
use mesh_policy::authorize::{Authorizer, Decision};

use shapes::{Sample, Shape};

/// Requests that one measurement cycles through.
const SAMPLES: usize = 256;

fn samples(shape: Shape, rules: usize) -> Vec<Sample> {
    (0..SAMPLES).map(|step| shape.sample(step * 37 % (rules - 1), rules)).collect()
}

fn decide(authorizer: &Authorizer, sample: &Sample) -> Decision {
    sample.with_attributes(|attributes| authorizer.authorize(black_box(attributes)))
}

fn decisions(criterion: &mut Criterion) {
    for shape in Shape::ALL {
        let mut group = criterion.benchmark_group(shape.name());
        for rules in [10, 10_000] {
            let authorizer = Authorizer::compile(&MeshSettings::default(), &shape.policies(rules));
            let samples = samples(shape, rules);
            let mut step = 0;
            group.bench_function(BenchmarkId::from_parameter(rules), |bencher| {
                bencher.iter(|| {
                    step = (step + 1) % samples.len();
                    let decision = decide(&authorizer, &samples[step]);
                    assert_eq!(decision.is_allowed(), shape.is_allowed());
                    decision
                });
            });
        }
        group.finish();
    }
}

fn compiling(criterion: &mut Criterion) {
    for shape in [Shape::Callers, Shape::CallersTimesPaths, Shape::Templates] {
        let policies = shape.policies(10_000);
        let mesh = MeshSettings::default();
        criterion.bench_function(&format!("compile 10000 policies, {}", shape.name()), |bencher| {
            bencher.iter(|| Authorizer::compile(&mesh, black_box(&policies)));
        });
    }
}

/// One policy among ten thousand has changed.
fn recompiling(criterion: &mut Criterion) {
    for shape in [Shape::Callers, Shape::CallersTimesPaths, Shape::Templates] {
        let mesh = MeshSettings::default();
        let before = Authorizer::compile(&mesh, &shape.policies(10_000));
        // As they arrive at a proxy: equal, and not the same in memory.
        let mut policies = shape.policies(10_000);
        let changed = Arc::make_mut(&mut policies[5_000]);
        changed.rules[0].to[0].paths.push("/more".to_owned());
        criterion.bench_function(&format!("one change in 10000 policies, {}", shape.name()), |bencher| {
            bencher.iter(|| before.recompile(&mesh, black_box(&policies)));
        });
    }
}

/// Makes decisions and says what the first was, so that nobody counts the wrong thing.
fn count(shape: &str, rules: &str, decisions: &str) -> Option<()> {
    let shape = Shape::ALL.into_iter().find(|known| known.name() == shape)?;
    let (rules, decisions): (usize, usize) = (rules.parse().ok()?, decisions.parse().ok()?);
    let authorizer = Authorizer::compile(&MeshSettings::default(), &shape.policies(rules));
    let samples = samples(shape, rules);
    for sample in samples.iter().cycle().take(decisions) {
        assert_eq!(decide(&authorizer, sample).is_allowed(), shape.is_allowed());
    }
    Some(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "shapes") {
        let names = Shape::ALL.map(Shape::name).join("\n");
        return writeln!(std::io::stdout(), "{names}").expect("written");
    }
    if let [word, shape, rules, decisions, ..] = arguments.as_slice()
        && word == "count"
    {
        count(shape, rules, decisions).expect("usage: count SHAPE RULES DECISIONS");
        return;
    }
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
        .configure_from_args();
    decisions(&mut criterion);
    compiling(&mut criterion);
    recompiling(&mut criterion);
    criterion.final_summary();
}
