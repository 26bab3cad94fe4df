//! One set of values of a profile, files and `--set` (pure but for reading the files).

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::chart::{self, Chart};
use super::schema::{self, Mismatch};
use super::set::{self, Reading, SetError};
use crate::suggestion;

/// A values file may have at most this many bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where values come from, the later ones over the earlier ones.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Values")]
pub(crate) struct ValueArgs {
    /// Profile to begin with: `meshctl manifest profiles` lists them.
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// File with values of the chart; may be given several times. `-` is standard input.
    #[arg(short = 'f', long = "values", visible_alias = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Values as `name=value`, several separated by commas, as Helm reads them.
    #[arg(short = 's', long = "set", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// As --set; values are texts whatever they look like.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set_string: Vec<String>,
    /// As --set; values are what the files named by them hold.
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) set_file: Vec<String>,
    /// Tag that shall point to this revision; may be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
}

/// Why there are no values.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValuesError {
    /// No such profile.
    #[error("there is no profile {name:?}{}", did_you_mean(.nearest.as_deref()))]
    Profile {
        /// As written.
        name: String,
        /// One that is like it.
        nearest: Option<String>,
    },
    /// A file.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// A file that is too long.
    #[error("{} is longer than {FILE_BYTES_MAX} bytes", .0.display())]
    Long(PathBuf),
    /// A file that holds something else.
    #[error("{} is no YAML", .path.display())]
    Yaml {
        /// File.
        path: PathBuf,
        /// Cause.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// A file that holds something else.
    #[error("{} holds no map of values", .0.display())]
    NoMap(PathBuf),
    /// `--set`.
    #[error("--set is not understood")]
    Set(#[from] SetError),
    /// The chart does not know them.
    #[error("{}", mismatches(.0))]
    Mismatch(Vec<Mismatch>),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean {nearest:?}?")).unwrap_or_default()
}

fn mismatches(all: &[Mismatch]) -> String {
    let lines: Vec<String> = all.iter().map(ToString::to_string).collect();
    match lines.as_slice() {
        [one] => format!("value {one}"),
        several => {
            format!("{} values are not as the chart knows them:\n  {}", several.len(), several.join("\n  "))
        }
    }
}

/// What a user says, without the chart's own values.
///
/// # Errors
/// When a profile, a file or an assignment is not understood.
pub(crate) fn stated(args: &ValueArgs, revision: Option<&str>) -> Result<Value, ValuesError> {
    stated_over(Value::Object(Map::new()), args, revision)
}

/// As [`stated`], over what was said before.
///
/// # Errors
/// As [`stated`].
pub(crate) fn stated_over(
    before: Value,
    args: &ValueArgs,
    revision: Option<&str>,
) -> Result<Value, ValuesError> {
    let mut values = before;
    if let Some(name) = &args.profile {
        merge(&mut values, profile(name)?);
    }
    for path in &args.files {
        merge(&mut values, file(path)?);
    }
    for text in &args.set {
        set::set(&mut values, text, Reading::Typed)?;
    }
    for text in &args.set_string {
        set::set(&mut values, text, Reading::Text)?;
    }
    for text in &args.set_file {
        let (name, path) = text.split_once('=').ok_or_else(|| SetError::NoValue(text.clone()))?;
        let content = read(&PathBuf::from(path))?;
        set::set_text(&mut values, name, content)?;
    }
    if let Some(revision) = revision {
        values["revision"] = revision.into();
    }
    if !args.tags.is_empty() {
        values["tags"] = args.tags.clone().into();
    }
    Ok(values)
}

/// The chart's values with what was said over them, checked.
///
/// # Errors
/// When something was said that the chart does not know.
pub(crate) fn effective(chart: &Chart, stated: &Value) -> Result<Value, ValuesError> {
    let mut values = chart.values.clone();
    coalesce(&mut values, stated.clone());
    let mismatches = schema::check(&chart.schema, &values);
    if mismatches.is_empty() { Ok(values) } else { Err(ValuesError::Mismatch(mismatches)) }
}

fn profile(name: &str) -> Result<Value, ValuesError> {
    let found = chart::profiles().iter().find(|(known, _)| *known == name);
    let Some((_, text)) = found else {
        let nearest = suggestion::nearest(name, chart::profiles().iter().map(|(known, _)| *known));
        return Err(ValuesError::Profile { name: name.to_owned(), nearest: nearest.map(str::to_owned) });
    };
    parse(text, &PathBuf::from(format!("profiles/{name}.yaml")))
}

fn file(path: &Path) -> Result<Value, ValuesError> {
    parse(&read(path)?, path)
}

fn read(path: &Path) -> Result<String, ValuesError> {
    use std::io::Read as _;
    let error = |source| ValuesError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let limit = FILE_BYTES_MAX + 1;
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(limit).read_to_string(&mut text).map_err(error)?;
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(limit).read_to_string(&mut text))
            .map_err(error)?;
    }
    if text.len() as u64 > FILE_BYTES_MAX { Err(ValuesError::Long(path.to_owned())) } else { Ok(text) }
}

