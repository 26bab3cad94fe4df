//! From the file to the plan. The first mistake is reported with its place.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use mesh_api::name::{Namespace, ServiceAccount, TrustDomain};
use serde_saphyr::Spanned;

use super::{Mistake, Plan, Service, Workload, WorkloadPort, service};
use crate::local::address::{DEFAULT_NETWORK, Network};
use crate::local::mesh_file::{MeshFile, MeshFileError, Place, Text, WorkloadEntry};
use crate::local::privilege::Privilege;

/// Most instances of one workload: a typing error should not ask for more than the machine can run.
const REPLICAS_MAX: u32 = 1_000;
/// Longest DNS label, and Linux' longest host name less one.
const NAME_BYTES_MAX: usize = 63;

/// What the file is read in the light of.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// The file, absolute.
    pub(crate) file: PathBuf,
    /// Name of the mesh, when the command line states one.
    pub(crate) name: Option<String>,
    /// How much this user may do.
    pub(crate) privilege: Privilege,
    /// What applications inherit: PATH, LANG and the like.
    pub(crate) environment: BTreeMap<String, String>,
}

impl Surroundings {
    /// The folder of the file.
    pub(crate) fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("/"))
    }
}

/// Makes the plan.
///
/// # Errors
/// The first mistake, with its place in the file.
pub(crate) fn resolve(file: &MeshFile, surroundings: &Surroundings) -> Result<Plan, MeshFileError> {
    let name = mesh_name(file, surroundings).map_err(|mistake| invalid(surroundings, None, mistake))?;
    let network = parsed("network", file.network.as_ref(), surroundings, Network::parse)?;
    let network = network.unwrap_or_else(|| Network::parse(DEFAULT_NETWORK).expect("a valid constant"));
    let trust_domain = parsed("trustDomain", file.trust_domain.as_ref(), surroundings, TrustDomain::parse)?;
    let ttl = parsed("workloadTtl", file.workload_ttl.as_ref(), surroundings, duration)?;
    let stated = stated_services(file, surroundings)?;
    let (workloads, services) = all_workloads(file, surroundings, network, stated)?;
    Ok(Plan {
        name,
        file: surroundings.file.clone(),
        config: normalized(
            &surroundings.folder().join(file.config.as_deref().unwrap_or(Path::new("config"))),
        ),
        trust_domain,
        network,
        workload_ttl: ttl.unwrap_or_else(|| "24h".to_owned()),
        privilege: surroundings.privilege,
        workloads,
        services,
    })
}

fn stated_services(file: &MeshFile, surroundings: &Surroundings) -> Result<Vec<Service>, MeshFileError> {
    let mut services = Vec::new();
    for (position, entry) in file.services.iter().enumerate() {
        let service = service::stated(&entry.value).map_err(|(field, message)| {
            invalid(surroundings, line(entry), (format!("services[{position}].{field}"), message))
        })?;
        services.push(service);
    }
    Ok(services)
}

fn all_workloads(
    file: &MeshFile,
    surroundings: &Surroundings,
    network: Network,
    mut services: Vec<Service>,
) -> Result<(Vec<Workload>, Vec<Service>), MeshFileError> {
    let mut workloads: Vec<Workload> = Vec::new();
    let mut ids = BTreeSet::new();
    for (position, entry) in file.workloads.iter().enumerate() {
        let refuse = |(field, message): Mistake| {
            invalid(surroundings, line(entry), (format!("workloads[{position}].{field}"), message))
        };
        let first = u32::try_from(workloads.len()).unwrap_or(u32::MAX);
        let instances = self::workloads(&entry.value, surroundings, network, first).map_err(refuse)?;
        if let Some(twice) = instances.iter().find(|instance| !ids.insert(instance.id())) {
            let message = format!("another workload is called {} already", twice.id());
            return Err(refuse(("name".to_owned(), message)));
        }
        if let Some(sample) = instances.first().filter(|sample| sample.is_meshed && !sample.ports.is_empty())
            && !services.iter().any(|service| service.selects(sample))
        {
            services.push(service::implied(&entry.value.name, sample, &entry.value.ports).map_err(refuse)?);
        }
        workloads.extend(instances);
    }
    let mut called = BTreeSet::new();
    if let Some(twice) = services.iter().find(|s| !called.insert((s.namespace.clone(), s.name.clone()))) {
        let message = format!("two services are called {}.{}", twice.name, twice.namespace);
        return Err(invalid(surroundings, None, ("services".to_owned(), message)));
    }
    Ok((workloads, services))
}

/// The instances that an entry stands for, numbered from `first`.
///
/// # Errors
/// The field and what is wrong with it.
pub(crate) fn workloads(
    entry: &WorkloadEntry,
    surroundings: &Surroundings,
    network: Network,
    first: u32,
) -> Result<Vec<Workload>, Mistake> {
    let names: Vec<String> = match entry.replicas {
        None => vec![entry.name.clone()],
        Some(count) if count > REPLICAS_MAX => {
            return Err(("replicas".to_owned(), format!("{count} are more than {REPLICAS_MAX}")));
        }
        Some(count) => (0..count).map(|number| format!("{}-{number}", entry.name)).collect(),
    };
    names
        .into_iter()
        .zip(first..)
        .map(|(name, index)| instance(entry, surroundings, network, name, index))
        .collect()
}

