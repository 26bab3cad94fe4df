//! A small shop of six services and two callers, none of which knows of the mesh.
//!
//! One binary with a subcommand for each: `frontend`, `catalog` (HTTP and gRPC), `orders`, `payments`,
//! `store` (a TCP server that speaks first), `batch` (a job) and `call` (any request, from a shell). They
//! speak plaintext, find each other by DNS names such as `catalog.backend`, and log to standard output.

mod call;
mod catalog;
mod server;
mod services;
mod store;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A small shop whose services know nothing of the mesh.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Service {
    /// The shop's front: `GET /` shows products, `POST /buy` places an order.
    Frontend {
        /// Address to serve on.
        #[arg(long, default_value = "[::]:8080")]
        listen: SocketAddr,
        /// The catalog, as host:port.
        #[arg(long, default_value = "catalog.backend:8080")]
        catalog: String,
        /// The orders service, as host:port.
        #[arg(long, default_value = "orders.backend:8080")]
        orders: String,
    },
    /// What the shop sells: `GET /api/products`, `GET /api/products/ID`, and the same over gRPC.
    Catalog {
        /// Address of HTTP.
        #[arg(long, default_value = "[::]:8080")]
        listen: SocketAddr,
        /// Address of gRPC.
        #[arg(long, default_value = "[::]:9090")]
        grpc: SocketAddr,
    },
    /// Takes orders: `POST /api/orders` charges them and keeps them in the store.
    Orders {
        /// Address to serve on.
        #[arg(long, default_value = "[::]:8080")]
        listen: SocketAddr,
        /// The payments service, as host:port.
        #[arg(long, default_value = "payments.backend:8080")]
        payments: String,
        /// The store, as host:port.
        #[arg(long, default_value = "store.backend:7000")]
        store: String,
    },
    /// Takes money: `POST /api/payments`; `GET /admin/ledger` shows what was taken.
    Payments {
        /// Address to serve on.
        #[arg(long, default_value = "[::]:8080")]
        listen: SocketAddr,
    },
    /// Keeps lines: greets first, then answers `PUT key value`, `GET key` and `QUIT`.
    Store {
        /// Address to serve on.
        #[arg(long, default_value = "[::]:7000")]
        listen: SocketAddr,
    },
    /// A job: reads the whole catalog over gRPC, prints a summary, ends.
    Batch {
        /// The catalog's gRPC port, as host:port.
        #[arg(long, default_value = "catalog.backend:9090")]
        catalog: String,
    },
    /// Makes requests and prints what came back, one line each.
    Call(call::CallArgs),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = match Args::parse().service {
        Service::Frontend { listen, catalog, orders } => services::frontend(listen, catalog, orders).await,
        Service::Catalog { listen, grpc } => catalog::serve(listen, grpc).await,
        Service::Orders { listen, payments, store } => services::orders(listen, payments, store).await,
        Service::Payments { listen } => services::payments(listen).await,
        Service::Store { listen } => store::serve(listen).await,
        Service::Batch { catalog } => catalog::summarize(&catalog).await,
        Service::Call(args) => return call::run(&args).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            server::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
