//! CUSTOM policies: which external authorizer a request is to be shown to, if any (SEMANTICS 6.3).
//!
//! Who is asked is a matter of the workload, not of the rule: all its CUSTOM policies must name one and the
//! same provider, and the mesh must know that provider as an authorizer. When it is not so, there is nobody
//! to ask, and what these policies match is refused; the rest goes on. An authorizer that speaks HTTP cannot
//! be asked about a byte stream, and is not (Istio leaves it out there).

use std::sync::Arc;

use mesh_api::model::{Action, AuthorizationPolicy, AuthorizerProtocol, MeshSettings};

use super::attributes::{Attributes, Facts};
use super::index::Next;
use super::{Authorizer, DenyReason, RuleId, Step};

/// Whether an external authorizer has a say, asked before everything else about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum External<'a> {
    /// No CUSTOM rule matches: the other policies alone decide.
    NotAsked,
    /// The provider is to be asked. Only when it lets the request pass, the other policies decide.
    Ask {
        /// Name of the provider, an authorizer that the mesh settings know.
        provider: &'a str,
        /// The rule that matched.
        rule: RuleId,
    },
    /// A CUSTOM rule matches and there is nobody to ask: the request is refused.
    Refuse {
        /// The rule that matched.
        rule: RuleId,
        /// Why nobody can be asked.
        reason: DenyReason,
    },
}

/// Who is asked for a workload.
#[derive(Debug, Clone, Default)]
pub(super) enum Provider {
    /// There are no CUSTOM policies.
    #[default]
    None,
    /// This one, about requests only when it speaks HTTP.
    Known { name: Box<str>, http_only: bool },
    /// Nobody can be.
    Unusable(DenyReason),
}

impl Provider {
    /// The provider that the CUSTOM policies among `policies` agree on.
    pub(super) fn of(mesh: &MeshSettings, policies: &[Arc<AuthorizationPolicy>]) -> Self {
        let mut custom = policies.iter().filter(|policy| policy.action == Action::Custom);
        let Some(first) = custom.next() else { return Self::None };
        if custom.any(|policy| policy.provider != first.provider) {
            return Self::Unusable(DenyReason::CustomProvidersDiffer);
        }
        let name = first.provider.as_deref().unwrap_or_default();
        match mesh.authorizer(name) {
            None => Self::Unusable(DenyReason::CustomUnavailable),
            Some(authorizer) => Self::Known {
                name: name.into(),
                http_only: matches!(authorizer.protocol, AuthorizerProtocol::Http(_)),
            },
        }
    }
}

impl Authorizer {
    /// Whether an external authorizer has a say about a request or connection. Allocates nothing; called for
    /// every request, before [`Self::authorize`] and before tokens are looked at.
    #[must_use]
    pub fn external(&self, attributes: &Attributes<'_>) -> External<'_> {
        let asked = match &self.provider {
            Provider::None => return External::NotAsked,
            Provider::Known { http_only: true, .. } if attributes.http.is_none() => {
                return External::NotAsked;
            }
            Provider::Known { name, .. } => Ok(&**name),
            Provider::Unusable(reason) => Err(*reason),
        };
        let Some(rule) = self.custom_match(attributes) else { return External::NotAsked };
        match asked {
            Ok(provider) => External::Ask { provider, rule },
            Err(reason) => External::Refuse { rule, reason },
        }
    }

    /// Whether the workload has CUSTOM policies, so that [`Self::external`] has to be asked.
    #[must_use]
    pub fn has_custom(&self) -> bool {
        !matches!(self.provider, Provider::None)
    }

    /// Name of the provider that CUSTOM policies of the workload ask; `None` when there are no such policies,
    /// or nobody can be asked.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        match &self.provider {
            Provider::Known { name, .. } => Some(name),
            Provider::None | Provider::Unusable(_) => None,
        }
    }

    /// The first CUSTOM rule that matches.
    fn custom_match(&self, attributes: &Attributes<'_>) -> Option<RuleId> {
        let facts = Facts::of(attributes);
        let end = self.step_ends[Step::Custom as usize];
        let mut matched = None;
        self.index(attributes).candidates(&facts, |id| {
            if id >= end {
                return Next::Stop;
            }
            if self.rules[id as usize].form(attributes).is_some_and(|form| form.holds(&facts)) {
                matched = Some(RuleId(id));
                return Next::Stop;
            }
            Next::Continue
        });
        matched
    }
}
