//! The shop's HTTP services: frontend, orders, payments.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::Result;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::{Answer, call, say, serve};
use crate::store;

/// Serves the shop's front.
pub(crate) async fn frontend(listen: SocketAddr, catalog: String, orders: String) -> Result<()> {
    serve("frontend", listen, move |method, path, body| {
        let (catalog, orders) = (catalog.clone(), orders.clone());
        async move {
            match (method, path.as_str()) {
                (Method::GET, "/") => relay(Method::GET, &catalog, "/api/products", Bytes::new()).await,
                (Method::POST, "/buy") => relay(Method::POST, &orders, "/api/orders", body).await,
                (Method::GET, "/healthz") => (StatusCode::OK, json!({ "ok": true })),
                _ => not_found(&path),
            }
        }
    })
    .await
}

/// Serves orders.
pub(crate) async fn orders(listen: SocketAddr, payments: String, store_at: String) -> Result<()> {
    let next = Rc::new(Cell::new(1_u32));
    serve("orders", listen, move |method, path, body| {
        let (payments, store_at, next) = (payments.clone(), store_at.clone(), Rc::clone(&next));
        async move {
            if (method, path.as_str()) != (Method::POST, "/api/orders") {
                return not_found(&path);
            }
            let (status, charged) = relay(Method::POST, &payments, "/api/payments", body).await;
            if !status.is_success() {
                return (StatusCode::BAD_GATEWAY, json!({ "error": "payment failed", "payments": charged }));
            }
            let number = next.replace(next.get() + 1);
            match store::put(&store_at, &format!("order-{number}"), &charged.to_string()).await {
                Ok(()) => (StatusCode::CREATED, json!({ "order": number, "payment": charged })),
                Err(error) => (StatusCode::BAD_GATEWAY, json!({ "error": format!("store: {error:#}") })),
            }
        }
    })
    .await
}

/// Serves payments.
pub(crate) async fn payments(listen: SocketAddr) -> Result<()> {
    let ledger: Rc<RefCell<Vec<Value>>> = Rc::default();
    serve("payments", listen, move |method, path, body| {
        let ledger = Rc::clone(&ledger);
        async move {
            match (method, path.as_str()) {
                (Method::POST, "/api/payments") => {
                    let order: Value = match serde_json::from_slice(&body) {
                        Ok(order) => order,
                        Err(error) => {
                            return (StatusCode::BAD_REQUEST, json!({ "error": error.to_string() }));
                        }
                    };
                    let mut ledger = ledger.borrow_mut();
                    ledger.push(order);
                    (StatusCode::OK, json!({ "receipt": ledger.len() }))
                }
                (Method::GET, "/admin/ledger") => (StatusCode::OK, json!({ "taken": *ledger.borrow() })),
                _ => not_found(&path),
            }
        }
    })
    .await
}

/// Calls a neighbour and hands its answer on.
async fn relay(method: Method, authority: &str, path: &str, body: Bytes) -> Answer {
    let body = String::from_utf8_lossy(&body).into_owned();
    match call(method, authority, path, &[], body).await {
        Ok((status, body)) => {
            let text = String::from_utf8_lossy(&body);
            let json = serde_json::from_str(&text).unwrap_or_else(|_not_json| json!(text.trim_end()));
            (status, json)
        }
        Err(error) => {
            say(&format!("{authority}: {error:#}"));
            (StatusCode::BAD_GATEWAY, json!({ "error": format!("{error:#}") }))
        }
    }
}

fn not_found(path: &str) -> Answer {
    (StatusCode::NOT_FOUND, json!({ "error": format!("nothing at {path}") }))
}
