//! The policies of one workload, and the ways in which they can answer a request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::model::{Action, AuthorizerProtocol, JwtRule, KeySource, MeshSettings, MtlsMode};
use mesh_api::policy_test::Traffic;

use super::Undecided;
use super::atom::{Atoms, Dimension, Form, Test};
use super::lang::Lang;
use super::search::{Folded, View, fold};
use crate::authorize::rule::RuleForm;
use crate::authorize::{Authorizer, RuleId, Step};
use crate::judge::{Judge, Policies};
use crate::peer_authentication::{self, MtlsResolution};
use crate::select::{self, Subject};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// It reaches the application.
    Allow,
    /// It does not.
    Deny,
    /// It does if an external authorizer says so.
    Ask,
}

/// Why it becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// Mutual TLS closes the connection.
    Transport,
    /// The token is refused.
    Token,
    /// This rule decided.
    Rule(RuleId),
    /// ALLOW policies apply and none of their rules matches.
    NoAllow,
    /// No ALLOW policy applies.
    Open,
}

/// One way in which policies answer.
#[derive(Debug, Clone)]
pub(super) struct Branch<'f> {
    pub(super) outcome: Outcome,
    pub(super) reason: Reason,
    /// Rules that match.
    pub(super) holds: Vec<&'f Folded>,
    /// Rules that do not.
    pub(super) fails: Vec<Rules<'f>>,
}

struct SideRule {
    id: RuleId,
    step: Step,
    http: Option<Form>,
    tcp: Option<Form>,
}

impl std::fmt::Debug for SideRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SideRule").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The policies of one workload.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) judge: Judge,
    pub(super) mtls: MtlsResolution,
    pub(super) jwt: Vec<JwtRule>,
    rules: Vec<SideRule>,
    has_allow: bool,
    custom: Custom,
    /// Headers that hold or receive what a token says.
    pub(super) token_headers: BTreeSet<String>,
}

/// Who is asked about what CUSTOM rules match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Custom {
    Asked,
    AskedAboutHttp,
    /// Nobody can be, so it is refused.
    Refused,
}

/// How a connection arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transport {
    /// Mutual TLS of the mesh.
    Mesh,
    Plain,
    /// TLS that is none of the mesh's.
    Opaque,
}

/// A token of an issuer that some policies accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) issuer: String,
    keys: (KeySource, String),
    location: (Vec<(String, String)>, Vec<String>, Vec<String>),
}

/// What policies make of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Acceptance {
    /// They do not look where it is.
    Unseen,
    /// They verify it, if one of these is among its audiences; an empty list accepts any.
    Accepted(Vec<String>),
    Refused,
}

impl Token {
    fn of(rule: &JwtRule) -> Self {
        Self {
            issuer: rule.issuer.clone(),
            keys: (rule.key_source(), rule.jwks.clone()),
            location: (rule.from_headers.clone(), rule.from_params.clone(), rule.from_cookies.clone()),
        }
    }
}

impl Side {
    pub(super) fn new(
        mesh: &MeshSettings,
        subject: &Subject<'_>,
        policies: &Policies,
        atoms: &mut Atoms,
    ) -> Result<Self, Undecided> {
        let selected = select::authorization(mesh, subject, &policies.authorization);
        let authorizer = Authorizer::compile(mesh, &selected);
        let mut rules = Vec::new();
        for (id, step, forms) in authorizer.compiled() {
            let mut form = |form: &Result<Arc<RuleForm>, _>| match form {
                Ok(form) => atoms.form(form).map(Some),
                Err(_) => Ok(None),
            };
            match step {
                Step::Custom | Step::Deny | Step::Allow => {
                    rules.push(SideRule { id, step, http: form(&forms.http)?, tcp: form(&forms.tcp)? });
                }
                Step::Audit | Step::DryRunDeny | Step::DryRunAllow => {}
            }
        }
        let request = select::request_authentication(mesh, subject, &policies.request_authentication);
        let jwt: Vec<JwtRule> = request.iter().flat_map(|policy| policy.jwt_rules.iter().cloned()).collect();
        Ok(Self {
            judge: Judge::compile(mesh, subject, policies),
            mtls: peer_authentication::resolve(mesh, subject, &policies.peer_authentication),
            has_allow: selected.iter().any(|policy| policy.action == Action::Allow && !policy.dry_run),
            custom: match authorizer.provider().and_then(|name| mesh.authorizer(name)) {
                Some(provider) if matches!(provider.protocol, AuthorizerProtocol::Http(_)) => {
                    Custom::AskedAboutHttp
                }
                Some(_) => Custom::Asked,
                None => Custom::Refused,
            },
            token_headers: token_headers(&jwt),
            jwt,
            rules,
        })
    }

