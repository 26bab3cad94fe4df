//! An API server in memory: enough of Kubernetes' REST conventions for controllers to list, watch and write.
//!
//! Any group, version and kind is served; nothing is validated. Lists come in pages, watches begin at a
//! resource version and go on from a log of recent events (an older version is answered 410 Gone), writes
//! with a stale resource version are refused 409. A review of a token believes what the token says of itself,
//! which is what a benchmark needs and nobody else may have.
//!
//! Sources: "Kubernetes API Concepts" (pages, watches, resource versions, patches) and the API reference of
//! TokenReview.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

mod path;

use path::{Query, Target};

/// Events of one collection that a watch may still begin at.
const LOG_MAX: usize = 20_000;
/// Largest body, in bytes.
const BODY_BYTES_MAX: usize = 8 << 20;
/// Prefix of tokens that are believed: `simulated:NAMESPACE:SERVICE-ACCOUNT:POD`.
const TOKEN_PREFIX: &str = "simulated";

/// The token of a service account, as it is believed here.
#[must_use]
pub(crate) fn token(namespace: &str, service_account: &str, pod: &str) -> String {
    format!("{TOKEN_PREFIX}:{namespace}:{service_account}:{pod}")
}

/// A running server; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct ApiServer {
    store: Arc<Mutex<Store>>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Store {
    /// Objects by collection (`group/version/plural`), then by namespace and name.
    collections: HashMap<String, Collection>,
    version: u64,
    continued: HashMap<String, Rest>,
    /// Number of tokens given so far: lists are paged through side by side, and each goes on with its own.
    tokens: u64,
    requests: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Collection {
    objects: BTreeMap<(String, String), Value>,
    log: VecDeque<(u64, &'static str, Value)>,
    /// Versions up to this one are not in the log any more.
    forgotten: u64,
}

/// What is left of a list that is being paged through.
#[derive(Debug)]
struct Rest {
    version: u64,
    items: VecDeque<Value>,
}

impl ApiServer {
    /// Serves on a free port of loopback until the process ends.
    ///
    /// # Errors
    /// When there is no port.
    pub(crate) async fn start() -> Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port for the API server")?;
        let address = listener.local_addr().context("the API server has no address")?;
        let server = Self { store: Arc::default(), version: watch::Sender::new(0) };
        let routes = axum::Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok((server, address))
    }

    /// Creates or replaces an object. Its group, version and plural are given, since nothing here knows kinds.
    pub(crate) fn put(&self, collection: &str, object: Value) {
        let mut store = self.locked();
        store.write(collection, object);
        self.version.send_replace(store.version);
    }

    /// An object, if it is there.
    pub(crate) fn find(&self, collection: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (namespace.to_owned(), name.to_owned());
        self.locked().collections.get(collection)?.objects.get(&key).cloned()
    }

    /// Requests so far, by verb and collection.
    pub(crate) fn requests(&self) -> BTreeMap<String, u64> {
        self.locked().requests.clone()
    }

    fn locked(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn respond(&self, method: &Method, target: &Target, query: &Query, body: &[u8], kind: &str) -> Response {
        let mut store = self.locked();
        let verb = if query.is_watch { "watch" } else { method.as_str() };
        *store.requests.entry(format!("{verb} {}", target.collection)).or_default() += 1;
        let before = store.version;
        let response = match (method.as_str(), &target.name) {
            ("GET", Some(name)) => store.get(target, name),
            ("GET", None) if query.is_watch => {
                drop(store);
                return self.watch(target, query);
            }
            ("GET", None) => store.list(target, query),
            ("POST", None) => store.create(target, body),
            ("PUT", Some(name)) => store.replace(target, name, body),
            ("PATCH", Some(name)) => store.patch(target, name, body, kind),
            ("DELETE", Some(name)) => store.delete(target, name),
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "not served here"),
        };
        if store.version != before {
            self.version.send_replace(store.version);
        }
        response
    }

    fn watch(&self, target: &Target, query: &Query) -> Response {
        let from = query.version.unwrap_or_else(|| self.locked().version);
        {
            let store = self.locked();
            let forgotten = store.collections.get(&target.collection).map_or(0, |found| found.forgotten);
            if from < forgotten {
                return failure(StatusCode::GONE, "Expired", "too old resource version");
            }
        }
        let begin = (self.clone(), self.version.subscribe(), from, target.clone(), query.clone());
        let events = stream::unfold(begin, |(server, mut version, from, target, query)| async move {
            loop {
                let (lines, reached) = server.locked().events(&target, &query, from);
                if !lines.is_empty() {
                    return Some((
                        Ok::<_, Infallible>(Bytes::from(lines)),
                        (server, version, reached, target, query),
                    ));
                }
                version.changed().await.ok()?;
            }
        });
        ([("content-type", "application/json")], Body::from_stream(events)).into_response()
    }
}

impl Store {
    fn write(&mut self, collection: &str, mut object: Value) -> Value {
        self.version += 1;
        let found = self.collections.entry(collection.to_owned()).or_default();
        let key = key(&object);
        let former = found.objects.get(&key);
        let verb = if former.is_some() { "MODIFIED" } else { "ADDED" };
        let uid =
            former.map_or_else(|| json!(format!("uid-{}", self.version)), |o| o["metadata"]["uid"].clone());
        let created = former
            .map_or_else(|| json!("2026-01-01T00:00:00Z"), |o| o["metadata"]["creationTimestamp"].clone());
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.version.to_string());
        metadata["uid"] = uid;
        metadata["creationTimestamp"] = created;
        found.objects.insert(key, object.clone());
        found.remember(self.version, verb, object.clone());
        object
    }

    /// The resources of one version of a group: those of which there has been an object.
    fn resources(&self, group: &str, version: &str) -> Value {
        let prefix = format!("{group}/{version}/");
        let of_group =
            self.collections.iter().filter_map(|(name, found)| Some((name.strip_prefix(&prefix)?, found)));
        let resources: Vec<Value> = of_group
            .map(|(plural, found)| {
                let kind = found.objects.values().next().map_or(Value::Null, |object| object["kind"].clone());
                let verbs = ["get", "list", "watch", "create", "update", "patch", "delete"];
                json!({ "name": plural, "singularName": "", "namespaced": true, "kind": kind, "verbs": verbs })
            })
            .collect();
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": prefix.trim_matches('/'), "resources": resources })
    }

    fn get(&self, target: &Target, name: &str) -> Response {
        match self.find(target, name) {
            Some(object) => json_answer(StatusCode::OK, object),
            None => failure(StatusCode::NOT_FOUND, "NotFound", name),
        }
    }

    fn find(&self, target: &Target, name: &str) -> Option<&Value> {
        self.collections.get(&target.collection)?.objects.get(&(target.namespace.clone(), name.to_owned()))
    }

    fn list(&mut self, target: &Target, query: &Query) -> Response {
        let mut rest = match &query.continued {
            Some(token) => match self.continued.remove(token) {
                Some(rest) => rest,
                None => return failure(StatusCode::GONE, "Expired", "the continue token is too old"),
            },
            None => {
                let objects = self.collections.get(&target.collection).map(|found| &found.objects);
                let wanted = objects.into_iter().flatten().map(|(_, object)| object);
                let items = wanted.filter(|object| target.holds(object) && query.selects(object)).cloned();
                Rest { version: self.version, items: items.collect() }
            }
        };
        let limit = query.limit.unwrap_or(usize::MAX).min(rest.items.len());
        let items: Vec<Value> = rest.items.drain(..limit).collect();
        let mut metadata = json!({ "resourceVersion": rest.version.to_string() });
        if !rest.items.is_empty() {
            self.tokens += 1;
            let token = format!("{}-{}", rest.version, self.tokens);
            metadata["continue"] = json!(token);
            metadata["remainingItemCount"] = json!(rest.items.len());
            self.continued.insert(token, rest);
        }
        let list = json!({ "apiVersion": target.api_version(), "kind": "List", "metadata": metadata, "items": items });
        json_answer(StatusCode::OK, &list)
    }

    fn events(&self, target: &Target, query: &Query, from: u64) -> (String, u64) {
        let Some(found) = self.collections.get(&target.collection) else {
            return (String::new(), self.version);
        };
        let begin = found.log.partition_point(|(version, _, _)| *version <= from);
        let news = found.log.iter().skip(begin);
        let wanted = news.filter(|(_, _, object)| target.holds(object) && query.selects(object));
        let lines =
            wanted.map(|(_, verb, object)| format!("{}\n", json!({ "type": verb, "object": object })));
        (lines.collect(), self.version)
    }

    fn create(&mut self, target: &Target, body: &[u8]) -> Response {
        let Ok(mut object) = serde_json::from_slice::<Value>(body) else { return malformed() };
        if target.collection.ends_with("/tokenreviews") {
            return json_answer(StatusCode::CREATED, &reviewed(object));
        }
        if target.collection.ends_with("accessreviews") {
            object["status"] = json!({ "allowed": true });
            return json_answer(StatusCode::CREATED, &object);
        }
        if !target.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(target.namespace);
        }
        if object["metadata"]["name"].is_null() {
            let prefix = object["metadata"]["generateName"].as_str().unwrap_or("object-").to_owned();
            object["metadata"]["name"] = json!(format!("{prefix}{}", self.version));
        }
        let (_, name) = key(&object);
        if self.find(target, &name).is_some() {
            return failure(StatusCode::CONFLICT, "AlreadyExists", &name);
        }
        json_answer(StatusCode::CREATED, &self.write(&target.collection, object))
    }

    fn replace(&mut self, target: &Target, name: &str, body: &[u8]) -> Response {
        let Ok(object) = serde_json::from_slice::<Value>(body) else { return malformed() };
        let Some(former) = self.find(target, name) else {
            return failure(StatusCode::NOT_FOUND, "NotFound", name);
        };
        let stated = &object["metadata"]["resourceVersion"];
        if !stated.is_null() && *stated != former["metadata"]["resourceVersion"] {
            return failure(StatusCode::CONFLICT, "Conflict", "the object has been modified");
        }
        json_answer(StatusCode::OK, &self.write(&target.collection, object))
    }

    fn patch(&mut self, target: &Target, name: &str, body: &[u8], kind: &str) -> Response {
        let Ok(patch) = serde_json::from_slice::<Value>(body) else { return malformed() };
        let former = self.find(target, name).cloned();
        let is_apply = kind.starts_with("application/apply-patch");
        let Some(mut object) = former.or_else(|| is_apply.then(|| json!({ "metadata": {} }))) else {
            return failure(StatusCode::NOT_FOUND, "NotFound", name);
        };
        if kind.starts_with("application/json-patch") {
            let patched = serde_json::from_value(patch)
                .ok()
                .map(|patch: json_patch::Patch| json_patch::patch(&mut object, &patch));
            if !matches!(patched, Some(Ok(()))) {
                return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", "the patch does not apply");
            }
        } else {
            let stated = &patch["metadata"]["resourceVersion"];
            if !stated.is_null() && *stated != object["metadata"]["resourceVersion"] {
                return failure(StatusCode::CONFLICT, "Conflict", "the object has been modified");
            }
            json_patch::merge(&mut object, &patch);
        }
        object["metadata"]["name"] = json!(name);
        if !target.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(target.namespace);
        }
        if self.find(target, name) == Some(&object) {
            return json_answer(StatusCode::OK, &object);
        }
        json_answer(StatusCode::OK, &self.write(&target.collection, object))
    }

    fn delete(&mut self, target: &Target, name: &str) -> Response {
        let at = (target.namespace.clone(), name.to_owned());
        let found = self.collections.get_mut(&target.collection);
        let Some(object) = found.and_then(|found| found.objects.remove(&at)) else {
            return failure(StatusCode::NOT_FOUND, "NotFound", name);
        };
        self.version += 1;
        if let Some(found) = self.collections.get_mut(&target.collection) {
            found.remember(self.version, "DELETED", object.clone());
        }
        json_answer(StatusCode::OK, &object)
    }
}

