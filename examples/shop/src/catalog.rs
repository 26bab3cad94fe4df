//! What the shop sells, over HTTP and over gRPC; and the job that reads it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::{Method, StatusCode};
use serde_json::json;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

use crate::server::{Answer, say, serve as serve_http, told_to_end};

/// Generated types and services.
#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
mod shop {
    tonic::include_proto!("shop.v1");
}

use shop::catalog_client::CatalogClient;
use shop::catalog_server::{Catalog, CatalogServer};
use shop::{GetProductRequest, ListProductsRequest, Product};

/// Name and price in cents; a product's id is its position, from 1.
const PRODUCTS: [(&str, u32); 4] = [("teapot", 2_450), ("kettle", 3_900), ("strainer", 690), ("cup", 1_200)];

/// Serves HTTP and gRPC.
pub(crate) async fn serve(listen: SocketAddr, grpc: SocketAddr) -> Result<()> {
    say(&format!("catalog: serving gRPC on {grpc}"));
    let rpc =
        Server::builder().add_service(CatalogServer::new(Shelf)).serve_with_shutdown(grpc, told_to_end());
    let rpc = async { rpc.await.with_context(|| format!("catalog: gRPC on {grpc}")) };
    tokio::try_join!(rpc, serve_http("catalog", listen, answer)).map(|((), ())| ())
}

async fn answer(method: Method, path: String, _body: bytes::Bytes) -> Answer {
    let Some(rest) = path.strip_prefix("/api/products") else {
        return (StatusCode::NOT_FOUND, json!({ "error": format!("nothing at {path}") }));
    };
    if method != Method::GET {
        return (StatusCode::METHOD_NOT_ALLOWED, json!({ "error": "the catalog is read-only" }));
    }
    if rest.is_empty() || rest == "/" {
        return (StatusCode::OK, json!({ "products": PRODUCTS.map(|(name, _)| name) }));
    }
    match rest.trim_start_matches('/').parse().ok().and_then(product) {
        Some(found) => {
            (StatusCode::OK, json!({ "id": found.id, "name": found.name, "price_cents": found.price_cents }))
        }
        None => (StatusCode::NOT_FOUND, json!({ "error": "no such product" })),
    }
}

fn product(id: u32) -> Option<Product> {
    let index = usize::try_from(id.checked_sub(1)?).ok()?;
    let (name, price_cents) = PRODUCTS.get(index)?;
    Some(Product { id, name: (*name).to_owned(), price_cents: *price_cents })
}

/// The gRPC side.
#[derive(Debug)]
struct Shelf;

#[tonic::async_trait]
impl Catalog for Shelf {
    async fn get_product(&self, request: Request<GetProductRequest>) -> Result<Response<Product>, Status> {
        product(request.get_ref().id).map(Response::new).ok_or_else(|| Status::not_found("no such product"))
    }

    type ListProductsStream = tokio_stream::Iter<std::vec::IntoIter<Result<Product, Status>>>;

    async fn list_products(
        &self,
        _request: Request<ListProductsRequest>,
    ) -> Result<Response<Self::ListProductsStream>, Status> {
        let all: Vec<_> = (1..).map_while(product).map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(all)))
    }
}

/// Reads one product over gRPC. For `shop call --grpc`.
///
/// # Errors
/// When the catalog cannot be reached; a gRPC status is an answer.
pub(crate) async fn get_over_grpc(authority: &str, id: u32) -> Result<Result<String, Status>> {
    let mut client = connect(authority).await?;
    let answer = client.get_product(GetProductRequest { id }).await;
    Ok(answer.map(|product| product.into_inner().name))
}

/// Reads the whole catalog over gRPC and prints a summary.
pub(crate) async fn summarize(authority: &str) -> Result<()> {
    let mut client = connect(authority).await?;
    let mut products = client.list_products(ListProductsRequest {}).await?.into_inner();
    let (mut count, mut total) = (0_u32, 0_u32);
    while let Some(product) = products.message().await? {
        count += 1;
        total += product.price_cents;
    }
    say(&format!("batch: {count} products, {total} cents in all"));
    Ok(())
}

async fn connect(authority: &str) -> Result<CatalogClient<tonic::transport::Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))?
        .connect_timeout(Duration::from_secs(10))
        .timeout(Duration::from_secs(10));
    let channel = endpoint.connect().await.with_context(|| format!("cannot connect to {authority}"))?;
    Ok(CatalogClient::new(channel))
}
