//! The settings of injection: of the chart with values, of a file, or those in force in a cluster.
//!
//! Without any flag they are what `meshctl install` would install, so that what was injected before the mesh
//! was there is what the mesh would have injected.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::ConfigMap;
use mesh_kube::inject::{InjectSettings, Platform};
use mesh_kube::name;

use crate::args::GlobalArgs;
use crate::cluster::{Cluster, Question};
use crate::command::objects::input;
use crate::command::{EXIT_DATA, EXIT_USAGE, Failure};
use crate::install::plan::Plan;
use crate::install::values::{self, ValueArgs};

/// Where settings come from.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Settings of injection")]
pub(crate) struct SettingsArgs {
    /// Settings in force in the cluster, and what its namespaces and its version say.
    #[arg(long, conflicts_with_all = ["inject_config", "profile", "values", "set", "set_string"])]
    pub(crate) from_cluster: bool,
    /// File with the settings (docs/injection.md).
    #[arg(
        long,
        visible_alias = "injectConfigFile",
        value_name = "FILE",
        conflicts_with_all = ["profile", "values", "set", "set_string"]
    )]
    pub(crate) inject_config: Option<PathBuf>,
    /// Profile of the installation.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// File with values of the chart; may be given several times.
    #[arg(long, value_name = "FILE")]
    values: Vec<PathBuf>,
    /// Values of the chart as name=value, for instance injection.dnsCapture=false.
    #[arg(short = 's', long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// As --set; values are texts whatever they look like.
    #[arg(long, value_name = "NAME=VALUE")]
    set_string: Vec<String>,
}

/// Settings, and the cluster that they are of.
#[derive(Debug)]
pub(crate) struct Source {
    /// The settings.
    pub(crate) settings: InjectSettings,
    /// What the cluster can do.
    pub(crate) platform: Platform,
    /// The cluster, when it was asked.
    pub(crate) cluster: Option<Cluster>,
}

impl Source {
    /// Settings of what the flags say.
    ///
    /// # Errors
    /// When they cannot be read, or are not valid.
    pub(crate) async fn find(global: &GlobalArgs, args: &SettingsArgs) -> Result<Self, Failure> {
        if args.from_cluster {
            let cluster = Cluster::connect(global).await?;
            let revision = global.revision.as_deref().unwrap_or(name::DEFAULT_REVISION);
            let settings = in_force(&cluster, revision).await?;
            let platform = platform(&cluster).await?;
            return Ok(Self { settings, platform, cluster: Some(cluster) });
        }
        let settings = match &args.inject_config {
            Some(path) => {
                let [input] = &input::read(std::slice::from_ref(path))?[..] else {
                    return Err(Failure::new("--inject-config must be one file").status(EXIT_USAGE));
                };
                InjectSettings::parse(&input.text)
                    .map_err(|error| Failure::new(format!("{}: {error}", input.name)).status(EXIT_DATA))?
            }
            None => of_chart(global, args)?,
        };
        // Every version of Kubernetes that is served has native sidecars.
        Ok(Self { settings, platform: Platform { native_sidecars: true }, cluster: None })
    }
}

/// The settings that an installation with these values would have.
fn of_chart(global: &GlobalArgs, args: &SettingsArgs) -> Result<InjectSettings, Failure> {
    let values = ValueArgs {
        profile: args.profile.clone(),
        files: args.values.clone(),
        set: args.set.clone(),
        set_string: args.set_string.clone(),
        ..ValueArgs::default()
    };
    let stated = values::stated(&values, global.revision.as_deref())?;
    let plan = Plan::new(stated).map_err(|error| Failure::from(error).status(EXIT_DATA))?;
    let found = plan.documents.iter().filter(|document| document.kind() == "ConfigMap");
    let text = found.filter_map(|document| document.object["data"][name::CONFIG_INJECT].as_str()).next();
    let text = text.ok_or_else(|| Failure::new("the chart has no settings of injection"))?;
    InjectSettings::parse(text).map_err(|error| Failure::from(error).status(EXIT_DATA))
}

/// The settings of a revision in a cluster.
///
/// # Errors
/// When the API server does not give them, there are none, or they are not valid.
pub(crate) async fn in_force(cluster: &Cluster, revision: &str) -> Result<InjectSettings, Failure> {
    let map = match revision {
        name::DEFAULT_REVISION => name::CONFIG.to_owned(),
        revision => format!("{}-{revision}", name::CONFIG),
    };
    let found = cluster.get::<ConfigMap>(&cluster.system_namespace, &map).await?;
    let text = found.and_then(|map| map.data).and_then(|mut data| data.remove(name::CONFIG_INJECT));
    let place = format!("ConfigMap {map} in {}", cluster.system_namespace);
    let text = text.ok_or_else(|| {
        Failure::new(format!("{place} has no key {}: the mesh is not installed", name::CONFIG_INJECT))
            .hint("`meshctl install` installs it; --revision names another revision.")
    })?;
    InjectSettings::parse(&text).map_err(|error| Failure::new(format!("{place}: {error}")).status(EXIT_DATA))
}

/// What a cluster can do, by its version.
///
/// # Errors
/// When the API server does not answer.
pub(crate) async fn platform(cluster: &Cluster) -> Result<Platform, Failure> {
    let question = Question { verb: "get", resource: "version", namespace: None, name: None };
    let version = cluster.call(question, cluster.client.apiserver_version()).await?;
    Ok(Platform { native_sidecars: has_native_sidecars(&version.major, &version.minor) })
}

/// Native sidecars are on by default from Kubernetes 1.29. Providers append signs to the minor version: `29+`.
fn has_native_sidecars(major: &str, minor: &str) -> bool {
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    match (major.parse::<u32>(), digits.parse::<u32>()) {
        (Ok(major), Ok(minor)) => (major, minor) >= (1, 29),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::has_native_sidecars;

    #[test]
    fn native_sidecars_are_there_from_1_29() {
        for (minor, expected) in [("28", false), ("29", true), ("29+", true), ("34", true), ("", false)] {
            assert_eq!(has_native_sidecars("1", minor), expected, "{minor}");
        }
    }
}
