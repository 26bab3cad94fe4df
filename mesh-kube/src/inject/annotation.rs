//! What annotations change for one pod: those of Istio and Linkerd, by their own names.
//!
//! Later ones win over earlier ones: Linkerd's annotations (the pod's over its namespace's), then Istio's
//! `proxy.istio.io/config`, then Istio's single annotations. Lists of what is left alone add up. A value that cannot be read refuses
//! the pod, because a port that was meant to be left alone and is not (or the reverse) shows only in an
//! outage. What is known and cannot be honoured is a warning that names it.

mod istio;
mod linkerd;
mod list;

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::InjectError;
use super::decision::NamespaceMeta;
use super::quantity::Quantity;
use super::seconds::Seconds;
use super::settings::{InjectSettings, NativeSidecars};

/// Settings as they hold for one pod.
#[derive(Debug, Clone)]
pub(super) struct Effective {
    pub(super) image: String,
    pub(super) log_level: String,
    pub(super) native_sidecars: NativeSidecars,
    pub(super) is_held: bool,
    pub(super) captures_dns: bool,
    pub(super) rewrites_probes: bool,
    pub(super) workers: Option<u16>,
    pub(super) drain: Seconds,
    pub(super) traffic: Traffic,
    pub(super) cpu: Demand,
    pub(super) memory: Demand,
    pub(super) readiness: Readiness,
}

/// What is asked for of one resource, by annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) request: Option<Quantity>,
    pub(super) limit: Option<Quantity>,
}

impl Demand {
    /// Whether annotations say nothing about it.
    pub(super) fn is_empty(&self) -> bool {
        self.request.is_none() && self.limit.is_none()
    }
}

/// Times of the proxy's readiness probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Readiness {
    pub(super) initial_delay_seconds: u32,
    pub(super) period_seconds: u32,
    pub(super) failure_threshold: u32,
}

/// Which traffic is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) include_inbound_ports: Include<u16>,
    pub(super) exclude_inbound_ports: Vec<u16>,
    /// Beside the networks: a port of these is captured wherever it goes.
    pub(super) include_outbound_ports: Include<u16>,
    pub(super) exclude_outbound_ports: Vec<u16>,
    pub(super) include_outbound_cidrs: Include<IpNet>,
    pub(super) exclude_outbound_cidrs: Vec<IpNet>,
}

/// What is captured of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Include<T> {
    /// Everything.
    All,
    /// These; an empty list is nothing.
    Only(Vec<T>),
}

impl<T: Clone> Include<T> {
    fn of_settings(list: &[T]) -> Self {
        if list.is_empty() { Self::All } else { Self::Only(list.to_vec()) }
    }
}

impl Effective {
    fn of_settings(settings: &InjectSettings) -> Self {
        Self {
            image: settings.image.clone(),
            log_level: settings.log_level.clone(),
            native_sidecars: settings.native_sidecars,
            is_held: settings.hold_application_until_proxy_starts,
            captures_dns: settings.dns_capture,
            rewrites_probes: settings.rewrite_probes,
            workers: settings.workers,
            drain: settings.drain_duration,
            traffic: Traffic {
                include_inbound_ports: Include::of_settings(&settings.include_inbound_ports),
                exclude_inbound_ports: settings.exclude_inbound_ports.clone(),
                include_outbound_ports: Include::Only(settings.include_outbound_ports.clone()),
                exclude_outbound_ports: settings.exclude_outbound_ports.clone(),
                include_outbound_cidrs: Include::of_settings(&settings.include_outbound_cidrs),
                exclude_outbound_cidrs: settings.exclude_outbound_cidrs.clone(),
            },
            cpu: Demand::default(),
            memory: Demand::default(),
            readiness: Readiness { initial_delay_seconds: 0, period_seconds: 5, failure_threshold: 4 },
        }
    }
}

/// Applies a value, or says what is wrong with it.
type Apply = fn(&mut Effective, &str, &mut Vec<String>) -> Result<(), String>;

/// Settings of a pod: those of the revision, changed by annotations.
pub(super) fn effective(
    settings: &InjectSettings,
    namespace: &NamespaceMeta,
    annotations: &BTreeMap<String, String>,
    warnings: &mut Vec<String>,
) -> Result<Effective, InjectError> {
    let mut effective = Effective::of_settings(settings);
    apply(
        linkerd::HONOURED,
        &linkerd::merged(&namespace.annotations, annotations),
        &mut effective,
        warnings,
    )?;
    apply(istio::HONOURED, annotations, &mut effective, warnings)?;
    linkerd::warn(annotations, warnings);
    istio::warn(annotations, warnings);
    // A port that both lists name twice would make the command line longer and nothing else.
    for ports in [&mut effective.traffic.exclude_inbound_ports, &mut effective.traffic.exclude_outbound_ports]
    {
        ports.sort_unstable();
        ports.dedup();
    }
    for (name, demand) in [("cpu", &effective.cpu), ("memory", &effective.memory)] {
        if let (Some(request), Some(limit)) = (&demand.request, &demand.limit)
            && request > limit
        {
            return Err(InjectError::Resources {
                resource: name,
                request: request.as_str().to_owned(),
                limit: limit.as_str().to_owned(),
            });
        }
    }
    Ok(effective)
}

fn apply(
    honoured: &[(&'static str, Apply)],
    annotations: &BTreeMap<String, String>,
    effective: &mut Effective,
    warnings: &mut Vec<String>,
) -> Result<(), InjectError> {
    for (key, apply) in honoured {
        let Some(value) = annotations.get(*key) else { continue };
        apply(effective, value, warnings).map_err(|reason| InjectError::Annotation {
            name: (*key).to_owned(),
            value: shown(value),
            reason,
        })?;
    }
    Ok(())
}

/// A value as it is told: its beginning.
fn shown(value: &str) -> String {
    const CHARS_MAX: usize = 120;
    let mut text: String = value.chars().take(CHARS_MAX).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    text
}

fn truth(value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be \"true\" or \"false\"".to_owned()),
    }
}

fn on_or_off(value: &str) -> Result<bool, String> {
    match value {
        "enabled" | "true" => Ok(true),
        "disabled" | "false" => Ok(false),
        _ => Err("must be \"enabled\" or \"disabled\"".to_owned()),
    }
}

fn quantity(value: &str) -> Result<Option<Quantity>, String> {
    match Quantity::parse(value.trim()) {
        Ok(quantity) if quantity.is_zero() => Err("must be more than 0".to_owned()),
        Ok(quantity) => Ok(Some(quantity)),
        Err(error) => Err(error.to_string()),
    }
}

fn number(value: &str, least: u32) -> Result<u32, String> {
    match value.trim().parse::<u32>() {
        Ok(number) if (least..=3_600).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(format!("must be a number from {least} to 3600")),
    }
}