fn instance(
    entry: &WorkloadEntry,
    surroundings: &Surroundings,
    network: Network,
    name: String,
    index: u32,
) -> Result<Workload, Mistake> {
    let at = |field: &str, message: String| (field.to_owned(), message);
    label(&name).map_err(|message| at("name", message))?;
    let account = entry.service_account.as_deref().unwrap_or(&entry.name);
    let service_account =
        ServiceAccount::parse(account).map_err(|error| at("serviceAccount", error.to_string()))?;
    let mut labels: BTreeMap<String, String> =
        entry.labels.iter().map(|(key, Text(value))| (key.clone(), value.clone())).collect();
    labels.entry("app".to_owned()).or_insert_with(|| entry.name.clone());
    let user = surroundings.privilege.user(entry.user.as_ref().map(|Text(user)| user.as_str()));
    let user = user.map_err(|error| at("user", error.to_string()))?;
    let mut environment = surroundings.environment.clone();
    environment.extend(user.environment());
    for (key, Text(value)) in &entry.env {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            return Err(at("env", format!("{key:?} cannot be an environment variable")));
        }
        environment.insert(key.clone(), value.clone());
    }
    let addresses = network
        .workload(index)
        .ok_or_else(|| at("replicas", format!("the network {} has no address left", network.v4())))?;
    let directory = entry.working_directory.as_deref().unwrap_or(Path::new("."));
    Ok(Workload {
        name,
        namespace: namespace(entry.namespace.as_deref())?,
        service_account,
        labels,
        command: entry.command.0.clone(),
        environment,
        directory: normalized(&surroundings.folder().join(directory)),
        is_directory_required: entry.working_directory.is_some(),
        ports: entry.ports.iter().map(|p| WorkloadPort { port: p.port, name: p.name.clone() }).collect(),
        is_meshed: entry.mesh.unwrap_or(true),
        user,
        restart: entry.restart,
        index,
        addresses,
    })
}

/// A namespace, `default` unless stated.
pub(super) fn namespace(stated: Option<&str>) -> Result<Namespace, Mistake> {
    Namespace::parse(stated.unwrap_or("default")).map_err(|error| ("namespace".to_owned(), error.to_string()))
}

fn mesh_name(file: &MeshFile, surroundings: &Surroundings) -> Result<String, Mistake> {
    let folder = || {
        let name = surroundings.folder().file_name().and_then(OsStr::to_str)?.to_lowercase();
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        Some(name.trim_matches('-').to_owned()).filter(|name| !name.is_empty())
    };
    let stated = surroundings.name.clone().or_else(|| file.name.clone());
    let name = stated.or_else(folder).unwrap_or_else(|| "mesh".to_owned());
    label(&name).map_err(|message| ("name".to_owned(), message))?;
    Ok(name)
}

/// Accepts a DNS label: it becomes a host name and part of names that are joined with dots.
pub(crate) fn label(text: &str) -> Result<(), String> {
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    if bytes.len() > NAME_BYTES_MAX {
        return Err(format!("{text:?} is longer than {NAME_BYTES_MAX} bytes"));
    }
    if is_edge(bytes.first()) && is_edge(bytes.last()) && bytes.iter().all(|b| is_inner(*b)) {
        return Ok(());
    }
    Err(format!(
        "{text:?} must consist of lower-case letters, digits and '-', and start and end with a letter or digit"
    ))
}

fn duration(text: &str) -> Result<String, String> {
    let refuse = || format!("{text:?} is not a duration such as 24h, 90s or 30d");
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(refuse)?;
    let (number, unit) = text.split_at(digits);
    let is_positive = number.parse::<u32>().is_ok_and(|number| number > 0);
    if is_positive && matches!(unit, "ms" | "s" | "m" | "h" | "d") {
        Ok(text.to_owned())
    } else {
        Err(refuse())
    }
}

/// Parses a value of the file's top level.
fn parsed<T, E: ToString>(
    field: &str,
    written: Option<&Spanned<String>>,
    surroundings: &Surroundings,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, MeshFileError> {
    let Some(written) = written else { return Ok(None) };
    parse(&written.value)
        .map(Some)
        .map_err(|error| invalid(surroundings, line(written), (field.to_owned(), error.to_string())))
}

fn invalid(surroundings: &Surroundings, line: Option<u64>, mistake: Mistake) -> MeshFileError {
    let (field, message) = mistake;
    MeshFileError::Invalid { place: Place { path: surroundings.file.clone(), line, field }, message }
}

fn line<T>(written: &Spanned<T>) -> Option<u64> {
    Some(written.referenced.line()).filter(|line| *line > 0)
}

/// The path without `.` components; `..` stays, because it may pass a symbolic link.
fn normalized(path: &Path) -> PathBuf {
    path.components().collect()
}

#[cfg(test)]
mod tests;
