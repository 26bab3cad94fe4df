//! An API server of a few kinds, for tests: lists come by the page, watches tell what happened since a version, and
//! both fail when the test wants them to.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::{Request, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

#[derive(Debug, Default)]
struct State {
    /// Objects by collection and `namespace/name`.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    version: u64,
    /// What happened: version, collection, type, object.
    log: Vec<(u64, String, &'static str, Value)>,
    /// What happened up to this version is forgotten.
    forgotten: u64,
    failures: BTreeMap<String, u16>,
    /// Served groups with their versions, and the plural names in them.
    groups: BTreeMap<String, BTreeSet<String>>,
    asked: Vec<String>,
    /// Number of times that all watches were ended.
    cut: u64,
}

/// The server.
#[derive(Debug, Clone)]
pub(super) struct ApiServer {
    state: Arc<Mutex<State>>,
    bell: watch::Sender<u64>,
}

type Answer = Response<StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

impl ApiServer {
    /// A server without objects that knows the kinds of Istio.
    pub(super) fn new() -> Self {
        let server = Self { state: Arc::default(), bell: watch::channel(0).0 };
        for istio in super::object::ISTIO {
            server.serve(istio.group, "v1", istio.plural);
        }
        server
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn serve(&self, group: &str, version: &str, plural: &str) {
        self.with(|state| {
            state.groups.entry(format!("/apis/{group}/{version}")).or_default().insert(plural.to_owned())
        });
    }

    pub(super) fn unserve(&self, group: &str, version: &str) {
        self.with(|state| state.groups.remove(&format!("/apis/{group}/{version}")));
    }

    /// Creates or replaces an object.
    pub(super) fn put(&self, collection: &str, mut object: Value) {
        self.with(|state| {
            state.version += 1;
            let version = state.version;
            object["metadata"]["resourceVersion"] = version.to_string().into();
            let kind = match state
                .objects
                .entry(collection.to_owned())
                .or_default()
                .insert(key(&object), object.clone())
            {
                Some(_) => "MODIFIED",
                None => "ADDED",
            };
            state.log.push((version, collection.to_owned(), kind, object));
        });
        self.ring();
    }

    pub(super) fn delete(&self, collection: &str, namespace: &str, name: &str) {
        self.with(|state| {
            state.version += 1;
            let objects = state.objects.entry(collection.to_owned()).or_default();
            let mut object = objects.remove(&format!("{namespace}/{name}")).expect("the object is there");
            object["metadata"]["resourceVersion"] = state.version.to_string().into();
            state.log.push((state.version, collection.to_owned(), "DELETED", object));
        });
        self.ring();
    }

    /// Every request to a collection fails with `code`; 0 heals it.
    pub(super) fn fail(&self, collection: &str, code: u16) {
        self.with(|state| state.failures.insert(collection.to_owned(), code));
    }

    /// Ends every watch.
    pub(super) fn cut(&self) {
        self.with(|state| state.cut += 1);
        self.ring();
    }

    /// Forgets what happened, so that a watch cannot go on from where it was.
    pub(super) fn forget(&self) {
        self.with(|state| state.forgotten = state.version);
    }

    /// Requests for a collection so far.
    pub(super) fn asked(&self, part: &str) -> Vec<String> {
        self.with(|state| state.asked.iter().filter(|asked| asked.contains(part)).cloned().collect())
    }

    fn ring(&self) {
        self.bell.send_modify(|count| *count += 1);
    }

    /// A client of it.
    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(&request)) }
        });
        Client::new(service, "default")
    }

    fn answer(&self, request: &Request<Body>) -> Answer {
        let collection = request.uri().path().to_owned();
        let query: BTreeMap<String, String> = request
            .uri()
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.replace("%3D", "=").replace("%3A", ":")))
            .collect();
        self.with(|state| state.asked.push(request.uri().to_string()));
        if let Some(code) =
            self.with(|state| state.failures.get(&collection).copied()).filter(|code| *code != 0)
        {
            return whole(code, &status(code));
        }
        if let Some(plurals) = self.with(|state| state.groups.get(&collection).cloned()) {
            let resources: Vec<Value> = plurals
                .into_iter()
                .map(|name| json!({"name": name, "singularName": "", "namespaced": true, "kind": "X", "verbs": []}))
                .collect();
            return whole(200, &json!({"groupVersion": "x/v1", "resources": resources}));
        }
        let is_unserved = self.with(|state| {
            let parent = collection.rsplit_once('/').map(|(parent, _)| parent.to_owned()).unwrap_or_default();
            collection.contains("istio.io") && !state.groups.contains_key(&parent)
        });
        if is_unserved {
            return whole(404, &status(404));
        }
        let name = query
            .get("fieldSelector")
            .and_then(|fields| fields.strip_prefix("metadata.name="))
            .map(str::to_owned);
        match query.contains_key("watch") {
            true => self.watch(collection, name, query["resourceVersion"].parse().expect("a version")),
            false => self.list(&collection, name.as_deref(), &query),
        }
    }

    fn list(&self, collection: &str, name: Option<&str>, query: &BTreeMap<String, String>) -> Answer {
        let limit: usize = query["limit"].parse().expect("a number");
        let from: usize = query.get("continue").map_or(0, |token| token.parse().expect("a number"));
        let (all, version) =
            self.with(|state| (state.objects.get(collection).cloned().unwrap_or_default(), state.version));
        let all: Vec<Value> = all
            .into_values()
            .filter(|object| name.is_none_or(|name| object["metadata"]["name"] == name))
            .collect();
        let end = (from + limit).min(all.len());
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if end < all.len() {
            metadata["continue"] = end.to_string().into();
        }
        whole(
            200,
            &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": all[from..end]}),
        )
    }

    fn watch(&self, collection: String, name: Option<String>, from: u64) -> Answer {
        if self.with(|state| from < state.forgotten) {
            return whole(200, &json!({"type": "ERROR", "object": status(410)}));
        }
        let server = self.clone();
        let cut = self.with(|state| state.cut);
        let bell = self.bell.subscribe();
        let events = stream::unfold((server, bell, from), move |(server, mut bell, from)| {
            let (collection, name) = (collection.clone(), name.clone());
            async move {
                loop {
                    bell.borrow_and_update();
                    if server.with(|state| state.cut) != cut {
                        return None;
                    }
                    let next = server.with(|state| {
                        let is_meant = |object: &Value| {
                            name.as_deref().is_none_or(|name| object["metadata"]["name"] == name)
                        };
                        let mut log = state.log.iter();
                        log.find(|(at, of, _, object)| *at > from && *of == collection && is_meant(object))
                            .cloned()
                    });
                    if let Some((at, _, kind, object)) = next {
                        let line = json!({"type": kind, "object": object}).to_string() + "\n";
                        return Some((Ok(Frame::data(Bytes::from(line))), (server, bell, at)));
                    }
                    bell.changed().await.ok()?;
                }
            }
        });
        Response::new(StreamBody::new(events.boxed()))
    }
}

fn key(object: &Value) -> String {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

fn whole(code: u16, body: &Value) -> Answer {
    let bytes = Bytes::from(body.to_string() + "\n");
    let mut response = Response::new(StreamBody::new(stream::iter([Ok(Frame::data(bytes))]).boxed()));
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    response
}

fn status(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "Test",
           "message": "as the test wants it"})
}
