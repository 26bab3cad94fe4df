//! What is decided otherwise by other policies.

use std::collections::BTreeSet;

use mesh_api::model::MeshSettings;

use super::atom::Atoms;
use super::scenario::{Scenario, Sight};
use super::search::Wanted;
use super::side::{Branch, Side};
use super::text::Budget;
use super::verify::{class, host, preferred, subject};
use super::{BUDGET, Example, Settled, Undecided, Workload, confirm, request};
use crate::judge::Policies;
use crate::select;

/// Most changes that are told of one workload.
const CHANGES_MAX: usize = 100;

/// Policies and the settings that they are read in the light of.
#[derive(Debug, Clone, Copy)]
pub struct Policed<'p> {
    /// The settings.
    pub mesh: &'p MeshSettings,
    /// The policies.
    pub policies: &'p Policies,
}

/// A class of requests that is decided otherwise: one for each two ways of deciding.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What becomes of them under the old policies.
    pub old: Settled,
    /// And under the new.
    pub new: Settled,
    /// One of them.
    pub example: Example,
}

/// Everything that is decided otherwise about one workload.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Differences {
    /// The changes.
    pub changes: Vec<Change>,
    /// Whether there are more.
    pub is_cut: bool,
}

/// Compares two sets of policies for one workload.
///
/// # Errors
/// When it is not known whether there are differences.
pub fn differences(
    old: Policed<'_>,
    new: Policed<'_>,
    workload: &Workload,
) -> Result<Differences, Undecided> {
    if is_same(old, new, workload) {
        return Ok(Differences::default());
    }
    check_settings(old.mesh, new.mesh)?;
    let mut atoms = Atoms::default();
    let before = Side::new(old.mesh, &subject(workload), old.policies, &mut atoms)?;
    let after = Side::new(new.mesh, &subject(workload), new.policies, &mut atoms)?;
    let mut comparison = Comparison {
        mesh: new.mesh,
        workload,
        sides: [&before, &after],
        budget: Budget(BUDGET),
        known: BTreeSet::new(),
        found: Differences::default(),
    };
    for scenario in Scenario::all(&[&before, &after], workload) {
        comparison.compare(&scenario, &mut atoms)?;
    }
    Ok(comparison.found)
}

/// Whether the same is in force for the workload.
fn is_same(old: Policed<'_>, new: Policed<'_>, workload: &Workload) -> bool {
    let of = |policed: Policed<'_>| {
        let subject = subject(workload);
        let authorization = select::authorization(policed.mesh, &subject, &policed.policies.authorization);
        let mut authorization: Vec<_> = authorization.iter().map(|policy| policy.as_ref().clone()).collect();
        authorization.iter_mut().for_each(|policy| policy.meta.origin = Default::default());
        authorization.sort_by(|a, b| a.meta.object.cmp(&b.meta.object));
        let request =
            select::request_authentication(policed.mesh, &subject, &policed.policies.request_authentication);
        let jwt: Vec<_> = request.iter().flat_map(|policy| policy.jwt_rules.clone()).collect();
        let mtls = crate::peer_authentication::resolve(
            policed.mesh,
            &subject,
            &policed.policies.peer_authentication,
        );
        (authorization, jwt, mtls.mode, mtls.ports)
    };
    old.mesh == new.mesh && of(old) == of(new)
}

/// Differences of these settings change what a request is, not only what is decided about it.
fn check_settings(old: &MeshSettings, new: &MeshSettings) -> Result<(), Undecided> {
    let told = |name: &str| {
        Err(Undecided::Untold(format!("{name} differs, so the two are not asked about the same requests")))
    };
    if old.path_normalization != new.path_normalization {
        return told("pathNormalization");
    }
    let domains = |mesh: &MeshSettings| {
        let mut domains = mesh.trust_domain_aliases.clone();
        domains.push(mesh.trust_domain.clone());
        domains.sort();
        domains
    };
    if domains(old) != domains(new) {
        return told("the list of trust domains");
    }
    Ok(())
}

struct Comparison<'c> {
    mesh: &'c MeshSettings,
    workload: &'c Workload,
    sides: [&'c Side; 2],
    budget: Budget,
    /// Ways of deciding whose change is known.
    known: BTreeSet<Ways>,
    found: Differences,
}

/// How one side decides, and how the other does.
type Ways = ((super::side::Outcome, super::side::Reason), (super::side::Outcome, super::side::Reason));

impl Comparison<'_> {
    fn compare(&mut self, scenario: &Scenario, atoms: &mut Atoms) -> Result<(), Undecided> {
        let sights = scenario.sights(&self.sides, atoms)?;
        let [before, after] = &*sights else { return Ok(()) };
        let preferred = preferred(self.mesh, self.workload);
        let mut space = scenario.space(atoms, self.mesh, &preferred)?;
        let host = host(self.mesh, &preferred);
        let (old, new) = (before.branches(self.sides[0]), after.branches(self.sides[1]));
        for old in &old {
            for new in &new {
                let ways = ((old.outcome, old.reason), (new.outcome, new.reason));
                if old.outcome == new.outcome || contradict(old, new) || self.known.contains(&ways) {
                    continue;
                }
                if self.found.changes.len() >= CHANGES_MAX {
                    self.found.is_cut = true;
                    return Ok(());
                }
                let wanted = Wanted {
                    holds: old.holds.iter().chain(&new.holds).copied().collect(),
                    fails: old.fails.iter().chain(&new.fails).map(|rules| rules.forms()).collect(),
                };
                let Some(found) = wanted.find(&mut space, &mut self.budget)? else { continue };
                let request = request::request(atoms, self.mesh, scenario, &found, &host)?;
                let settled = |at: usize, sight: &Sight, branch: &Branch<'_>| {
                    confirm::settled(self.sides[at], sight, branch.outcome, &request)
                };
                let (old, new) = (settled(0, before, old)?, settled(1, after, new)?);
                self.known.insert(ways);
                let example = Example { request, class: class(atoms, &found.literals) };
                self.found.changes.push(Change { old, new, example });
            }
        }
        Ok(())
    }
}

/// Whether one side demands what the other excludes.
fn contradict(old: &Branch<'_>, new: &Branch<'_>) -> bool {
    let excludes = |branch: &Branch<'_>, of: &Branch<'_>| {
        of.holds.iter().any(|form| branch.fails.iter().any(|rules| rules.has(form)))
    };
    excludes(old, new) || excludes(new, old)
}
