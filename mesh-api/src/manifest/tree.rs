//! A document as a tree whose every node knows its line and its path.
//!
//! Lowering wants all problems of a document at once, each with the line of its field; a deserializer that
//! stops at the first error and forgets positions cannot give that. So parser events become one flat list of
//! nodes, and [`Place`] is a cheap handle into it.
//!
//! Everything is bounded: depth, nodes, and nodes made by aliases. A document that breaks off half way
//! leaves the part before it in the tree, which is enough to tell whose it is.

use super::scalar::ScalarType;

mod build;

pub(super) use build::{SyntaxError, build, build_generously};

/// Position of a node in its tree.
type NodeId = usize;

/// A document.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// The last key read at the top level.
    last_key: Box<str>,
    has_aliases: bool,
}

#[derive(Debug, Clone)]
struct Node {
    parent: Option<NodeId>,
    step: Step,
    /// Line in the file: of the key for a field, else of the value itself.
    line: u32,
    /// Column of the value, and its bytes in the document's text.
    column: usize,
    bytes: std::ops::Range<usize>,
    content: Content,
}

/// How a node is reached from its parent.
#[derive(Debug, Clone)]
enum Step {
    Root,
    Field(Box<str>),
    Item(usize),
}

#[derive(Debug, Clone)]
enum Content {
    Scalar(ScalarType, Box<str>),
    List(Vec<NodeId>),
    Map(Vec<NodeId>),
}

/// What stands at a place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'t> {
    Scalar(ScalarType, &'t str),
    List,
    Map,
}

impl Found<'_> {
    /// What it is in words, with its article.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Scalar(kind, _) => kind.words(),
            Self::List => "a list",
            Self::Map => "a map",
        }
    }
}

/// A node of a tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'t> {
    tree: &'t Tree,
    id: NodeId,
}

impl Tree {
    /// The top of the document; `None` when it broke before anything was read.
    pub(super) fn root(&self) -> Option<Place<'_>> {
        (!self.nodes.is_empty()).then_some(Place { tree: self, id: 0 })
    }

    /// The last key that was read at the top level, with or without its value.
    pub(super) fn last_key(&self) -> &str {
        &self.last_key
    }

    /// Whether some node is a copy of another, so that slices of the text do not stand alone.
    pub(super) fn has_aliases(&self) -> bool {
        self.has_aliases
    }
}

impl<'t> Place<'t> {
    fn node(self) -> &'t Node {
        &self.tree.nodes[self.id]
    }

    pub(super) fn found(self) -> Found<'t> {
        match &self.node().content {
            Content::Scalar(kind, text) => Found::Scalar(*kind, text),
            Content::List(_) => Found::List,
            Content::Map(_) => Found::Map,
        }
    }

    /// Line of the field in the file.
    pub(super) fn line(self) -> u32 {
        self.node().line
    }

    /// Column of the value, from 0, and its bytes in the document's text.
    pub(super) fn extent(self) -> (usize, std::ops::Range<usize>) {
        (self.node().column, self.node().bytes.clone())
    }

    pub(super) fn is_null(self) -> bool {
        matches!(self.node().content, Content::Scalar(ScalarType::Null, _))
    }

    /// Name of the field that the node is the value of; empty for list items and the root.
    pub(super) fn name(self) -> &'t str {
        match &self.node().step {
            Step::Field(name) => name,
            Step::Root | Step::Item(_) => "",
        }
    }

    /// Items of a list or values of a map; none of a scalar.
    pub(super) fn children(self) -> impl ExactSizeIterator<Item = Self> {
        let ids: &'t [NodeId] = match &self.node().content {
            Content::List(ids) | Content::Map(ids) => ids,
            Content::Scalar(..) => &[],
        };
        ids.iter().map(move |id| Place { tree: self.tree, id: *id })
    }

    /// The value of a field of a map.
    pub(super) fn child(self, name: &str) -> Option<Self> {
        match self.node().content {
            Content::Map(_) => self.children().find(|child| child.name() == name),
            Content::Scalar(..) | Content::List(_) => None,
        }
    }

    /// Path from the root, for instance `spec.rules[0].to`. Names that are not plain words stand in brackets.
    pub(super) fn path(self) -> String {
        let mut steps = Vec::new();
        let mut at = Some(self.id);
        while let Some(id) = at {
            let node = &self.tree.nodes[id];
            steps.push(&node.step);
            at = node.parent;
        }
        let mut path = String::new();
        for step in steps.into_iter().rev() {
            match step {
                Step::Root => {}
                Step::Item(index) => path.push_str(&format!("[{index}]")),
                Step::Field(name) => push_name(&mut path, name),
            }
        }
        path
    }

    /// The node as JSON, which is YAML too.
    pub(super) fn to_json(self) -> serde_json::Value {
        use serde_json::Value;
        match self.found() {
            Found::Scalar(ScalarType::Null, _) => Value::Null,
            Found::Scalar(ScalarType::Boolean(value), _) => value.into(),
            Found::Scalar(ScalarType::Integer(value), _) => value.into(),
            Found::Scalar(ScalarType::Float(value), _) => value.into(),
            Found::Scalar(ScalarType::Text, text) => text.into(),
            Found::List => self.children().map(Self::to_json).collect(),
            Found::Map => {
                let fields = self.children().map(|child| (child.name().to_owned(), child.to_json()));
                Value::Object(fields.collect())
            }
        }
    }
}

/// Adds a field's name to a path.
pub(super) fn push_name(path: &mut String, name: &str) {
    let is_word = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !is_word {
        path.push_str(&format!("[{}]", super::report::shortened(name)));
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}