    pub(super) fn tokens(&self) -> impl Iterator<Item = Token> {
        self.jwt.iter().map(Token::of)
    }

    pub(super) fn accepts(&self, token: &Token) -> Acceptance {
        let looks = self.jwt.iter().any(|rule| Token::of(rule).location == token.location);
        if !looks {
            return Acceptance::Unseen;
        }
        let rules: Vec<&JwtRule> = self.jwt.iter().filter(|rule| Token::of(rule) == *token).collect();
        match rules.is_empty() {
            true => Acceptance::Refused,
            false if rules.iter().any(|rule| rule.audiences.is_empty()) => Acceptance::Accepted(Vec::new()),
            false => {
                let audiences: BTreeSet<&String> = rules.iter().flat_map(|rule| &rule.audiences).collect();
                Acceptance::Accepted(audiences.into_iter().cloned().collect())
            }
        }
    }

    /// What policies see of a connection, before tokens are looked at; `None` when it is closed.
    pub(super) fn arrival(
        &self,
        (mode, declared): (MtlsMode, Option<Traffic>),
        transport: Transport,
        traffic: Traffic,
    ) -> Option<View> {
        let seen = |http: bool, peer: bool| View {
            http,
            path: http,
            peer,
            claims: false,
            server_name: transport != Transport::Plain,
            scheme: if transport == Transport::Plain { "http" } else { "https" },
        };
        // What is no HTTP is refused on a port that is declared so; on one declared TCP all is bytes.
        let http = match (declared, traffic) {
            (Some(Traffic::Http), Traffic::Tcp) => None,
            (Some(Traffic::Tcp), _) | (None, Traffic::Tcp) => Some(false),
            (Some(Traffic::Http) | None, Traffic::Http) => Some(true),
        };
        match (mode, transport) {
            (MtlsMode::Strict, Transport::Plain | Transport::Opaque) => None,
            (MtlsMode::Disable, Transport::Mesh | Transport::Opaque) => Some(seen(false, false)),
            (MtlsMode::Permissive, Transport::Opaque) => http.map(|_| seen(false, false)),
            (MtlsMode::Permissive | MtlsMode::Disable, Transport::Plain) => {
                http.map(|http| seen(http, false))
            }
            (MtlsMode::Permissive | MtlsMode::Strict, Transport::Mesh) => http.map(|http| seen(http, true)),
        }
    }

    /// The rules as they are for what is seen so.
    pub(super) fn folded(&self, atoms: &Atoms, view: View) -> Result<FoldedSide, Undecided> {
        let mut folded = FoldedSide::default();
        for rule in &self.rules {
            let form = if view.http { &rule.http } else { &rule.tcp };
            let Some(form) = form else { continue };
            if view.http && !self.jwt.is_empty() {
                self.refuse_token_headers(atoms, form)?;
            }
            // CUSTOM is asked before tokens are looked at (SEMANTICS 4.1).
            let view = if rule.step == Step::Custom { View { claims: false, ..view } } else { view };
            let Some(form) = fold(atoms, form, view) else { continue };
            match rule.step {
                Step::Custom if self.custom == Custom::AskedAboutHttp && !view.http => {}
                Step::Custom => folded.custom.push(rule.id, form),
                Step::Deny => folded.deny.push(rule.id, form),
                Step::Allow => folded.allow.push(rule.id, form),
                Step::Audit | Step::DryRunDeny | Step::DryRunAllow => {}
            }
        }
        Ok(folded)
    }

    /// Headers that tokens come in or that are made of them are no free choice of the client.
    pub(super) fn refuse_token_headers(&self, atoms: &Atoms, form: &Form) -> Result<(), Undecided> {
        let terms = form.from.iter().chain(&form.to).flatten().chain(&form.when);
        for term in terms {
            let super::atom::Meaning::Atom(atom) = term.meaning else { continue };
            let Dimension::Header(name) = atoms.dimension(atoms.atom(atom).dimension) else { continue };
            if self.token_headers.contains(&**name) {
                return Err(Undecided::Untold(format!(
                    "a rule tests the header {name}, which RequestAuthentication reads or writes"
                )));
            }
        }
        Ok(())
    }

