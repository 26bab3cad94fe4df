use super::*;

/// A failed request of a mesh client.
#[derive(Debug)]
struct Record;

impl AttributeSource for Record {
    fn attribute(&self, attribute: Attribute) -> Option<Value<'_>> {
        Some(match attribute {
            Attribute::RequestPath => Value::Text("/api/items?page=2".into()),
            Attribute::RequestUrlPath => Value::Text("/api/items".into()),
            Attribute::RequestMethod => Value::Text("GET".into()),
            Attribute::RequestHost => Value::Text("catalog.shop".into()),
            Attribute::RequestTime => Value::Timestamp(1_767_225_600_000_000_000),
            Attribute::RequestDuration => Value::Duration(1_500_000_000),
            Attribute::RequestTotalSize => Value::Int(120),
            Attribute::ResponseCode => Value::Int(503),
            Attribute::ResponseFlags => Value::Int(2),
            Attribute::ConnectionMtls => Value::Bool(true),
            Attribute::SourceAddress => Value::Text("10.0.0.7:4000".into()),
            Attribute::DestinationPort => Value::Int(8080),
            Attribute::ClusterName => Value::Text("inbound|8080||".into()),
            _ => return None,
        })
    }

    fn request_header(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "x-tenant").then_some(Cow::Borrowed("blue"))
    }
}

fn holds(text: &str) -> bool {
    Program::compile(text).unwrap_or_else(|error| unreachable!("{text}: {error}")).holds(&Record)
}

#[test]
fn what_is_true_of_the_record_holds() {
    for text in [
        "true",
        "response.code >= 400",
        "response.code >= 400 && connection.mtls",
        "connection.mtls == false || response.code == 503",
        "request.url_path.startsWith('/api') && !request.path.contains('health')",
        "request.path.endsWith('page=2') && request.path.matches('^/api/[a-z]+')",
        "response.code in [500, 503]",
        "request.duration > duration('1.2s') && request.duration == duration('1s500ms')",
        "request.time == timestamp('2026-01-01T00:00:00Z') && request.time > timestamp('2025-12-31T23:59:59.9+00:30')",
        "request.time - timestamp('2025-12-31T00:00:00Z') == duration('24h')",
        "request.headers['x-tenant'] == 'blue' && request.headers['X-Tenant'] == 'blue'",
        "'x-tenant' in request.headers && !('x-b' in request.headers)",
        "has(response.code) && has(request.headers) && !has(response.grpc_status)",
        "string(response.code).startsWith('5') && int('7') == 7 && size(request.method) == 3",
        "request.method == 'GET' ? response.code == 503 : false",
        "response.code / 100 == 5 && response.code % 100 == 3 && -response.code < 0",
        "1 == 1.0 && 1u == 1 && 2 > 1.5 && 1u < 2",
        "'a' + 'b' == 'ab' && [1] + [2] == [1, 2] && {'a': 1}.a == 1 && {'a': 1}['a'] == 1",
        "[500, 503].exists(c, c == response.code) && [1, 2].all(i, i < 3) && [1, 2].exists_one(i, i == 1)",
        "[1, 2, 3].filter(i, i > 1).map(i, i * 2) == [4, 6] && [1, 2].map(i, i > 1, i) == [2]",
        "[503].exists(request, request == 503)",
        "xds.cluster_name == 'inbound|8080||' && source.address.startsWith('10.')",
        "b'a' == b'\\x61' && null == null && dyn(1) == 1",
        // The side that decides does so past one without a value.
        "true || response.nothing == 1",
        "response.nothing == 1 || true",
        "!(false && unheard_of())",
        "!(unheard_of() && false)",
    ] {
        assert!(holds(text), "{text}");
    }
}

#[test]
fn what_is_false_or_has_no_value_does_not() {
    for text in [
        "false",
        "response.code < 400",
        "response.grpc_status == 0",
        "response.grpc_status != 0",
        "!(response.grpc_status == 0)",
        "request.headers['x-absent'] == ''",
        "request.headers['x-absent'] != 'a'",
        "metadata.filter_metadata['a']['b'] == 'c'",
        "unheard_of()",
        "response.code",
        "'true'",
        "1",
        "response.code == '503'",
        "response.code > '1'",
        "1 / 0 == 1 || 1 / 0 != 1",
        "9223372036854775807 + 1 > 0",
        "request.path.matches(request.method)",
        "request.path.matches('(')",
        "duration('x') == duration('x')",
        "timestamp('2026-13-01T00:00:00Z') == request.time",
        "[1, 2, 3][7] == 1",
        "request.unknown || false",
        "has(request.unknown)",
        "Msg{a: 1} == Msg{a: 1}",
        "[1].exists(i, i)",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn values_of_labels_are_texts() {
    for (text, expected) in [
        ("request.host", Some("catalog.shop")),
        ("'constant'", Some("constant")),
        ("\"constant\"", Some("constant")),
        ("string(destination.port)", Some("8080")),
        ("response.code", Some("503")),
        ("connection.mtls", Some("true")),
        ("request.headers['x-tenant']", Some("blue")),
        ("request.headers['x-absent']", None),
        ("response.code >= 500 ? 'bad' : 'good'", Some("bad")),
        ("plain", None),
        ("[1]", None),
    ] {
        let program = Program::compile(text).expect("an expression");
        assert_eq!(program.text(&Record).as_deref(), expected, "{text}");
    }
}

#[test]
fn headers_that_are_read_by_name_are_known_beforehand() {
    let text = "request.headers['X-B'] == 'a' && 'x-a' in request.headers || has(request.headers.x_c)";
    assert_eq!(Program::compile(text).expect("an expression").headers(), ["x-a", "x-b", "x_c"]);
}

#[test]
fn evaluation_is_bounded() {
    let row = (0..100).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    let nested = format!("[{row}].all(a, [{row}].all(b, [{row}].all(c, true)))");
    assert!(!holds(&nested), "a million steps were taken");
}
