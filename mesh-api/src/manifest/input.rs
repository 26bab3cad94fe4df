//! What a kind's module is given: one document, its metadata read.

use super::LowerContext;
use super::tree::Place;
use crate::model::ObjectMeta;

/// What a kind's module is given.
#[derive(Debug)]
pub(super) struct Input<'c, 't> {
    /// Metadata of the object.
    pub(super) meta: ObjectMeta,
    /// The document.
    pub(super) root: Place<'t>,
    /// `spec`.
    pub(super) spec: Place<'t>,
    /// What names are read in the light of.
    pub(super) context: &'c LowerContext,
}
