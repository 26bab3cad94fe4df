//! How far an object has spread in a cluster: whether every replica of the control plane has taken it in, and how
//! many of the proxies that it concerns enforce it.
//!
//! Each replica knows of the proxies that are connected to it, so all are asked, and their numbers are added. A
//! replica that has not taken in the version that was written counts proxies of the former one: until every replica
//! has it, nothing is enforced.

use std::time::Duration;

use mesh_api::admin::ObjectStatus;
use mesh_api::model::{Kind, ObjectRef};
use tokio::time::Instant;

use super::kind;
use super::settle::{Expectation, Goal, Stamp};
use crate::admin_client::AskError;
use crate::command::mesh::{Mesh, Replica, encode};
use crate::command::{EXIT_TIMEOUT, Failure};

/// Pause between two looks: each asks every replica through the API server.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a refusal may be of the version before: a replica first has to see the new one.
const GRACE: Duration = Duration::from_secs(3);
/// Up to this number objects are asked for one by one.
const ONE_BY_ONE_MAX: usize = 8;
/// Laggards that a message names.
const NAMED_MAX: usize = 5;

/// What one replica says of the objects that were asked for.
type Answers = Vec<(String, Vec<ObjectStatus>)>;

/// How it is with one expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    Met,
    /// It is on its way: what is missing.
    Pending(String),
    /// It was refused: why.
    Refused(String),
}

