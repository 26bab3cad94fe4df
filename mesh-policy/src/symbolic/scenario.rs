//! The kinds of requests that are told apart before any rule is looked at: by transport, by whether they are
//! HTTP, by the token that they carry, and by what mutual TLS and a declared protocol make of their port.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::model::{MeshSettings, MtlsMode};
use mesh_api::policy_test::Traffic;

use super::atom::{AtomId, Atoms, Dimension, Test};
use super::domain::{Domain, Query};
use super::lang::Lang;
use super::search::{Folded, View};
use super::side::{Acceptance, Branch, FoldedSide, Outcome, Reason, Side, Token, Transport};
use super::space::{Kind, Ports, Preferred, Space};
use super::{Undecided, Workload, side};

/// One kind of request.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) transport: Transport,
    pub(super) traffic: Traffic,
    pub(super) kind: Kind,
    pub(super) token: Option<Token>,
    pub(super) ports: Ports,
    /// Modes of these ports, one for each side.
    modes: Vec<MtlsMode>,
    declared: Option<Traffic>,
}

/// What one side sees of a scenario.
#[derive(Debug)]
pub(super) enum Sight {
    /// The connection is closed.
    Closed,
    /// The token is refused, whatever else the request says.
    Refused(View),
    Seen {
        view: View,
        folded: Box<FoldedSide>,
        /// The token is accepted for one of its audiences, and refused without.
        audience: Option<(Folded, Folded)>,
    },
}

impl Sight {
    /// The view, when anything is seen.
    pub(super) fn view(&self) -> Option<View> {
        match self {
            Self::Closed => None,
            Self::Refused(view) | Self::Seen { view, .. } => Some(*view),
        }
    }

    /// Every way in which the side answers.
    pub(super) fn branches<'f>(&'f self, side: &Side) -> Vec<Branch<'f>> {
        let denied = |reason, holds| Branch { outcome: Outcome::Deny, reason, holds, fails: Vec::new() };
        match self {
            Self::Closed => vec![denied(Reason::Transport, Vec::new())],
            Self::Refused(_) => vec![denied(Reason::Token, Vec::new())],
            Self::Seen { folded, audience, .. } => {
                let mut branches = side.branches(folded);
                if let Some((accepted, refused)) = audience {
                    branches.iter_mut().for_each(|branch| branch.holds.push(accepted));
                    branches.push(denied(Reason::Token, vec![refused]));
                }
                branches
            }
        }
    }
}

impl Scenario {
    /// Every kind of request to a workload, the usual ones first.
    pub(super) fn all(sides: &[&Side], workload: &Workload) -> Vec<Self> {
        let mut tokens: Vec<Token> = Vec::new();
        for token in sides.iter().flat_map(|side| side.tokens()) {
            if !tokens.contains(&token) {
                tokens.push(token);
            }
        }
        let kinds = [
            (Transport::Mesh, Traffic::Http, Kind::Usual),
            (Transport::Plain, Traffic::Http, Kind::Usual),
            (Transport::Mesh, Traffic::Tcp, Kind::Usual),
            (Transport::Plain, Traffic::Tcp, Kind::Usual),
            (Transport::Opaque, Traffic::Tcp, Kind::Usual),
            (Transport::Mesh, Traffic::Http, Kind::Connect),
            (Transport::Plain, Traffic::Http, Kind::Connect),
        ];
        let groups = port_groups(sides, workload);
        let mut scenarios = Vec::new();
        for (transport, traffic, kind) in kinds {
            let tokens: &[Token] = if traffic == Traffic::Http { &tokens } else { &[] };
            let tokens = std::iter::once(None).chain(tokens.iter().cloned().map(Some));
            for token in tokens {
                scenarios.extend(groups.iter().map(|group| Self {
                    transport,
                    traffic,
                    kind,
                    token: token.clone(),
                    ports: group.ports.clone(),
                    modes: group.modes.clone(),
                    declared: group.declared,
                }));
            }
        }
        scenarios
    }

    fn arrivals<'s>(&'s self, sides: &'s [&Side]) -> impl Iterator<Item = Option<View>> + 's {
        sides
            .iter()
            .zip(&self.modes)
            .map(|(side, mode)| side.arrival((*mode, self.declared), self.transport, self.traffic))
    }

    /// What each side sees. Must be asked before the space is made, because it may add a test.
    pub(super) fn sights(&self, sides: &[&Side], atoms: &mut Atoms) -> Result<Vec<Sight>, Undecided> {
        let mut sights = Vec::new();
        for (side, arrival) in sides.iter().zip(self.arrivals(sides)) {
            sights.push(match arrival {
                None => Sight::Closed,
                Some(view) => self.sight(side, view, atoms)?,
            });
        }
        Ok(sights)
    }

