//! A request as a person would try it: as the `request` of a policy test, and as a command.

use mesh_api::policy_test::{Request, Traffic};
use serde_json::{Map, Value, json};

/// The `request` of a policy test, without what is the default there.
pub(super) fn of_policy_test(request: &Request) -> Value {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    if request.protocol == Traffic::Tcp {
        put("protocol", json!("tcp"));
    }
    if let Some(principal) = &request.principal {
        put("principal", json!(principal.as_str()));
    }
    if request.tls != request.principal.is_some() {
        put("tls", json!(request.tls));
    }
    put("sourceIp", json!(request.source_ip));
    if request.remote_ip != request.source_ip {
        put("remoteIp", json!(request.remote_ip));
    }
    if let Some(address) = request.destination_ip {
        put("destinationIp", json!(address));
    }
    if let Some(name) = &request.sni {
        put("sni", json!(name));
    }
    put("port", json!(request.port));
    if request.protocol == Traffic::Http {
        put("method", json!(request.http.method));
        put("host", json!(request.http.host));
        put("path", json!(request.http.path));
        let mut headers = Map::new();
        for (name, value) in &request.http.headers {
            let lines = headers.entry(name.clone()).or_insert_with(|| json!([]));
            if let Value::Array(lines) = lines {
                lines.push(json!(value));
            }
        }
        if !headers.is_empty() {
            put("headers", Value::Object(headers));
        }
        if let Some(claims) = &request.http.jwt_claims {
            put("jwtClaims", Value::Object(claims.clone()));
        }
    }
    Value::Object(fields)
}

/// A command that sends it, with what a command cannot say behind it.
pub(super) fn command(request: &Request) -> String {
    let caller = match (&request.principal, request.tls) {
        (Some(principal), _) => format!("as {}", principal.as_str()),
        (None, true) => "by TLS without a certificate of the mesh".to_owned(),
        (None, false) => "in plaintext, without a certificate".to_owned(),
    };
    let mut notes = vec![caller, format!("from {}", request.source_ip)];
    if request.remote_ip != request.source_ip {
        notes.push(format!("for the client {}", request.remote_ip));
    }
    if request.protocol == Traffic::Tcp {
        return format!("nc WORKLOAD {}  # {}", request.port, notes.join(", "));
    }
    let http = &request.http;
    let mut words = vec!["curl --path-as-is".to_owned()];
    if http.method != "GET" {
        words.push(format!("-X {}", quoted(&http.method)));
    }
    words.push(format!("-H {}", quoted(&format!("Host: {}", http.host))));
    words.extend(http.headers.iter().map(|(name, value)| {
        // curl takes a header without a value off unless it ends in a semicolon.
        let line = if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") };
        format!("-H {}", quoted(&line))
    }));
    if let Some(claims) = &http.jwt_claims {
        words.push("-H 'Authorization: Bearer TOKEN'".to_owned());
        notes.push(format!("with a token of {}", Value::Object(claims.clone())));
    }
    words.push(quoted(&format!("http://WORKLOAD:{}{}", request.port, http.path)));
    format!("{}  # {}", words.join(" "), notes.join(", "))
}

/// A word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    match text.bytes().all(is_plain) && !text.is_empty() {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Text from files and clients on one line.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_shell_keep_what_they_say() {
        assert_eq!(quoted("/a/b"), "/a/b");
        assert_eq!(quoted("/a'b$x"), r"'/a'\''b$x'");
        assert_eq!(quoted(""), "''");
    }
}
