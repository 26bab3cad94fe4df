//! A restart that callers do not notice, when another instance can take over meanwhile.
//!
//! An application that is told to end stops listening before it has ended, and whoever is sent to it then is
//! refused. So the control plane is told first that this instance gets no traffic (`weight: 0`), and the
//! application ends once every proxy knows; it gets traffic again once it listens. This is what a rollout in
//! Kubernetes does with endpoints and readiness. Every wait has a bound: a control plane that is away, or an
//! application that does not listen, delays a restart and never prevents it.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::time::Duration;

use mesh_api::admin::{ControlStatus, ProxyStatus};

use super::context::Context;
use super::control_plane;
use crate::admin_client;
use crate::local::plan::{Plan, Workload};
use crate::output;

/// Time for all proxies to know. It takes tens of milliseconds.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// Time for requests that are on their way to be answered. Longer ones are the application's own concern: it
/// is asked to end and decides how.
const ANSWERED_WITHIN: Duration = Duration::from_millis(250);
/// Time for the application to listen again.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);
/// Between looks.
const PAUSE: Duration = Duration::from_millis(20);
/// State of a listening socket in `/proc/net/tcp` (`TCP_LISTEN` of the kernel's `tcp_states.h`).
const LISTENS: &str = "0A";

/// Whether a workload's traffic is with its neighbours at the moment.
#[derive(Debug, Default)]
pub(crate) struct Handover(Cell<bool>);

impl Handover {
    /// Leads traffic away from a workload that others can stand in for, and waits until it is so. If this
    /// is dropped meanwhile, traffic stays away until [`Self::take_back`].
    pub(crate) async fn hand_over(&self, context: &Context, workload: &Workload) {
        if !has_neighbour(&context.plan(), workload) || !context.is_told_alone(workload) {
            return;
        }
        let before = status().await.map_or(0, |status| status.revision);
        if let Err(error) = context.write_workload(workload, Some(0)) {
            output::note(&format!("{}: its traffic stays: {}", workload.id(), output::chain(&error)));
            return;
        }
        self.0.set(true);
        let known = until(|| async { status().await.is_some_and(|now| is_known(&now, before)) });
        if tokio::time::timeout(KNOWN_WITHIN, known).await.is_ok() {
            tokio::time::sleep(ANSWERED_WITHIN).await;
        }
    }

    /// Leads traffic back, once the application with this number listens on the workload's ports.
    pub(crate) async fn take_back(&self, context: &Context, workload: &Workload, pid: Option<i32>) {
        if !self.0.get() {
            return;
        }
        let listens = until(|| async { pid.is_none_or(|pid| listens_on_all(pid, workload)) });
        // One that listens on other ports than it says gets its traffic nevertheless, as before.
        let _whether_in_time = tokio::time::timeout(LISTENS_WITHIN, listens).await;
        match context.write_workload(workload, None) {
            Ok(()) => self.0.set(false),
            Err(error) => {
                output::note(&format!("{} gets no traffic: {}", workload.id(), output::chain(&error)));
            }
        }
    }
}

/// Whether somebody else is behind every service of a workload.
fn has_neighbour(plan: &Plan, workload: &Workload) -> bool {
    let mut services = plan.services.iter().filter(|service| service.selects(workload)).peekable();
    services.peek().is_some()
        && services.all(|service| {
            plan.workloads.iter().any(|other| other.id() != workload.id() && service.selects(other))
        })
}

async fn until<F: Future<Output = bool>>(is_true: impl Fn() -> F) {
    while !is_true().await {
        tokio::time::sleep(PAUSE).await;
    }
}

async fn status() -> Option<ControlStatus> {
    admin_client::get(Path::new(control_plane::SOCKET), "/status").await.ok()
}

/// Whether the configuration has changed since `before` and every proxy that is connected has it.
fn is_known(status: &ControlStatus, before: u64) -> bool {
    let has_it = |proxy: &ProxyStatus| {
        !proxy.connected || proxy.types.values().all(|type_status| type_status.state == "SYNCED")
    };
    status.revision > before && status.proxies.iter().all(has_it)
}

fn listens_on_all(pid: i32, workload: &Workload) -> bool {
    let table = |name: &str| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let tables = [table("tcp"), table("tcp6")];
    workload.ports.iter().all(|port| tables.iter().any(|table| listens(table, port.port)))
}

/// Whether a table of `/proc/net/tcp` has a listener on a port: the second column is address and port in
/// hexadecimal digits, the fourth the state (proc(5)).
fn listens(table: &str, port: u16) -> bool {
    table.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let local = columns.next().and_then(|local| local.rsplit_once(':'));
        let is_port = local.is_some_and(|(_, digits)| u16::from_str_radix(digits, 16) == Ok(port));
        is_port && columns.nth(1) == Some(LISTENS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::plan::planned;

    fn plan(text: &str) -> Plan {
        planned("/srv/mesh.yaml", text)
    }

    #[test]
    fn only_who_has_a_neighbour_behind_every_service_hands_over() {
        let alone =
            plan("workloads: [{name: a, command: x, ports: [80]}, {name: b, command: x, ports: [80]}]");
        assert!(!has_neighbour(&alone, &alone.workloads[0]));
        let two = plan("workloads: [{name: a, command: x, ports: [80], replicas: 2}, {name: b, command: x}]");
        assert!(has_neighbour(&two, &two.workloads[0]));
        let unserved = &two.workloads[2];
        assert!(!has_neighbour(&two, unserved), "{unserved:?} is behind no service");
    }

    #[test]
    fn a_listener_is_found_by_its_port_and_state() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
                     \u{20}  0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000\n\
                     \u{20}  1: 0100007F:1F91 0100007F:C350 01 00000000:00000000 00:00000000\n";
        assert!(listens(table, 8080));
        assert!(!listens(table, 8081), "it is connected and does not listen");
        assert!(!listens(table, 80) && !listens("", 8080));
    }
}
