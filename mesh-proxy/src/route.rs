//! Request to route: asks mesh-policy, and says what it means when there is none.

use std::time::Duration;

use mesh_api::model::destination::Retries;
use mesh_policy::route::{RequestView, RouteTarget};

use crate::respond::Refusal;
use crate::state::DestinationState;

/// What the routes of a destination say about a request.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'a> {
    /// Name of the route; `default` when the destination has no routes, as Envoy names it.
    pub route: &'a str,
    /// Where it goes; `None` is the destination itself.
    pub target: Option<RouteTarget<'a>>,
    /// Time allowed for the whole exchange.
    pub timeout: Option<Duration>,
    /// Retries, if stated.
    pub retries: Option<&'a Retries>,
}

/// Chooses the route of a request. `draw` is uniformly random.
///
/// # Errors
/// When routes exist and none of them matches (404), or the one that does leads nowhere (503).
pub fn choose<'a>(
    destination: &'a DestinationState,
    request: &RequestView<'_>,
    draw: u32,
) -> Result<Chosen<'a>, Refusal> {
    let Some(routes) = &destination.routes else {
        return Ok(Chosen { route: "default", target: None, timeout: None, retries: None });
    };
    let plan = routes.select(request, draw).ok_or(Refusal::NoRoute)?;
    let target = plan.target.ok_or(Refusal::NoHealthyUpstream)?;
    Ok(Chosen { route: plan.route, target: Some(target), timeout: plan.timeout, retries: plan.retries })
}