/// Waits until all expectations are met, at most `bound`.
///
/// # Errors
/// When they are not met in time, with who lags; when an object is refused; when the control plane does not answer.
pub(super) async fn wait(mesh: &Mesh, expectations: &[Expectation], bound: Duration) -> Result<(), Failure> {
    let start = Instant::now();
    loop {
        let answers = ask(mesh, expectations).await?;
        let waited = start.elapsed();
        let mut missing = Vec::new();
        for expectation in expectations {
            let name = kind::display(expectation.object());
            match progress(expectation, &answers) {
                Progress::Met => {}
                Progress::Pending(what) => missing.push(format!("{name} {what}")),
                Progress::Refused(why) if waited >= GRACE.min(bound) => {
                    return Err(Failure::new(format!("{name} is not accepted: {why}"))
                        .hint("What was in force before still is. Mend the object and apply it again."));
                }
                Progress::Refused(why) => missing.push(format!("{name} is not accepted: {why}")),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        if waited >= bound {
            return Err(Failure::new(format!(
                "after {} s the change is not everywhere: {}",
                bound.as_secs(),
                missing.join("; ")
            ))
            .hint("What was written stays, and the mesh goes on taking it. `meshctl proxy-status` shows how far it is.")
            .status(EXIT_TIMEOUT));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(mesh: &Mesh, expectations: &[Expectation]) -> Result<Answers, AskError> {
    let mut paths = vec!["/objects/status".to_owned()];
    if expectations.len() <= ONE_BY_ONE_MAX {
        paths = expectations.iter().map(|expectation| path(expectation.object())).collect();
    }
    let mut answers: Answers = Vec::new();
    for path in paths {
        for Replica { name, answer } in mesh.each_replica::<Vec<ObjectStatus>>(&path).await? {
            let answer = answer?;
            match answers.iter_mut().find(|(known, _)| *known == name) {
                Some((_, statuses)) => statuses.extend(answer),
                None => answers.push((name, answer)),
            }
        }
    }
    Ok(answers)
}

fn path(object: &ObjectRef) -> String {
    format!(
        "/objects/status?kind={}&namespace={}&name={}",
        object.kind,
        encode(object.namespace.as_str()),
        encode(object.name.as_str())
    )
}

/// Whether the control plane says how far objects of a kind have come: of those that it obeys.
pub(crate) fn is_told(kind: Kind) -> bool {
    match kind {
        Kind::AuthorizationPolicy
        | Kind::PeerAuthentication
        | Kind::RequestAuthentication
        | Kind::Telemetry
        | Kind::DestinationRule
        | Kind::VirtualService
        | Kind::ServiceEntry
        | Kind::WorkloadEntry => true,
        Kind::Pod | Kind::Service | Kind::ServiceAccount | Kind::Namespace | Kind::MeshConfig => false,
    }
}

fn progress(expectation: &Expectation, answers: &[(String, Vec<ObjectStatus>)]) -> Progress {
    let object = expectation.object();
    let found: Vec<(&str, Option<&ObjectStatus>)> = answers
        .iter()
        .map(|(replica, statuses)| (replica.as_str(), statuses.iter().find(|status| is_of(status, object))))
        .collect();
    match expectation {
        Expectation::Gone(_) => {
            let still: Vec<&str> = found
                .iter()
                .filter(|(_, status)| status.is_some_and(|status| status.accepted || status.held))
                .map(|(replica, _)| *replica)
                .collect();
            match still.is_empty() {
                true => Progress::Met,
                false => Progress::Pending(format!("is still in force at {}", still.join(", "))),
            }
        }
        Expectation::Says(..) => Progress::Met,
        Expectation::Reaches(_, stamp, goal) => reached(&found, stamp, *goal),
    }
}

fn is_of(status: &ObjectStatus, object: &ObjectRef) -> bool {
    status.kind == object.kind
        && status.namespace == object.namespace.as_str()
        && status.name == object.name.as_str()
}

fn reached(found: &[(&str, Option<&ObjectStatus>)], stamp: &Stamp, goal: Goal) -> Progress {
    let refusal = found.iter().find_map(|(_, status)| status.filter(|status| !status.reason.is_empty()));
    if let Some(status) = refusal {
        return Progress::Refused(status.reason.clone());
    }
    let wanted = stamp.generation.unwrap_or(0);
    let has_it = |status: &ObjectStatus| status.accepted && !status.held && status.generation >= wanted;
    let without: Vec<&str> =
        found.iter().filter(|(_, status)| !status.is_some_and(has_it)).map(|(replica, _)| *replica).collect();
    if !without.is_empty() {
        return Progress::Pending(format!("is not in force yet at {}", without.join(", ")));
    }
    let statuses = || found.iter().filter_map(|(_, status)| *status);
    let applies: usize = statuses().map(|status| status.applies).sum();
    let enforced: usize = statuses().map(|status| status.enforced).sum();
    if goal == Goal::Accepted || enforced >= applies {
        return Progress::Met;
    }
    let laggards: Vec<&str> =
        statuses().flat_map(|status| &status.laggards).take(NAMED_MAX).map(String::as_str).collect();
    let named = if laggards.is_empty() { String::new() } else { format!("; not by {}", laggards.join(", ")) };
    Progress::Pending(format!("is enforced by {enforced} of {applies} proxies{named}"))
}

#[cfg(test)]
mod tests {
    use mesh_api::name::{Namespace, ObjectName};

    use super::*;

    fn object() -> ObjectRef {
        ObjectRef {
            kind: Kind::AuthorizationPolicy,
            namespace: Namespace::parse("shop").expect("a namespace"),
            name: ObjectName::parse("allow").expect("a name"),
        }
    }

    fn status(generation: i64, reason: &str, (enforced, applies): (usize, usize)) -> ObjectStatus {
        ObjectStatus {
            kind: Kind::AuthorizationPolicy,
            namespace: "shop".to_owned(),
            name: "allow".to_owned(),
            generation,
            accepted: reason.is_empty(),
            held: !reason.is_empty(),
            reason: reason.to_owned(),
            applies,
            enforced,
            laggards: (enforced..applies).map(|number| format!("web-{number}.shop")).collect(),
        }
    }

    fn judged(goal: Goal, statuses: &[Option<ObjectStatus>]) -> Progress {
        let answers: Vec<(String, Vec<ObjectStatus>)> = statuses
            .iter()
            .enumerate()
            .map(|(number, status)| (format!("control-{number}"), status.iter().cloned().collect()))
            .collect();
        let stamp = Stamp { generation: Some(2), version: String::new() };
        progress(&Expectation::Reaches(object(), stamp, goal), &answers)
    }

    #[test]
    fn proxies_of_all_replicas_have_to_enforce_it() {
        let all = [Some(status(2, "", (3, 3))), Some(status(3, "", (0, 0)))];
        assert_eq!(judged(Goal::Enforced, &all), Progress::Met);
        let some = [Some(status(2, "", (3, 3))), Some(status(2, "", (1, 2)))];
        assert_eq!(
            judged(Goal::Enforced, &some),
            Progress::Pending("is enforced by 4 of 5 proxies; not by web-1.shop".to_owned())
        );
        assert_eq!(judged(Goal::Accepted, &some), Progress::Met);
    }

    #[test]
    fn while_a_replica_has_the_former_version_nothing_is_enforced() {
        for late in [Some(status(1, "", (2, 2))), None] {
            let progress = judged(Goal::Accepted, &[Some(status(2, "", (1, 1))), late]);
            assert_eq!(progress, Progress::Pending("is not in force yet at control-1".to_owned()));
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_control_planes_words() {
        let progress = judged(Goal::Enforced, &[Some(status(1, "spec.action: no such action", (1, 1)))]);
        assert_eq!(progress, Progress::Refused("spec.action: no such action".to_owned()));
    }

    #[test]
    fn what_no_replica_has_in_force_is_gone() {
        let gone = |statuses: Vec<ObjectStatus>| {
            progress(&Expectation::Gone(object()), &[("control-0".to_owned(), statuses)])
        };
        assert_eq!(gone(Vec::new()), Progress::Met);
        assert_eq!(
            gone(vec![status(2, "", (0, 0))]),
            Progress::Pending("is still in force at control-0".to_owned())
        );
    }
}
