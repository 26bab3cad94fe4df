//! Parser events to a [`Tree`].

use std::collections::{HashMap, HashSet};

use serde_saphyr::granit_parser::{self, Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::{Content, Node, NodeId, Place, Step, Tree};
use crate::manifest::scalar::ScalarType;
use crate::manifest::split::Chunk;

/// Deepest nesting; the deepest field of any kind is at about 15.
const DEPTH_MAX: usize = 64;
/// Most nodes of a document: about what a 16 MiB file of the densest sensible YAML holds.
const NODES_MAX: usize = 1_000_000;
/// Most nodes that aliases may add to a document. A bomb of a few lines asks for billions.
const ALIAS_NODES_MAX: usize = 10_000;
/// The same for a file of tests, whose cases share requests and policies.
const ALIAS_NODES_OF_TESTS_MAX: usize = 500_000;

/// Why a document is not YAML, or not YAML that is read here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::manifest) struct SyntaxError {
    /// Line in the file.
    pub(in crate::manifest) line: u32,
    /// What is wrong.
    pub(in crate::manifest) message: String,
    /// What to do about it.
    pub(in crate::manifest) hint: &'static str,
}

/// Reads one document. What was read before an error is in the tree.
pub(in crate::manifest) fn build(chunk: Chunk<'_>) -> (Tree, Option<SyntaxError>) {
    build_within(chunk, Leniency { alias_nodes_max: ALIAS_NODES_MAX, empty_keys: EmptyKeys::Refused })
}

/// As [`build`], for a document of tests: its parts may stand for one another more often, and it may hold
/// documents that are wrong on purpose.
pub(in crate::manifest) fn build_generously(chunk: Chunk<'_>) -> (Tree, Option<SyntaxError>) {
    build_within(chunk, Leniency { alias_nodes_max: ALIAS_NODES_OF_TESTS_MAX, empty_keys: EmptyKeys::Kept })
}

/// What is taken of a document.
#[derive(Debug, Clone, Copy)]
struct Leniency {
    alias_nodes_max: usize,
    empty_keys: EmptyKeys,
}

/// What becomes of a key without letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EmptyKeys {
    Refused,
    /// Whoever reads the map refuses it.
    Kept,
}

fn build_within(chunk: Chunk<'_>, leniency: Leniency) -> (Tree, Option<SyntaxError>) {
    let mut builder = Builder::new(chunk.line, leniency);
    let error = control_character(chunk).or_else(|| builder.read(chunk.text).err());
    (builder.tree, error)
}

/// YAML does not allow control characters, and some readers take NUL for the end of the text: none may hide
/// what follows.
fn control_character(chunk: Chunk<'_>) -> Option<SyntaxError> {
    let is_refused = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    let at = chunk.text.find(is_refused)?;
    let character = chunk.text[at..].chars().next().unwrap_or_default();
    let before = chunk.text[..at].bytes().filter(|byte| *byte == b'\n').count();
    Some(SyntaxError {
        line: line_number(chunk.line, before),
        message: format!("the text holds the control character U+{:04X}", u32::from(character)),
        hint: "Remove it, or write it as an escape in a double-quoted string.",
    })
}

fn line_number(first: u32, further: usize) -> u32 {
    first.saturating_add(u32::try_from(further).unwrap_or(u32::MAX))
}

/// A list or map that is being read.
struct Frame {
    node: NodeId,
    anchor: usize,
    /// Of a map: names so far.
    names: HashSet<Box<str>>,
    /// Of a map: the key whose value comes next.
    key: Option<(Box<str>, u32)>,
    /// Of a map: values of `<<`.
    merged: Vec<NodeId>,
}

struct Builder {
    tree: Tree,
    first_line: u32,
    frames: Vec<Frame>,
    anchors: HashMap<usize, NodeId>,
    alias_nodes: usize,
    leniency: Leniency,
    is_complete: bool,
}

impl Builder {
    fn new(first_line: u32, leniency: Leniency) -> Self {
        Self {
            tree: Tree::default(),
            first_line,
            frames: Vec::new(),
            anchors: HashMap::new(),
            alias_nodes: 0,
            leniency,
            is_complete: false,
        }
    }

    fn line(&self, at: &Marker) -> u32 {
        line_number(self.first_line, at.line().saturating_sub(1))
    }

    fn refuse<T>(&self, span: &Span, message: &str, hint: &'static str) -> Result<T, SyntaxError> {
        Err(SyntaxError { line: self.line(&span.start), message: message.to_owned(), hint })
    }

    fn refuse_depth<T>(&self, span: &Span) -> Result<T, SyntaxError> {
        let message = format!("nesting is deeper than {DEPTH_MAX} levels");
        self.refuse(span, &message, "No kind of object nests as deep.")
    }

