//! One rule, compiled for HTTP and for everything else (SEMANTICS 6.2, 6.8).
//!
//! The two forms differ when the rule names something that only HTTP has. On TCP an ALLOW rule of that kind
//! is dropped, because it cannot be met; the other actions lose the field and keep the rest, so that they
//! catch more, never less (TRAP 28). A value that does not compile is treated alike on both.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::model::{Action, AuthorizationPolicy, Operation, Rule, Source};

use super::attributes::Facts;
use super::clause::{Clause, ClauseError, Context, Key, View};
use super::field::{self, Field};

/// A rule as it is evaluated.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleForm {
    /// Sources, ORed, each a list of ANDed clauses; empty means any.
    pub(crate) from: Vec<Vec<Clause>>,
    /// Operations, likewise.
    pub(crate) to: Vec<Vec<Clause>>,
    /// Conditions, ANDed.
    pub(crate) when: Vec<Clause>,
    /// What the index looks the rule up by, in each dimension that it constrains.
    pub(crate) keys: Box<[DimensionKeys]>,
}

/// Keys of which at least one must be found for a rule to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DimensionKeys {
    pub(crate) field: Field,
    pub(crate) view: View,
    pub(crate) keys: Box<[Key]>,
}

impl RuleForm {
    fn new(from: Vec<Vec<Clause>>, to: Vec<Vec<Clause>>, when: Vec<Clause>) -> Self {
        let mut form = Self { from, to, when, keys: Box::default() };
        let usual = form.clauses().map(|clause| (&clause.field, View::Usual));
        let ends = form.clauses().filter(|clause| clause.has_ends());
        let ends = ends.map(|clause| (&clause.field, View::Ends));
        let dimensions: BTreeSet<_> = usual.chain(ends).collect();
        let keys = dimensions.into_iter().filter_map(|(field, view)| {
            let keys = form.keys_of(field, view)?.into();
            Some(DimensionKeys { field: field.clone(), view, keys })
        });
        form.keys = keys.collect();
        form
    }

    /// Keys of which at least one must be found for the rule to match, or `None` when it can match whatever the
    /// attribute is. Parts of a rule are ANDed, so one part that constrains is enough; the one with fewest keys
    /// is taken.
    fn keys_of(&self, field: &Field, view: View) -> Option<Vec<Key>> {
        let of_entry = |clauses: &[Clause]| {
            let here = clauses.iter().filter(|clause| clause.field == *field);
            here.filter_map(|clause| clause.keys(view)).min_by_key(Vec::len)
        };
        let of_entries = |entries: &[Vec<Clause>]| {
            if entries.is_empty() {
                return None;
            }
            let each: Option<Vec<_>> = entries.iter().map(|clauses| of_entry(clauses)).collect();
            each.map(|keys| keys.into_iter().flatten().collect::<Vec<_>>())
        };
        [of_entries(&self.from), of_entries(&self.to), of_entry(&self.when)]
            .into_iter()
            .flatten()
            .min_by_key(Vec::len)
    }

    pub(crate) fn holds(&self, facts: &Facts<'_>) -> bool {
        let entry_holds = |clauses: &Vec<Clause>| clauses.iter().all(|clause| clause.holds(facts));
        (self.from.is_empty() || self.from.iter().any(entry_holds))
            && (self.to.is_empty() || self.to.iter().any(entry_holds))
            && entry_holds(&self.when)
    }

    /// Whether it matches a request or connection.
    pub(crate) fn matches(&self, attributes: &super::Attributes<'_>) -> bool {
        self.holds(&Facts::of(attributes))
    }

    /// Every clause.
    pub(crate) fn clauses(&self) -> impl Iterator<Item = &Clause> {
        self.from.iter().flatten().chain(self.to.iter().flatten()).chain(&self.when)
    }
}

/// Why an ALLOW rule is not in force for a kind of traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It tests something that only HTTP has, and the traffic is not HTTP.
    NeedsHttp(String),
    /// A value does not compile.
    Malformed(String),
}

/// Both forms of a rule.
#[derive(Debug, Clone)]
pub(crate) struct RuleForms {
    pub(crate) http: Result<Arc<RuleForm>, Dropped>,
    pub(crate) tcp: Result<Arc<RuleForm>, Dropped>,
}

/// Which traffic a form is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Traffic {
    Http,
    Tcp,
}

/// Compiles both forms of `rule`.
pub(crate) fn compile(policy: &AuthorizationPolicy, rule: &Rule, trust_domains: &[&str]) -> RuleForms {
    let context = Context { trust_domains, namespace: policy.meta.object.namespace.as_str() };
    let raw = RawRule {
        from: rule.from.iter().map(|source| source_clauses(context, source)).collect(),
        to: rule.to.iter().map(|operation| operation_clauses(context, operation)).collect(),
        when: when_clauses(context, rule),
    };
    let http = raw.form(policy.action, Traffic::Http).map(Arc::new);
    let tcp =
        if raw.needs_http() { raw.form(policy.action, Traffic::Tcp).map(Arc::new) } else { http.clone() };
    RuleForms { http, tcp }
}

