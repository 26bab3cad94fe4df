//! Where a request goes (SEMANTICS 10.2, 10.3).
//!
//! Routes are tried in order, the first that matches is taken, and nothing is tried after it. What depends
//! on the caller alone (`sourceLabels`, `sourceNamespace`) is resolved when the table is compiled, because a
//! proxy has one caller. A match that cannot be compiled is left out with a problem, and a route that is
//! left without its matches goes with them: it must not become a catch-all. Randomness is an argument.

mod matcher;

use std::time::Duration;

use mesh_api::model::destination::{HttpRoute, Retries, WeightedTarget};
use mesh_api::model::{Origin, RouteSet};
use mesh_api::name::Host;
use mesh_api::problem::{Problem, Severity};

use crate::authorize::HeaderValues;
use crate::select::Subject;
use matcher::Matcher;

/// Retries after the first attempt when a route states none (SEMANTICS 10.3).
pub const DEFAULT_RETRY_ATTEMPTS: u32 = 2;
/// Conditions for a retry when a route states none.
pub const DEFAULT_RETRY_ON: [&str; 5] =
    ["connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"];

/// A request, as routes see it.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// Method.
    pub method: &'a str,
    /// Authority with its port, as sent.
    pub authority: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Normalised path without query.
    pub path: &'a str,
    /// Query without its `?`.
    pub query: Option<&'a str>,
    /// Service port that was dialled.
    pub port: u16,
    /// Header lines.
    pub headers: &'a dyn HeaderValues,
}

/// The compiled routes of one host for one caller.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    routes: Vec<Route>,
}

#[derive(Debug, Clone)]
struct Route {
    name: String,
    /// ORed; empty matches everything.
    matchers: Vec<Matcher>,
    /// Targets that can be drawn, each with the sum of the weights up to it.
    targets: Vec<(u64, WeightedTarget)>,
    timeout: Option<Duration>,
    retries: Option<Retries>,
}

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutePlan<'t> {
    /// Name of the route, possibly empty.
    pub route: &'t str,
    /// Position of the route, from 0.
    pub index: usize,
    /// Where the request goes; `None` when the route has nowhere to send it (answer 503).
    pub target: Option<RouteTarget<'t>>,
    /// Time allowed for the whole exchange; `None` is unlimited.
    pub timeout: Option<Duration>,
    /// Retries as stated; `None` is [`DEFAULT_RETRY_ATTEMPTS`] on [`DEFAULT_RETRY_ON`].
    pub retries: Option<&'t Retries>,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteTarget<'t> {
    /// Destination host.
    pub host: &'t Host,
    /// Service port; `None` is the port that was dialled.
    pub port: Option<u16>,
    /// Subset of the destination.
    pub subset: Option<&'t str>,
}

impl RouteTable {
    /// Compiles `routes` for the workload `caller`; problems are those of matches that were left out.
    #[must_use]
    pub fn compile(routes: &RouteSet, caller: &Subject<'_>) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut compiled = Vec::new();
        for (index, route) in routes.http.iter().enumerate() {
            let mut matchers = Vec::new();
            for (position, entry) in route.matches.iter().enumerate() {
                match Matcher::compile(entry, caller) {
                    Ok(Some(matcher)) => matchers.push(matcher),
                    Ok(None) => {}
                    Err(error) => problems.push(Problem {
                        code: "MM0301".to_owned(),
                        severity: Severity::Error,
                        object: Some(routes.object.clone()),
                        origin: Origin::default(),
                        field: format!("spec.http[{index}].match[{position}].{}", error.field),
                        message: format!("match is left out: {error}"),
                        hint: "Write an RE2 expression of at most 1024 characters.".to_owned(),
                    }),
                }
            }
            if matchers.is_empty() && !route.matches.is_empty() {
                continue;
            }
            let is_catch_all = matchers.is_empty();
            compiled.push(Route::new(route, matchers));
            if is_catch_all {
                break;
            }
        }
        (Self { routes: compiled }, problems)
    }

    /// The plan for one request, or `None` when no route matches (answer 404). `draw` is uniformly random;
    /// with it the choice among weighted targets is the same every time. Allocates nothing.
    #[must_use]
    pub fn select(&self, request: &RequestView<'_>, draw: u32) -> Option<RoutePlan<'_>> {
        let (index, route) = self.routes.iter().enumerate().find(|(_, route)| {
            route.matchers.is_empty() || route.matchers.iter().any(|matcher| matcher.matches(request))
        })?;
        Some(RoutePlan {
            route: &route.name,
            index,
            target: route.draw(draw),
            timeout: route.timeout,
            retries: route.retries.as_ref(),
        })
    }

    /// Every host that a route can send to, with repetitions.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.routes.iter().flat_map(|route| route.targets.iter().map(|(_, target)| &target.host))
    }

    /// Number of routes that are left for this caller.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether no route is left, so that every request is answered 404.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

impl Route {
    fn new(route: &HttpRoute, matchers: Vec<Matcher>) -> Self {
        // A single target gets everything, even with weight 0; among several, weight 0 gets nothing.
        let single = route.targets.len() == 1;
        let mut sum = 0;
        let mut targets = Vec::new();
        for target in &route.targets {
            let weight = if single { 1 } else { u64::from(target.weight) };
            if weight > 0 {
                sum += weight;
                targets.push((sum, target.clone()));
            }
        }
        Self {
            name: route.name.clone(),
            matchers,
            targets,
            timeout: route.timeout_ms.map(Duration::from_millis),
            retries: route.retries.clone(),
        }
    }

    fn draw(&self, draw: u32) -> Option<RouteTarget<'_>> {
        let (total, _) = self.targets.last()?;
        // Scales the draw to 0..total without the bias of a remainder.
        let point = (u128::from(draw) * u128::from(*total)) >> 32;
        let at = self.targets.partition_point(|(sum, _)| u128::from(*sum) <= point);
        let (_, target) = self.targets.get(at)?;
        Some(RouteTarget { host: &target.host, port: target.port, subset: target.subset.as_deref() })
    }
}

#[cfg(test)]
mod tests;
