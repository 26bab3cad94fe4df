use super::*;

fn parse(text: &str) -> Result<Expression, SyntaxError> {
    Expression::parse(text)
}

#[test]
fn expressions_of_the_documentation_parse() {
    for text in [
        "response.code >= 400",
        "response.code >= 400 && response.code < 500 || connection.mtls == false",
        "!(request.path.startsWith('/health') || request.method == \"OPTIONS\")",
        "has(request.headers) && 'x-a' in request.headers && request.headers['x-a'] != ''",
        "response.code in [200, 201,]",
        "request.duration > duration('1.5s') ? true : false",
        "a ? b : c ? d : e",
        "-1 < -x && --x == x && !!true",
        "{'a': 1, 'b': [1, 2.5, .5, 1e3, 1.5e-3, 0x1F, 7u, -9223372036854775808]}['a'] == 1",
        "google.protobuf.Duration{seconds: 1} == duration('1s')",
        "Msg{} != null",
        ".request.path",
        "[1, 2].all(x, x > 0) && [1].exists(i, i == 1) && [1].exists_one(i, true)",
        "[1].map(i, i + 1).filter(i, i % 2 == 0) == [] || [1].map(i, i > 0, i * 2 / 3 - 1) == [2]",
        "r'\\d+' == '\\\\d+' && b'\\xff' != b\"\\377\" && '''a\n'b''' != \"\"\"x\"y\"\"\"",
        "'\\a\\b\\f\\n\\r\\t\\v\\\\\\?\\\"\\'\\`\\x41\\u00e9\\U0001F600\\101' != ''",
        "size(x) > 0 // a comment\n && true",
        "string(destination.port)",
        "x.if == 1",
        "all.exists",
    ] {
        assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
    }
}

#[test]
fn what_is_no_expression_is_refused_with_its_place() {
    for (text, column) in [
        ("", 1),
        ("   ", 4),
        ("response.code >=", 17),
        ("a &", 3),
        ("a & b", 3),
        ("a = b", 3),
        ("a b", 3),
        ("(a", 3),
        ("a)", 2),
        ("a..b", 3),
        ("a.", 3),
        ("a.1", 2),
        ("a.in", 3),
        ("'open", 1),
        ("\"open\n\"", 1),
        ("'\\q'", 2),
        ("'\\x4'", 2),
        ("'\\ud800'", 2),
        ("1a", 1),
        ("0xg", 1),
        ("99999999999999999999", 1),
        ("9223372036854775808", 1),
        ("18446744073709551616u", 1),
        ("if", 1),
        ("while == 1", 1),
        ("in", 1),
        ("f(a,)", 5),
        ("[a b]", 4),
        ("{a}", 3),
        ("{,}", 2),
        ("M{1: 2}", 3),
        ("a ? b", 6),
        ("has(a)", 7),
        ("x.all(1, true)", 15),
        ("a[", 3),
        ("a[]", 3),
        ("!-a", 2),
        ("é == 1", 1),
        ("a == `b`", 6),
        ("#", 1),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.column, column, "{text}: {error}");
    }
}

#[test]
fn operators_bind_as_in_the_language() {
    assert_eq!(parse("a || b && c == d + e * -f"), parse("a || (b && (c == (d + (e * (-f)))))"));
    assert_eq!(parse("a - b - c"), parse("(a - b) - c"));
    assert_eq!(parse("a < b == c"), parse("(a < b) == c"));
    assert_eq!(parse("!a.b[c].d(e)"), parse("!(((a.b)[c]).d(e))"));
    assert_ne!(parse("a - b - c"), parse("a - (b - c)"));
    assert_eq!(parse("request.path").expect("a chain").dotted().as_deref(), Some("request.path"));
    assert_eq!(parse("-5"), Ok(Expression::Literal(Literal::Int(-5))));
}

#[test]
fn size_and_depth_are_bounded() {
    for hostile in [
        "(".repeat(5_000),
        format!("{}a{}", "(".repeat(1_000), ")".repeat(1_000)),
        "[".repeat(5_000),
        "!".repeat(10_000) + "a",
        "-".repeat(10_000) + "a",
        format!("a{}", ".b".repeat(5_000)),
        format!("a{}", "+a".repeat(5_000)),
        format!("a{}", "?a:a".repeat(2_000)),
        format!("a{}", "[0]".repeat(4_000)),
        "a".repeat(SOURCE_BYTES_MAX + 1),
    ] {
        assert!(parse(&hostile).is_err(), "{}", &hostile[..10]);
    }
    assert!(parse(&format!("a{}", " && a".repeat(1_000))).is_ok());
}