type RawClause = Result<Clause, ClauseError>;

struct RawRule {
    from: Vec<Vec<RawClause>>,
    to: Vec<Vec<RawClause>>,
    when: Vec<RawClause>,
}

impl RawRule {
    fn needs_http(&self) -> bool {
        let mut clauses = self.from.iter().flatten().chain(self.to.iter().flatten()).chain(&self.when);
        clauses.any(|clause| clause.as_ref().is_ok_and(|clause| clause.field.is_http_only()))
    }

    fn form(&self, action: Action, traffic: Traffic) -> Result<RuleForm, Dropped> {
        let entries = |entries: &[Vec<RawClause>]| {
            entries.iter().map(|clauses| kept(clauses, action, traffic)).collect::<Result<Vec<_>, _>>()
        };
        let (from, to) = (entries(&self.from)?, entries(&self.to)?);
        Ok(RuleForm::new(from, to, kept(&self.when, action, traffic)?))
    }
}

/// The clauses that stay for this action and traffic, or why the rule goes.
fn kept(clauses: &[RawClause], action: Action, traffic: Traffic) -> Result<Vec<Clause>, Dropped> {
    let mut kept = Vec::new();
    for clause in clauses {
        let problem = match clause {
            Ok(clause) if traffic == Traffic::Tcp && clause.field.is_http_only() => {
                Dropped::NeedsHttp(clause.written.to_string())
            }
            Ok(clause) => {
                kept.push(clause.clone());
                continue;
            }
            Err(error) => Dropped::Malformed(error.to_string()),
        };
        match action {
            Action::Allow => return Err(problem),
            Action::Deny | Action::Audit | Action::Custom => {}
        }
    }
    Ok(kept)
}

fn source_clauses(context: Context<'_>, source: &Source) -> Vec<RawClause> {
    let lists = [
        (Field::Principal, "principals", &source.principals, "notPrincipals", &source.not_principals),
        (
            Field::RequestPrincipal,
            "requestPrincipals",
            &source.request_principals,
            "notRequestPrincipals",
            &source.not_request_principals,
        ),
        (Field::Namespace, "namespaces", &source.namespaces, "notNamespaces", &source.not_namespaces),
        (
            Field::ServiceAccount,
            "serviceAccounts",
            &source.service_accounts,
            "notServiceAccounts",
            &source.not_service_accounts,
        ),
        (Field::SourceIp, "ipBlocks", &source.ip_blocks, "notIpBlocks", &source.not_ip_blocks),
        (
            Field::RemoteIp,
            "remoteIpBlocks",
            &source.remote_ip_blocks,
            "notRemoteIpBlocks",
            &source.not_remote_ip_blocks,
        ),
        (
            Field::TrustDomain,
            "trustDomains",
            &source.trust_domains,
            "notTrustDomains",
            &source.not_trust_domains,
        ),
    ];
    twins(context, lists)
}

fn operation_clauses(context: Context<'_>, operation: &Operation) -> Vec<RawClause> {
    let lists = [
        (Field::Host, "hosts", &operation.hosts, "notHosts", &operation.not_hosts),
        (Field::DestinationPort, "ports", &operation.ports, "notPorts", &operation.not_ports),
        (Field::Method, "methods", &operation.methods, "notMethods", &operation.not_methods),
        (Field::Path, "paths", &operation.paths, "notPaths", &operation.not_paths),
    ];
    twins(context, lists)
}

/// The clauses of fields and their `not` twins; an empty list is no clause.
fn twins<'v>(
    context: Context<'_>,
    lists: impl IntoIterator<Item = (Field, &'static str, &'v Vec<String>, &'static str, &'v Vec<String>)>,
) -> Vec<RawClause> {
    let mut clauses = Vec::new();
    for (field, written, values, written_not, not_values) in lists {
        if !values.is_empty() {
            clauses.push(Clause::compile(context, field.clone(), written, false, values));
        }
        if !not_values.is_empty() {
            clauses.push(Clause::compile(context, field, written_not, true, not_values));
        }
    }
    clauses
}

fn when_clauses(context: Context<'_>, rule: &Rule) -> Vec<RawClause> {
    let mut clauses = Vec::new();
    for condition in &rule.when {
        let field = field::parse_key(&condition.key);
        // A condition without values says nothing, and must not pass for one that holds.
        let Some(field) = field.filter(|_| !(condition.values.is_empty() && condition.not_values.is_empty()))
        else {
            let written = "when".to_owned();
            clauses.push(Err(ClauseError { written, value: condition.key.clone() }));
            continue;
        };
        if !condition.values.is_empty() {
            clauses.push(Clause::compile(context, field.clone(), &condition.key, false, &condition.values));
        }
        if !condition.not_values.is_empty() {
            let written = format!("{} (notValues)", condition.key);
            clauses.push(Clause::compile(context, field, &written, true, &condition.not_values));
        }
    }
    clauses
}
