//! An API server that is made up: a store of objects with lists, pages, watches and writes, over HTTP on loopback.
//!
//! It does what the control plane asks of one and nothing else; whoever shows a token of the form
//! `NAMESPACE/SERVICE-ACCOUNT/POD` is believed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::{Method, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Kinds of Istio that are served.
const ISTIO: [(&str, &[&str]); 3] = [
    ("security.istio.io", &["authorizationpolicies", "peerauthentications", "requestauthentications"]),
    ("networking.istio.io", &["destinationrules", "virtualservices", "serviceentries", "workloadentries"]),
    ("telemetry.istio.io", &["telemetries"]),
];

/// Objects of one kind by `namespace/name`, and what happened to them.
#[derive(Debug, Default)]
struct Collection {
    objects: BTreeMap<String, Value>,
    log: Vec<(u64, &'static str, Arc<str>, String)>,
}

#[derive(Debug, Default)]
struct Store {
    version: u64,
    collections: BTreeMap<String, Collection>,
}

/// The server; it ends with the process.
#[derive(Debug, Clone)]
pub(crate) struct ApiServer {
    store: Arc<Mutex<Store>>,
    bell: watch::Sender<u64>,
    pub(crate) address: SocketAddr,
}

/// A place of the API: `/api/v1/namespaces/x/pods/y/status`.
#[derive(Debug)]
struct Place {
    /// Group and version with the plural name: `/api/v1 pods`.
    collection: String,
    namespace: Option<String>,
    name: Option<String>,
}

impl Place {
    fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => (format!("/api/{version}"), rest),
            ["apis", group, version, rest @ ..] => (format!("/apis/{group}/{version}"), rest),
            _ => return None,
        };
        let (namespace, plural, name) = match rest {
            ["namespaces", namespace, plural, name, ..] => (Some(*namespace), *plural, Some(*name)),
            ["namespaces", namespace, plural] => (Some(*namespace), *plural, None),
            [plural, name, ..] => (None, *plural, Some(*name)),
            [plural] => (None, *plural, None),
            [] => return None,
        };
        Some(Self {
            collection: format!("{group} {plural}"),
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
        })
    }

    fn key(&self) -> String {
        format!(
            "{}/{}",
            self.namespace.as_deref().unwrap_or_default(),
            self.name.as_deref().unwrap_or_default()
        )
    }
}

impl ApiServer {
    /// Serves on a free port.
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port for the API server")?;
        let server =
            Self { store: Arc::default(), bell: watch::channel(0).0, address: listener.local_addr()? };
        let routes = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(server)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Store) -> T) -> T {
        act(&mut self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Creates or replaces the object at a place such as `/api/v1/namespaces/x/pods/y`.
    pub(crate) fn put(&self, path: &str, object: Value) {
        if let Some(place) = Place::parse(path) {
            self.write(&place, object);
        }
    }

    /// The object at a place.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        let place = Place::parse(path)?;
        self.with(|store| store.collections.get(&place.collection)?.objects.get(&place.key()).cloned())
    }

    fn write(&self, place: &Place, mut object: Value) -> Value {
        let written = self.with(|store| {
            store.version += 1;
            let version = store.version;
            let meta = &mut object["metadata"];
            meta["resourceVersion"] = version.to_string().into();
            meta["name"] = place.name.clone().into();
            if meta["uid"].is_null() {
                meta["uid"] = format!("uid-{version}").into();
                meta["creationTimestamp"] = "2026-01-02T03:04:05Z".into();
            }
            if let Some(namespace) = &place.namespace {
                meta["namespace"] = namespace.clone().into();
            }
            let collection = store.collections.entry(place.collection.clone()).or_default();
            let kind = match collection.objects.insert(place.key(), object.clone()) {
                Some(_) => "MODIFIED",
                None => "ADDED",
            };
            collection.log.push((version, kind, object.to_string().into(), place.key()));
            object
        });
        self.bell.send_modify(|count| *count += 1);
        written
    }

    fn delete(&self, place: &Place) -> Option<Value> {
        let gone = self.with(|store| {
            store.version += 1;
            let version = store.version;
            let collection = store.collections.get_mut(&place.collection)?;
            let mut object = collection.objects.remove(&place.key())?;
            object["metadata"]["resourceVersion"] = version.to_string().into();
            collection.log.push((version, "DELETED", object.to_string().into(), place.key()));
            Some(object)
        });
        self.bell.send_modify(|count| *count += 1);
        gone
    }

    fn list(&self, place: &Place, query: &BTreeMap<String, String>) -> Response {
        let selected = Selected::of(place, query);
        let limit: usize = query.get("limit").and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
        let from: usize = query.get("continue").and_then(|text| text.parse().ok()).unwrap_or_default();
        let (items, version, is_last) = self.with(|store| {
            let objects = store.collections.get(&place.collection).map(|collection| &collection.objects);
            let mut all = objects.into_iter().flatten().filter(|(key, _)| selected.has(key)).skip(from);
            let items: Vec<Value> = all.by_ref().take(limit).map(|(_, object)| object.clone()).collect();
            (items, store.version, all.next().is_none())
        });
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if !is_last {
            metadata["continue"] = (from + items.len()).to_string().into();
        }
        json_response(
            StatusCode::OK,
            &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}),
        )
    }

    fn watch(&self, place: &Place, query: &BTreeMap<String, String>) -> Response {
        let from: u64 = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or_default();
        let selected = Selected::of(place, query);
        let collection = place.collection.clone();
        let state = (self.clone(), self.bell.subscribe(), from);
        let events = stream::unfold(state, move |(server, mut bell, from)| {
            let (collection, selected) = (collection.clone(), selected.clone());
            async move {
                loop {
                    bell.borrow_and_update();
                    let (lines, last) = server.with(|store| {
                        let log = store
                            .collections
                            .get(&collection)
                            .map(|found| found.log.as_slice())
                            .unwrap_or_default();
                        let begin = log.partition_point(|(at, ..)| *at <= from);
                        let news = log.get(begin..).unwrap_or_default();
                        let lines: String = news
                            .iter()
                            .filter(|(.., key)| selected.has(key))
                            .map(|(_, kind, object, _)| {
                                format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
                            })
                            .collect();
                        (lines, news.last().map_or(from, |(at, ..)| *at))
                    });
                    if !lines.is_empty() {
                        return Some((Ok::<_, Infallible>(Bytes::from(lines)), (server, bell, last)));
                    }
                    bell.changed().await.ok()?;
                }
            }
        });
        Response::new(Body::from_stream(events))
    }
}