impl Collection {
    fn remember(&mut self, version: u64, verb: &'static str, object: Value) {
        self.log.push_back((version, verb, object));
        if self.log.len() > LOG_MAX
            && let Some((version, _, _)) = self.log.pop_front()
        {
            self.forgotten = version;
        }
    }
}

async fn answer(State(server): State<ApiServer>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let kind = head.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else { return malformed() };
    if head.uri.path() == "/version" {
        let version = json!({ "major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "linux/amd64" });
        return json_answer(StatusCode::OK, &version);
    }
    if let Some((group, version)) = path::group_version(head.uri.path()) {
        return json_answer(StatusCode::OK, &server.locked().resources(group, version));
    }
    match Target::parse(head.uri.path()) {
        Some(target) => {
            let query = Query::parse(head.uri.query().unwrap_or_default());
            server.respond(&head.method, &target, &query, &body, kind)
        }
        None => failure(StatusCode::NOT_FOUND, "NotFound", "no such resource"),
    }
}

fn key(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

/// The answer of a review: the token is that of whom it names.
fn reviewed(mut review: Value) -> Value {
    let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
    let parts: Vec<&str> = token.split(':').collect();
    review["status"] = match parts.as_slice() {
        [TOKEN_PREFIX, namespace, account, pod] => json!({
            "authenticated": true,
            "audiences": review["spec"]["audiences"].clone(),
            "user": {
                "username": format!("system:serviceaccount:{namespace}:{account}"),
                "uid": "1",
                "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
                "extra": { "authentication.kubernetes.io/pod-name": [pod], "authentication.kubernetes.io/pod-uid": ["1"] },
            },
        }),
        _ => json!({ "authenticated": false, "error": "not a token of this server" }),
    };
    review["apiVersion"] = json!("authentication.k8s.io/v1");
    review["kind"] = json!("TokenReview");
    review["metadata"] = json!({});
    review
}

fn malformed() -> Response {
    failure(StatusCode::BAD_REQUEST, "BadRequest", "the body cannot be read")
}

fn failure(status: StatusCode, reason: &str, message: &str) -> Response {
    let answer = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": status.as_u16() });
    json_answer(status, &answer)
}

fn json_answer(status: StatusCode, value: &Value) -> Response {
    (status, [("content-type", "application/json")], value.to_string()).into_response()
}