    fn read(&mut self, text: &str) -> Result<(), SyntaxError> {
        let options = granit_parser::options! { emit_comments: false };
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(|error| self.syntax(&error))?;
            self.take(event, &span)?;
        }
        Ok(())
    }

    fn syntax(&self, error: &granit_parser::ScanError) -> SyntaxError {
        let reason = error.info();
        let unclosed = self.frames.last().map(|frame| self.tree.nodes[frame.node].line);
        let since = match unclosed {
            Some(line) if line != self.line(error.marker()) => format!(" (in what starts at line {line})"),
            Some(_) | None => String::new(),
        };
        SyntaxError {
            line: self.line(error.marker()),
            message: format!("is not YAML: {reason}{since}"),
            hint: "Check indentation, quotes and brackets at this line and the one before.",
        }
    }

    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), SyntaxError> {
        match event {
            Event::DocumentStart(..) if self.is_complete => {
                self.refuse(span, "a second document starts without a line `---` of its own", "")
            }
            Event::DocumentEnd => {
                self.is_complete = true;
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                if anchor != 0 && self.frames.last().is_some_and(|frame| self.awaits_key(frame)) {
                    return self.refuse(span, "an anchor on a key is not supported", "Remove the anchor.");
                }
                let kind = self.scalar_type(&text, style, tag.as_deref(), span)?;
                let id = self.place(Content::Scalar(kind, text.as_ref().into()), span)?;
                self.settle(anchor, id);
                Ok(())
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "seq", span)?;
                self.open(Content::List(Vec::new()), anchor, span)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "map", span)?;
                self.open(Content::Map(Vec::new()), anchor, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::UnresolvedAlias(_) => self.refuse(span, "the alias names no anchor before it", ""),
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::Anchor(..)
            | Event::Comment(..) => Ok(()),
            // Events that the parser may learn later say something that is not understood here.
            _ => self.refuse(span, "this kind of YAML is not supported", ""),
        }
    }

    fn scalar_type(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: &Span,
    ) -> Result<ScalarType, SyntaxError> {
        if let Some(tag) = tag {
            self.refuse_tag(Some(tag), "str", span)?;
            return Ok(ScalarType::Text);
        }
        Ok(match style {
            ScalarStyle::Plain => ScalarType::of_plain(text),
            ScalarStyle::SingleQuoted
            | ScalarStyle::DoubleQuoted
            | ScalarStyle::Literal
            | ScalarStyle::Folded => ScalarType::Text,
        })
    }

    /// Tags change what a value is; only the one that says what it is anyway is taken.
    fn refuse_tag(&self, tag: Option<&Tag>, allowed: &str, span: &Span) -> Result<(), SyntaxError> {
        match tag {
            Some(tag) if !tag.is_yaml_core_schema_tag(allowed) => {
                let message = format!("the tag {} is not supported", tag.original());
                self.refuse(span, &message, "Remove the tag.")
            }
            Some(_) | None => Ok(()),
        }
    }

    fn open(&mut self, content: Content, anchor: usize, span: &Span) -> Result<(), SyntaxError> {
        if self.frames.len() >= DEPTH_MAX {
            return self.refuse_depth(span);
        }
        if self.frames.last().is_some_and(|frame| self.awaits_key(frame)) {
            return self.refuse(span, "a key must be a plain name, not a list or map", "");
        }
        let node = self.place(content, span)?;
        self.frames.push(Frame { node, anchor, names: HashSet::new(), key: None, merged: Vec::new() });
        Ok(())
    }

    fn close(&mut self, span: &Span) -> Result<(), SyntaxError> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        if let Some(end) = span.end.byte_offset() {
            self.tree.nodes[frame.node].bytes.end = end;
        }
        self.merge(&frame, span)?;
        self.settle(frame.anchor, frame.node);
        Ok(())
    }

    fn awaits_key(&self, frame: &Frame) -> bool {
        frame.key.is_none() && matches!(self.tree.nodes[frame.node].content, Content::Map(_))
    }

    /// An anchor is known once its node is complete, so that nothing can contain itself.
    fn settle(&mut self, anchor: usize, id: NodeId) {
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
    }

    /// Puts a value where it belongs; a scalar may turn out to be a key, and then its id is its map's.
    fn place(&mut self, content: Content, span: &Span) -> Result<NodeId, SyntaxError> {
        let line = self.line(&span.start);
        let Some(at) = self.frames.len().checked_sub(1) else {
            return self.add(None, Step::Root, line, content, span);
        };
        let parent = self.frames[at].node;
        if self.awaits_key(&self.frames[at]) {
            if let Content::Scalar(_, text) = content {
                self.key(at, text, span)?;
            }
            return Ok(parent);
        }
        let (step, line) = match (self.frames[at].key.take(), &self.tree.nodes[parent].content) {
            (Some((name, line)), _) => (Step::Field(name), line),
            (None, Content::List(items)) => (Step::Item(items.len()), line),
            (None, Content::Map(_) | Content::Scalar(..)) => (Step::Root, line),
        };
        if matches!(&step, Step::Field(name) if &**name == "<<") {
            let id = self.add(Some(parent), step, line, content, span)?;
            self.frames[at].merged.push(id);
            return Ok(id);
        }
        let id = self.add(Some(parent), step, line, content, span)?;
        self.attach(parent, id);
        Ok(id)
    }

    fn key(&mut self, at: usize, text: Box<str>, span: &Span) -> Result<(), SyntaxError> {
        let line = self.line(&span.start);
        if text.is_empty() && self.leniency.empty_keys == EmptyKeys::Refused {
            return self.refuse(span, "a key must not be empty", "Name the field before the colon.");
        }
        if !self.frames[at].names.insert(text.clone()) {
            let name = super::super::report::shortened(&text);
            let message = format!("the key {name:?} stands twice in one map");
            return self.refuse(span, &message, "Remove one of the two; only one could take effect.");
        }
        if at == 0 {
            self.tree.last_key.clone_from(&text);
        }
        self.frames[at].key = Some((text, line));
        Ok(())
    }

    fn add(
        &mut self,
        parent: Option<NodeId>,
        step: Step,
        line: u32,
        content: Content,
        span: &Span,
    ) -> Result<NodeId, SyntaxError> {
        if self.tree.nodes.len() >= NODES_MAX {
            let message = format!("the document has more than {NODES_MAX} values");
            return self.refuse(span, &message, "Split it into several documents or files.");
        }
        let start = span.start.byte_offset().unwrap_or_default();
        let bytes = start..span.end.byte_offset().unwrap_or(start);
        self.tree.nodes.push(Node { parent, step, line, column: span.start.col(), bytes, content });
        Ok(self.tree.nodes.len() - 1)
    }

    fn attach(&mut self, parent: NodeId, child: NodeId) {
        match &mut self.tree.nodes[parent].content {
            Content::List(children) | Content::Map(children) => children.push(child),
            Content::Scalar(..) => {}
        }
    }

    fn alias(&mut self, anchor: usize, span: &Span) -> Result<(), SyntaxError> {
        let Some(origin) = self.anchors.get(&anchor).copied() else {
            return self.refuse(span, "the alias stands inside of what it names", "Write the value out.");
        };
        if self.frames.last().is_some_and(|frame| self.awaits_key(frame)) {
            return self.refuse(span, "an alias cannot be a key", "Write the name out.");
        }
        self.tree.has_aliases = true;
        let hollow = hollow(&self.tree.nodes[origin].content);
        let copy = self.place(hollow, span)?;
        let depth = self.frames.len();
        self.copy_children((origin, copy), depth, span)
    }

    fn copy_children(
        &mut self,
        (from, to): (NodeId, NodeId),
        depth: usize,
        span: &Span,
    ) -> Result<(), SyntaxError> {
        if depth >= DEPTH_MAX {
            return self.refuse_depth(span);
        }
        let children = match &self.tree.nodes[from].content {
            Content::List(children) | Content::Map(children) => children.clone(),
            Content::Scalar(..) => Vec::new(),
        };
        for child in children {
            self.alias_nodes += 1;
            if self.alias_nodes > self.leniency.alias_nodes_max {
                let message = format!("aliases stand for more than {} values", self.leniency.alias_nodes_max);
                return self.refuse(span, &message, "Write the values out.");
            }
            let Node { step, line, content, .. } = self.tree.nodes[child].clone();
            let copy = self.add(Some(to), step, line, hollow(&content), span)?;
            self.attach(to, copy);
            self.copy_children((child, copy), depth + 1, span)?;
        }
        Ok(())
    }

    /// Fields of `<<` that the map does not have itself (<https://yaml.org/type/merge.html>).
    fn merge(&mut self, frame: &Frame, span: &Span) -> Result<(), SyntaxError> {
        let mut names: HashSet<Box<str>> = HashSet::new();
        for merged in &frame.merged {
            let sources = match &self.tree.nodes[*merged].content {
                Content::Map(_) => vec![*merged],
                Content::List(items) => items.clone(),
                Content::Scalar(..) => Vec::new(),
            };
            let is_map = |id: &NodeId| matches!(self.tree.nodes[*id].content, Content::Map(_));
            if sources.is_empty() || !sources.iter().all(is_map) {
                return self.refuse(span, "the value of `<<` must be a map or a list of maps", "");
            }
            for source in sources {
                let fields: Vec<NodeId> =
                    Place { tree: &self.tree, id: source }.children().map(|child| child.id).collect();
                for field in fields {
                    let Step::Field(name) = self.tree.nodes[field].step.clone() else { continue };
                    if !frame.names.contains(&name) && names.insert(name) {
                        self.tree.nodes[field].parent = Some(frame.node);
                        self.attach(frame.node, field);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A container without its children, or a scalar.
fn hollow(content: &Content) -> Content {
    match content {
        Content::Scalar(kind, text) => Content::Scalar(*kind, text.clone()),
        Content::List(_) => Content::List(Vec::new()),
        Content::Map(_) => Content::Map(Vec::new()),
    }
}
