//! A short run of every target with a fixed seed, and everything that has broken one before.

use mesh_fuzz::run::{Until, run};
use mesh_fuzz::targets::TARGETS;

/// Changed inputs of each target.
const INPUTS: u64 = 2_000;

#[test]
fn hostile_bytes_break_no_parser() {
    for target in TARGETS {
        let outcome = run(target, Until::Inputs(INPUTS), 7);
        assert!(outcome.inputs > INPUTS, "{}", target.name);
        assert!(outcome.outcomes > 1, "{}: every input came to the same", target.name);
        assert_eq!(outcome.broken, None, "{}", target.name);
    }
}