fn parse(text: &str, path: &Path) -> Result<Value, ValuesError> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Value::Object(Map::new()));
    }
    let value: Value = serde_saphyr::from_str(text)
        .map_err(|source| ValuesError::Yaml { path: path.to_owned(), source: Box::new(source) })?;
    match value {
        Value::Null => Ok(Value::Object(Map::new())),
        Value::Object(_) => Ok(value),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(ValuesError::NoMap(path.to_owned()))
        }
    }
}

/// Maps become one; everything else is replaced, a null stays one for the chart's value to go.
fn merge(values: &mut Value, over: Value) {
    match (values, over) {
        (Value::Object(fields), Value::Object(over)) => {
            for (name, value) in over {
                merge(fields.entry(name).or_insert(Value::Null), value);
            }
        }
        (place, over) => *place = over,
    }
}

/// As [`merge`], and a null takes the value away.
fn coalesce(values: &mut Value, over: Value) {
    match (values, over) {
        (Value::Object(fields), Value::Object(over)) => {
            for (name, value) in over {
                if value.is_null() {
                    fields.remove(&name);
                } else {
                    coalesce(fields.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (place @ Value::Null, Value::Object(over)) => {
            *place = Value::Object(Map::new());
            coalesce(place, Value::Object(over));
        }
        (place, over) => *place = over,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(set: &[&str], profile: Option<&str>) -> Result<Value, ValuesError> {
        let set = set.iter().map(|text| (*text).to_owned()).collect();
        let args = ValueArgs { set, profile: profile.map(str::to_owned), ..ValueArgs::default() };
        let chart = Chart::load().expect("the chart is read");
        effective(&chart, &stated(&args, None)?)
    }

    #[test]
    fn what_is_set_stands_over_the_profile_and_the_profile_over_the_chart() {
        let values = of(&["control.replicas=5"], Some("ha")).expect("they are known");
        assert_eq!(values["control"]["replicas"], 5);
        assert_eq!(values["control"]["resources"]["limits"]["memory"], "1Gi");
        assert_eq!(values["image"]["pullPolicy"], "IfNotPresent");
    }

    #[test]
    fn null_takes_a_value_of_the_chart_away() {
        let values = of(&["control.resources.limits=null"], None).expect("they are known");
        assert_eq!(values["control"]["resources"], json!({"requests": {"cpu": "50m", "memory": "64Mi"}}));
    }

    #[test]
    fn an_unknown_value_is_refused_with_the_nearest_name() {
        let message = of(&["control.replica=3"], None).expect_err("it is refused").to_string();
        assert_eq!(message, "value control.replica is not known; did you mean `replicas`?");
        let message = of(&[], Some("hq")).expect_err("it is refused").to_string();
        assert_eq!(message, "there is no profile \"hq\"; did you mean \"ha\"?");
    }

    #[test]
    fn every_wrong_value_is_said_at_once() {
        let message = of(&["control.replicas=x,image.pullPolicy=Sometimes,webhooks.timeoutSeconds=31"], None)
            .expect_err("it is refused")
            .to_string();
        for part in
            ["3 values", "control.replicas", "image.pullPolicy", "webhooks.timeoutSeconds", "at most 30"]
        {
            assert!(message.contains(part), "{part} in {message}");
        }
    }

    #[test]
    fn every_profile_is_known_to_the_schema() {
        for (name, _) in chart::profiles() {
            of(&[], Some(name)).expect(name);
        }
    }
}