/// Which objects of a collection are asked for.
#[derive(Debug, Clone)]
struct Selected {
    namespace: Option<String>,
    name: Option<String>,
}

impl Selected {
    fn of(place: &Place, query: &BTreeMap<String, String>) -> Self {
        let fields = query.get("fieldSelector").and_then(|fields| fields.strip_prefix("metadata.name="));
        Self {
            namespace: place.namespace.clone(),
            name: fields.map(str::to_owned).or_else(|| place.name.clone()),
        }
    }

    fn has(&self, key: &str) -> bool {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
            && self.name.as_deref().is_none_or(|wanted| wanted == name)
    }
}

async fn answer(State(server): State<ApiServer>, method: Method, uri: Uri, body: Bytes) -> Response {
    let path = uri.path();
    if let Some(found) = discovery(path) {
        return json_response(StatusCode::OK, &found);
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(mut place) = Place::parse(path) else { return status(StatusCode::NOT_FOUND) };
    let query: BTreeMap<String, String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.replace("%3D", "=").replace("%2F", "/")))
        .collect();
    if place.collection.ends_with(" tokenreviews") {
        return json_response(StatusCode::CREATED, &review(&body));
    }
    let stored =
        || server.with(|store| store.collections.get(&place.collection)?.objects.get(&place.key()).cloned());
    match method {
        Method::GET if query.contains_key("watch") => server.watch(&place, &query),
        Method::GET if place.name.is_none() => server.list(&place, &query),
        Method::GET => stored()
            .map_or_else(|| status(StatusCode::NOT_FOUND), |object| json_response(StatusCode::OK, &object)),
        Method::POST => {
            let name = body["metadata"]["name"].as_str().map(str::to_owned);
            place.name =
                Some(name.unwrap_or_else(|| format!("generated-{}", server.with(|store| store.version))));
            let key = place.key();
            let is_there = server.with(|store| {
                store.collections.get(&place.collection).is_some_and(|found| found.objects.contains_key(&key))
            });
            match is_there {
                true => status(StatusCode::CONFLICT),
                false => json_response(StatusCode::CREATED, &server.write(&place, body)),
            }
        }
        Method::PUT => {
            let expected = body["metadata"]["resourceVersion"].as_str();
            let known = stored();
            let is_stale = known.as_ref().is_some_and(|known| {
                expected.is_some_and(|expected| known["metadata"]["resourceVersion"] != expected)
            });
            match is_stale {
                true => status(StatusCode::CONFLICT),
                false => json_response(StatusCode::OK, &server.write(&place, body)),
            }
        }
        Method::PATCH => {
            let mut object = stored().unwrap_or_else(|| json!({}));
            merge(&mut object, body);
            json_response(StatusCode::OK, &server.write(&place, object))
        }
        Method::DELETE => server
            .delete(&place)
            .map_or_else(|| status(StatusCode::NOT_FOUND), |object| json_response(StatusCode::OK, &object)),
        _ => status(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn discovery(path: &str) -> Option<Value> {
    if path == "/version" {
        return Some(json!({
            "major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "linux/amd64",
        }));
    }
    let group = path.strip_prefix("/apis/")?.strip_suffix("/v1")?;
    let (_, plurals) = ISTIO.iter().find(|(name, _)| *name == group)?;
    let resource =
        |name: &&str| json!({"name": name, "singularName": "", "namespaced": true, "kind": "X", "verbs": []});
    let resources: Vec<Value> = plurals.iter().map(resource).collect();
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{group}/v1"), "resources": resources}),
    )
}

fn review(asked: &Value) -> Value {
    let token = asked["spec"]["token"].as_str().unwrap_or_default();
    let mut parts = token.split('/');
    let (namespace, account, pod) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    json!({
        "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": asked["spec"],
        "status": {
            "authenticated": true, "audiences": asked["spec"]["audiences"],
            "user": {
                "username": format!("system:serviceaccount:{namespace}:{account}"),
                "extra": {"authentication.kubernetes.io/pod-name": [pod]},
            },
        },
    })
}

/// JSON merge patch (RFC 7396), which is what server-side apply of one owner amounts to.
fn merge(object: &mut Value, patch: Value) {
    match (object, patch) {
        (Value::Object(fields), Value::Object(patch)) => {
            for (name, value) in patch {
                match value {
                    Value::Null => drop(fields.remove(&name)),
                    value => merge(fields.entry(name).or_insert(Value::Null), value),
                }
            }
        }
        (object, patch) => *object = patch,
    }
}

fn json_response(code: StatusCode, body: &Value) -> Response {
    (code, [(http::header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn status(code: StatusCode) -> Response {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
        "reason": code.canonical_reason(), "message": code.canonical_reason(),
    });
    json_response(code, &body)
}
