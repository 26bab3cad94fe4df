//! Decisions of policy, counted by policy and verdict.
//!
//! The counters belong to the compiled policies that they count for: a policy that is deleted takes its
//! series along, one that stays keeps its numbers when others change. So the number of series follows the
//! configuration, and is bounded besides: what is beyond [`POLICIES_MAX`] shares one series named `other`.
//! Counting is one addition to a number that no lock guards.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mesh_api::model::{Action, AuthorizationPolicy, RequestAuthentication};

/// Policies that have series of their own.
const POLICIES_MAX: usize = 1000;

const NAME: &str = "mesh_authz_decisions_total";
const HELP: &str = "Decisions about requests and connections, by the policy that made them.";

/// What a policy had a part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// It let pass.
    Allow,
    /// It refused.
    Deny,
    /// It recorded.
    Audit,
    /// Its authorizer could not be asked.
    Error,
    /// Enforced, it would have let pass.
    DryRunAllow,
    /// Enforced, it would have refused.
    DryRunDeny,
}

impl Decided {
    const ALL: [Self; 6] =
        [Self::Allow, Self::Deny, Self::Audit, Self::Error, Self::DryRunAllow, Self::DryRunDeny];

    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Audit => "audit",
            Self::Error => "error",
            Self::DryRunAllow => "dry_run_allow",
            Self::DryRunDeny => "dry_run_deny",
        }
    }
}

/// Whose decision it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// That AuthorizationPolicy, by its position in the authorizer.
    Policy(usize),
    /// That RequestAuthentication, by its position among the workload's.
    Authentication(usize),
    /// No policy: none applies, or no ALLOW policy matched.
    Nobody,
}

/// Numbers of one series set.
#[derive(Debug, Default)]
struct Counts([AtomicU64; Decided::ALL.len()]);

impl Counts {
    fn add(&self, decided: Decided) {
        self.0[decided as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone)]
struct Series {
    policy: Arc<str>,
    action: &'static str,
    counts: Arc<Counts>,
}

/// The counters of one workload's policies.
#[derive(Debug, Clone)]
pub struct Decisions {
    policies: Vec<Series>,
    authentications: Vec<Series>,
    nobody: Series,
    other: Series,
}

impl Default for Decisions {
    fn default() -> Self {
        let series =
            |policy: &str| Series { policy: Arc::from(policy), action: "NONE", counts: Arc::default() };
        Self {
            policies: Vec::new(),
            authentications: Vec::new(),
            nobody: series("none"),
            other: series("other"),
        }
    }
}

impl Decisions {
    /// Counters for these policies, in the order in which decisions name them. Numbers of policies that were
    /// there before go on.
    #[must_use]
    pub fn of<'p>(
        authorization: impl IntoIterator<Item = &'p Arc<AuthorizationPolicy>>,
        authentication: &[Arc<RequestAuthentication>],
        before: Option<&Self>,
    ) -> Self {
        let fresh = Self::default();
        let before = before.unwrap_or(&fresh);
        let known: HashMap<(&str, &str), &Arc<Counts>> = before
            .policies
            .iter()
            .chain(&before.authentications)
            .map(|series| ((&*series.policy, series.action), &series.counts))
            .collect();
        let mut room = POLICIES_MAX;
        let mut series = |policy: String, action: &'static str| {
            if room == 0 {
                return before.other.clone();
            }
            room -= 1;
            let counts = known.get(&(policy.as_str(), action)).map(|counts| Arc::clone(counts));
            Series { policy: policy.into(), action, counts: counts.unwrap_or_default() }
        };
        let named = |object: &mesh_api::model::ObjectRef| format!("{}/{}", object.namespace, object.name);
        Self {
            policies: authorization
                .into_iter()
                .map(|policy| series(named(&policy.meta.object), action(policy.action)))
                .collect(),
            authentications: authentication
                .iter()
                .map(|policy| series(named(&policy.meta.object), "JWT"))
                .collect(),
            nobody: before.nobody.clone(),
            other: before.other.clone(),
        }
    }

    /// Counts one decision.
    pub fn note(&self, by: By, decided: Decided) {
        let series = match by {
            By::Policy(at) => self.policies.get(at),
            By::Authentication(at) => self.authentications.get(at),
            By::Nobody => Some(&self.nobody),
        };
        series.unwrap_or(&self.other).counts.add(decided);
    }

    /// The counters as Prometheus reads them. What was never counted is left out.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = format!("# HELP {NAME} {HELP}\n# TYPE {NAME} counter\n");
        let own = self.policies.iter().chain(&self.authentications);
        let own = own.filter(|series| !Arc::ptr_eq(&series.counts, &self.other.counts));
        for series in own.chain([&self.nobody, &self.other]) {
            for decided in Decided::ALL {
                let count = series.counts.0[decided as usize].load(Ordering::Relaxed);
                if count > 0 {
                    // Names of Kubernetes objects need no escaping.
                    let (policy, action, verdict) = (&series.policy, series.action, decided.as_str());
                    let _infallible = writeln!(
                        out,
                        "{NAME}{{policy=\"{policy}\",action=\"{action}\",verdict=\"{verdict}\"}} {count}"
                    );
                }
            }
        }
        out.push('\n');
        out
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
        Action::Audit => "AUDIT",
        Action::Custom => "CUSTOM",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::model::{Kind, ObjectMeta, ObjectRef, Origin, Selector};
    use mesh_api::name::{Namespace, ObjectName};

    fn policy(name: &str) -> Arc<AuthorizationPolicy> {
        Arc::new(AuthorizationPolicy {
            meta: ObjectMeta {
                object: ObjectRef {
                    kind: Kind::AuthorizationPolicy,
                    namespace: Namespace::parse("web").expect("valid"),
                    name: ObjectName::parse(name).expect("valid"),
                },
                labels: Default::default(),
                annotations: Default::default(),
                created: 0,
                origin: Origin::default(),
            },
            selector: Selector::default(),
            targets: Vec::new(),
            action: Action::Deny,
            provider: None,
            rules: Vec::new(),
            dry_run: false,
        })
    }

    #[test]
    fn numbers_go_on_with_their_policy_and_end_with_it() {
        let first = Decisions::of(&[policy("a"), policy("b")], &[], None);
        first.note(By::Policy(0), Decided::Deny);
        first.note(By::Policy(1), Decided::Deny);
        first.note(By::Nobody, Decided::Allow);
        let second = Decisions::of(&[policy("b")], &[], Some(&first));
        second.note(By::Policy(0), Decided::Deny);
        let text = second.render();
        assert!(text.contains("{policy=\"web/b\",action=\"DENY\",verdict=\"deny\"} 2\n"), "{text}");
        assert!(text.contains("{policy=\"none\",action=\"NONE\",verdict=\"allow\"} 1\n"), "{text}");
        assert!(!text.contains("web/a"), "{text}");
    }

    #[test]
    fn series_are_bounded_and_the_rest_is_counted_together() {
        let many: Vec<_> = (0..POLICIES_MAX + 10).map(|number| policy(&format!("p{number}"))).collect();
        let decisions = Decisions::of(&many, &[], None);
        for at in 0..many.len() {
            decisions.note(By::Policy(at), Decided::Deny);
        }
        let text = decisions.render();
        assert_eq!(
            text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count(),
            POLICIES_MAX + 1
        );
        assert!(text.contains("{policy=\"other\",action=\"NONE\",verdict=\"deny\"} 10\n"), "{text}");
    }
}
