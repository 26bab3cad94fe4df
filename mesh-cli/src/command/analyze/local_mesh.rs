//! A `mesh.yaml` among the files to analyze: the workloads and services that `meshctl up` would make of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mesh_api::manifest::{self, LowerContext, Object};
use mesh_api::model::Origin;
use mesh_api::problem::{Problem, Severity};

use crate::command::objects;
use crate::command::objects::input::Input;
use crate::local::documents;
use crate::local::mesh_file::{MeshFile, MeshFileError};
use crate::local::plan::{Surroundings, resolve};
use crate::local::privilege::Privilege;
use crate::output;

/// Whether a file is a local mesh's: it has workloads, and is no document of a kind.
pub(in crate::command) fn is_mesh_file(input: &Input) -> bool {
    objects::value(&input.text).is_some_and(|value| {
        value.get("workloads").is_some_and(|it| it.is_array()) && value.get("kind").is_none()
    })
}

/// The objects that it stands for.
///
/// # Errors
/// What is wrong with it.
pub(in crate::command) fn objects(
    input: &Input,
    context: &LowerContext,
) -> Result<Vec<Object>, Box<Problem>> {
    let surroundings = Surroundings {
        file: std::path::absolute(&input.name).unwrap_or_else(|_| PathBuf::from(&input.name)),
        name: None,
        privilege: Privilege::of_this_process(),
        environment: BTreeMap::new(),
    };
    let plan = MeshFile::parse(Path::new(&input.name), &input.text)
        .and_then(|file| resolve(&file, &surroundings))
        .map_err(|error| Box::new(problem(&input.name, error)))?;
    let texts = std::iter::once(documents::mesh(&plan)).chain(plan.workloads.iter().map(documents::workload));
    let file = format!("{} (generated)", input.name);
    let parsed = texts.map(|text| manifest::parse(&file, &text, context));
    Ok(parsed.flat_map(|file| file.documents).filter_map(|document| document.outcome.ok()).collect())
}

fn problem(file: &str, error: MeshFileError) -> Problem {
    let (line, field, message) = match error {
        MeshFileError::Invalid { place, message } => (place.line.unwrap_or(0), place.field, message),
        other => (0, String::new(), output::chain(&other)),
    };
    Problem {
        code: "IST0106".to_owned(),
        severity: Severity::Error,
        object: None,
        origin: Origin { file: file.into(), line: u32::try_from(line).unwrap_or(0) },
        field,
        message,
        hint: String::new(),
    }
}