    fn sight(&self, side: &Side, mut view: View, atoms: &mut Atoms) -> Result<Sight, Undecided> {
        view.path = view.http && self.kind == Kind::Usual;
        let acceptance = match &self.token {
            Some(token) if view.http => side.accepts(token),
            Some(_) | None => Acceptance::Unseen,
        };
        let audience = match acceptance {
            Acceptance::Unseen => None,
            Acceptance::Refused => return Ok(Sight::Refused(view)),
            Acceptance::Accepted(audiences) => {
                view.claims = true;
                (!audiences.is_empty()).then(|| side::audience(atoms, &audiences))
            }
        };
        let test = |atom: AtomId, holds| Folded {
            from: vec![Vec::new()],
            to: vec![Vec::new()],
            when: vec![(atom, holds)],
        };
        Ok(Sight::Seen {
            view,
            folded: Box::new(side.folded(atoms, view)?),
            audience: audience.map(|atom| (test(atom, true), test(atom, false))),
        })
    }

    /// What there is of a request, whoever sees it.
    pub(super) fn whole(&self) -> View {
        View {
            http: self.traffic == Traffic::Http,
            path: self.traffic == Traffic::Http && self.kind == Kind::Usual,
            peer: self.transport == Transport::Mesh,
            claims: self.token.is_some(),
            server_name: self.transport != Transport::Plain,
            scheme: if self.transport == Transport::Plain { "http" } else { "https" },
        }
    }

    /// The requests of this kind.
    pub(super) fn space<'a>(
        &'a self,
        atoms: &'a Atoms,
        mesh: &MeshSettings,
        preferred: &'a Preferred,
    ) -> Result<Space<'a>, Undecided> {
        let domains = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
        let target = Domain::Target { mode: mesh.path_normalization, query: query(atoms) };
        let domains = (Domain::peer(domains.map(AsRef::as_ref)), authority(atoms)?, target);
        let issuer = self.token.as_ref().map(|token| token.issuer.as_str()).unwrap_or_default();
        Ok(Space::new(atoms, (self.ports.clone(), self.kind, issuer), domains, preferred))
    }
}

/// Ports that all sides treat alike.
#[derive(Debug)]
struct PortGroup {
    ports: Ports,
    modes: Vec<MtlsMode>,
    declared: Option<Traffic>,
}

fn port_groups(sides: &[&Side], workload: &Workload) -> Vec<PortGroup> {
    let mut named: BTreeSet<u16> = workload.declared.keys().copied().collect();
    named.extend(sides.iter().flat_map(|side| side.mtls.ports.keys().copied()));
    named.extend(workload.only.iter().flatten().copied());
    let mut groups: BTreeMap<(Vec<MtlsMode>, Option<u8>), BTreeSet<u16>> = BTreeMap::new();
    let declared = |port: u16| workload.declared.get(&port).copied();
    let modes = |port: u16| sides.iter().map(|side| side.mtls.mode_for_port(port)).collect::<Vec<_>>();
    for port in &named {
        if workload.only.as_ref().is_none_or(|only| only.contains(port)) {
            let declared = declared(*port).map(|traffic| u8::from(traffic == Traffic::Tcp));
            groups.entry((modes(*port), declared)).or_default().insert(*port);
        }
    }
    let traffic =
        |declared: Option<u8>| declared.map(|tcp| if tcp == 1 { Traffic::Tcp } else { Traffic::Http });
    let mut list = Vec::new();
    if workload.only.is_none() {
        list.push(PortGroup {
            ports: Ports::AllBut(named),
            modes: sides.iter().map(|side| side.mtls.mode).collect(),
            declared: None,
        });
    }
    list.extend(groups.into_iter().map(|((modes, declared), ports)| PortGroup {
        ports: Ports::These(ports),
        modes,
        declared: traffic(declared),
    }));
    list
}

/// Queries are told apart only where a rule looks at `:path`.
fn query(atoms: &Atoms) -> Query {
    let of_target = atoms.atoms.iter().filter(|atom| *atoms.dimension(atom.dimension) == Dimension::Target);
    let looks = of_target.filter_map(|atom| match &atom.test {
        Test::Texts(langs) => Some(langs),
        _ => None,
    });
    let mut looks = looks.flatten().filter(|lang| !matches!(lang, Lang::BeforeQuery(_)));
    if looks.next().is_some() { Query::Kept } else { Query::Left }
}

/// Addresses in brackets that rules tell apart. Parts of such addresses are not reasoned about.
fn authority(atoms: &Atoms) -> Result<Domain, Undecided> {
    let mut brackets = BTreeSet::new();
    let of_authority =
        atoms.atoms.iter().filter(|atom| *atoms.dimension(atom.dimension) == Dimension::Authority);
    for atom in of_authority {
        let Test::Texts(langs) = &atom.test else { continue };
        for lang in langs {
            let mut is_bracketed = false;
            lang.bytes(&mut |byte| is_bracketed |= matches!(byte, b'[' | b']'));
            match (is_bracketed, lang.only()) {
                (false, _) => {}
                (true, Some(text)) => {
                    let text = String::from_utf8_lossy(text);
                    brackets.extend(
                        text.find(']').map(|end| text[..=end].to_owned()).filter(|inner| is_address(inner)),
                    );
                }
                (true, None) => {
                    return Err(Undecided::Untold(format!(
                        "{} looks at a part of an IPv6 address in a host",
                        atom.told
                    )));
                }
            }
        }
    }
    Ok(Domain::authority(brackets))
}

fn is_address(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
}
