//! Runs every `PolicyTest` of `tests/policy` through the library. What the files expect is the contract
//! (SEMANTICS sections 1 to 9), not what the engine does; a case that fails is a bug of the engine. `meshctl
//! policy test` runs the same files in the tests of mesh-cli.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use mesh_api::manifest::Object;
use mesh_api::manifest::policy_test::{self, PolicySource, PolicyTest};
use mesh_api::policy_test::Admission;
use mesh_policy::policy_test::{PolicySet, Suite};

/// 2026-01-01, the present of cases that state none.
const NOW: i64 = 1_767_225_600;

fn policy_set(sources: &[PolicySource], test: &PolicyTest) -> PolicySet {
    let mut set = PolicySet::default();
    set.policies.key_sets.clone_from(&test.key_sets);
    for source in sources {
        let PolicySource::Inline(sourced) = source else { unreachable!("{source:?}: cases are of one file") };
        match &sourced.object {
            Object::AuthorizationPolicy(policy) => set.policies.authorization.push(Arc::new(policy.clone())),
            Object::PeerAuthentication(policy) => {
                set.policies.peer_authentication.push(Arc::new(policy.clone()));
            }
            Object::RequestAuthentication(policy) => {
                set.policies.request_authentication.push(Arc::new(policy.clone()));
            }
            other => unreachable!("{} is no policy", other.object_ref()),
        }
    }
    set
}

/// Runs a test; the failures, and how many cases ran.
fn run(test: &PolicyTest) -> (Vec<String>, usize) {
    let mut failures = Vec::new();
    let mut suite = Suite::default();
    for case in &test.cases {
        let set = suite.add(policy_set(case.policies.as_ref().unwrap_or(&test.policies), test));
        for mismatch in suite.run(set, &case.case, NOW).mismatches {
            failures.push(format!("{} {}: {mismatch:?}", case.case.origin, case.case.name));
        }
    }
    for case in &test.admission {
        let is_met = match case.expect {
            Admission::Accept => case.found != Admission::Reject,
            Admission::Warn | Admission::Reject => case.found == case.expect,
        };
        if !is_met {
            failures.push(format!("{} {}: {:?} {:?}", case.origin, case.name, case.found, case.problems));
        }
    }
    (failures, test.cases.len() + test.admission.len())
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the engine reads no files; this test reads its cases")]
fn every_policy_test_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the folder of tests")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let (mut failures, mut count) = (Vec::new(), 0);
    for file in files {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let read = policy_test::parse(&name, &fs::read_to_string(&file).expect("a readable file"));
        assert!(read.problems.is_empty() && read.others.is_empty(), "{:?}", read.problems);
        for test in &read.tests {
            let (found, ran) = run(test);
            failures.extend(found);
            count += ran;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(count > 700, "files are missing: only {count} cases ran");
}
