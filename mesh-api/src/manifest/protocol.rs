//! The protocol of a port, by Istio's conventions: `appProtocol`, else the prefix of the port's name.

use crate::model::Protocol;

/// The protocol of `appProtocol`; `None` when it says nothing that is known.
pub(super) fn of_app_protocol(text: &str) -> Option<Protocol> {
    match text.to_ascii_lowercase().as_str() {
        "kubernetes.io/h2c" => Some(Protocol::Http2),
        "kubernetes.io/ws" => Some(Protocol::Http),
        "kubernetes.io/wss" => Some(Protocol::Tls),
        known => named(known),
    }
}

/// The protocol that a port's name declares: `http`, or `http-` with anything behind it.
pub(super) fn of_port_name(name: &str) -> Protocol {
    let name = name.to_ascii_lowercase();
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return Protocol::Http;
    }
    let prefix = name.split('-').next().unwrap_or_default();
    named(prefix).unwrap_or_default()
}

/// The protocol of a ServiceEntry's port; `None` when it is not known.
pub(super) fn of_service_entry(text: &str) -> Option<Protocol> {
    named(&text.to_ascii_lowercase())
}

/// Names as Istio knows them. Databases speak first or in their own framing, so they are byte streams;
/// gRPC-Web is carried on HTTP/1.1.
fn named(name: &str) -> Option<Protocol> {
    Some(match name {
        "http" | "http_proxy" | "grpc-web" => Protocol::Http,
        "http2" | "h2c" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "https" | "tls" => Protocol::Tls,
        "tcp" | "mongo" | "mongodb" | "mysql" | "redis" | "postgres" | "postgresql" | "smtp" | "amqp" => {
            Protocol::Tcp
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_names_declare_by_their_prefix() {
        for (name, expected) in [
            ("http", Protocol::Http),
            ("http-metrics", Protocol::Http),
            ("HTTP-x", Protocol::Http),
            ("httpx", Protocol::Auto),
            ("http2-api", Protocol::Http2),
            ("grpc-web", Protocol::Http),
            ("grpc-web-ui", Protocol::Http),
            ("grpc-webby", Protocol::Grpc),
            ("https", Protocol::Tls),
            ("mysql", Protocol::Tcp),
            ("redis-primary", Protocol::Tcp),
            ("web", Protocol::Auto),
            ("", Protocol::Auto),
        ] {
            assert_eq!(of_port_name(name), expected, "{name}");
        }
    }

    #[test]
    fn app_protocol_knows_the_kubernetes_names() {
        assert_eq!(of_app_protocol("kubernetes.io/h2c"), Some(Protocol::Http2));
        assert_eq!(of_app_protocol("gRPC"), Some(Protocol::Grpc));
        assert_eq!(of_app_protocol("example.com/mine"), None);
    }
}