    /// Every way in which the policies answer, each with the rule that decides.
    pub(super) fn branches<'f>(&self, folded: &'f FoldedSide) -> Vec<Branch<'f>> {
        let FoldedSide { deny, allow, custom } = folded;
        let refuses = self.custom == Custom::Refused;
        let mut branches = Vec::new();
        let mut put = |outcome, reason, holds: Vec<&'f Folded>, fails: Vec<Rules<'f>>| {
            branches.push(Branch { outcome, reason, holds, fails });
        };
        let unrefused = if refuses { custom.all() } else { custom.first(0) };
        if refuses {
            for (at, (id, form)) in custom.iter().enumerate() {
                put(Outcome::Deny, Reason::Rule(id), vec![form], vec![custom.first(at)]);
            }
        }
        for (at, (id, form)) in deny.iter().enumerate() {
            put(Outcome::Deny, Reason::Rule(id), vec![form], vec![unrefused, deny.first(at)]);
        }
        let mut passes: Vec<(Reason, Option<&'f Folded>, Rules<'f>)> = Vec::new();
        if self.has_allow {
            put(Outcome::Deny, Reason::NoAllow, Vec::new(), vec![unrefused, deny.all(), allow.all()]);
            let rules = allow.iter().enumerate();
            passes.extend(rules.map(|(at, (id, form))| (Reason::Rule(id), Some(form), allow.first(at))));
        } else {
            passes.push((Reason::Open, None, allow.first(0)));
        }
        for (reason, form, before) in passes {
            if !refuses {
                for (id, asking) in custom.iter() {
                    let holds = form.into_iter().chain([asking]).collect();
                    put(Outcome::Ask, Reason::Rule(id), holds, vec![deny.all(), before]);
                }
            }
            put(Outcome::Allow, reason, form.into_iter().collect(), vec![custom.all(), deny.all(), before]);
        }
        branches
    }
}

/// The rules of a side for one view.
#[derive(Debug, Default)]
pub(super) struct FoldedSide {
    deny: RuleList,
    allow: RuleList,
    custom: RuleList,
}

/// Rules in the order in which they are asked.
#[derive(Debug, Default)]
struct RuleList {
    ids: Vec<RuleId>,
    forms: Vec<Folded>,
    /// Where each form stands first.
    places: BTreeMap<Folded, usize>,
}

impl RuleList {
    fn push(&mut self, id: RuleId, form: Folded) {
        self.places.entry(form.clone()).or_insert(self.forms.len());
        self.ids.push(id);
        self.forms.push(form);
    }

    fn iter(&self) -> impl Iterator<Item = (RuleId, &Folded)> {
        self.ids.iter().copied().zip(&self.forms)
    }

    fn first(&self, count: usize) -> Rules<'_> {
        Rules { list: self, count }
    }

    fn all(&self) -> Rules<'_> {
        self.first(self.forms.len())
    }
}

/// The first rules of a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'f> {
    list: &'f RuleList,
    count: usize,
}

impl<'f> Rules<'f> {
    pub(super) fn forms(&self) -> &'f [Folded] {
        &self.list.forms[..self.count]
    }

    /// Whether a rule that says the same is among them.
    pub(super) fn has(&self, form: &Folded) -> bool {
        self.list.places.get(form).is_some_and(|at| *at < self.count)
    }
}

/// The test that one of these is among the audiences of a token.
pub(super) fn audience(atoms: &mut Atoms, audiences: &[String]) -> super::atom::AtomId {
    let langs = audiences.iter().map(|text| Lang::Exact(text.as_bytes().into())).collect();
    let told = || format!("request.auth.audiences [{}]", audiences.join(", "));
    atoms.intern(Dimension::Claim(["aud".into()].into()), Test::Texts(langs), told)
}

fn token_headers(rules: &[JwtRule]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for rule in rules {
        let is_default =
            rule.from_headers.is_empty() && rule.from_params.is_empty() && rule.from_cookies.is_empty();
        if is_default {
            names.insert("authorization".to_owned());
        }
        if !rule.from_cookies.is_empty() {
            names.insert("cookie".to_owned());
        }
        names.extend(rule.from_headers.iter().map(|(name, _)| name.to_ascii_lowercase()));
        names.extend(rule.output_claim_to_headers.iter().map(|(header, _)| header.to_ascii_lowercase()));
        if !rule.output_payload_to_header.is_empty() {
            names.insert(rule.output_payload_to_header.to_ascii_lowercase());
        }
    }
    names
}
