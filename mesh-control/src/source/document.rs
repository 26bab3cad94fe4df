//! Reads the documents of one file: the only place that knows the manifest's parser.

use std::sync::Arc;

use mesh_api::manifest::{self, LowerContext, Object};
use mesh_api::model::{MeshSettings, ObjectMeta, ObjectRef, Origin};
use mesh_api::problem::{Problem, Severity};

use crate::registry::Entry;

/// What documents are read in the light of.
pub type Context = LowerContext;

/// What an object is to the mesh.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// It takes part in translation.
    Entry(Entry),
    /// It is the settings of the mesh.
    Settings(Arc<MeshSettings>),
    /// It is valid and takes no part in translation (Namespace, ServiceAccount).
    Noted(Arc<ObjectMeta>),
}

/// An object in force.
#[derive(Debug, Clone, PartialEq)]
pub struct InForce {
    /// Kind, namespace and name.
    pub object: ObjectRef,
    /// The object.
    pub payload: Payload,
    /// File and line.
    pub origin: Origin,
    /// Text of the document.
    pub text: Arc<str>,
    /// The file now holds something else, or nothing; this is the last good version.
    pub is_held: bool,
    /// `metadata.generation` of the object in its cluster; 0 when the source has none (files).
    pub generation: i64,
}

/// One document that was read.
#[derive(Debug)]
pub enum Document {
    /// A good one.
    Good(InForce),
    /// One that cannot be used. `identity` is whose it is, when that can be told.
    Bad {
        /// Whose it is.
        identity: Option<ObjectRef>,
    },
    /// One that is not the mesh's and is passed over.
    Foreign,
}

/// Reads a file's text. Problems of every document are added to `problems`.
#[must_use]
pub fn read(file: &str, text: &str, context: &Context, problems: &mut Vec<Problem>) -> Vec<Document> {
    let parsed = manifest::parse(file, text, context);
    let mut documents = Vec::new();
    for document in parsed.documents {
        problems.extend(document.warnings);
        documents.push(match document.outcome {
            Ok(object) => Document::Good(InForce {
                object: object.object_ref(),
                payload: payload(object),
                origin: document.origin,
                text: document.text,
                is_held: false,
                generation: 0,
            }),
            Err(found) => {
                let is_error = found.iter().any(|problem| problem.severity == Severity::Error);
                problems.extend(found);
                match is_error {
                    true => Document::Bad { identity: document.identity },
                    false => Document::Foreign,
                }
            }
        });
    }
    documents
}

fn payload(object: Object) -> Payload {
    match object {
        Object::AuthorizationPolicy(object) => Payload::Entry(Entry::Authorization(Arc::new(object))),
        Object::PeerAuthentication(object) => Payload::Entry(Entry::Peer(Arc::new(object))),
        Object::RequestAuthentication(object) => Payload::Entry(Entry::Request(Arc::new(object))),
        Object::DestinationRule(object) => Payload::Entry(Entry::DestinationRule(Arc::new(object))),
        Object::VirtualService(object) => Payload::Entry(Entry::VirtualService(Arc::new(object))),
        Object::Service(object) => Payload::Entry(Entry::Service(Arc::new(object))),
        Object::Workload(object) => Payload::Entry(Entry::Workload(Arc::new(object))),
        Object::MeshConfig(object) => Payload::Settings(Arc::new(object.settings)),
        Object::Telemetry(object) => Payload::Entry(Entry::Telemetry(Arc::new(object))),
        Object::ServiceAccount(meta) | Object::Namespace(meta) => Payload::Noted(Arc::new(meta)),
    }
}
