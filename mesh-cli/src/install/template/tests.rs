//! Rules of templates; what Helm says about the chart itself is asked in `tests/helm.rs`.

use serde_json::{Value, json};

use super::*;

fn rendered(text: &str, context: &Value) -> Result<String, String> {
    let mut templates = Templates::default();
    templates.add("t", text).map_err(|error| error.to_string())?;
    templates.render("t", context).map_err(|error| error.to_string())
}

#[test]
fn actions_print_as_in_go() {
    let context =
        json!({"a": {"b": "x", "list": [1, 2], "map": {"k2": 2, "k1": 1}, "no": false, "empty": ""}});
    for (text, printed) in [
        ("a {{ .a.b }} c", "a x c"),
        ("a \n {{- .a.b -}} \n c", "axc"),
        ("{{/* nothing }} here */}}x", "x"),
        ("{{ if .a.no }}1{{ else if .a.b }}2{{ else }}3{{ end }}", "2"),
        ("{{ if .a.empty }}1{{ else }}3{{ end }}", "3"),
        ("{{ with .a.b }}{{ . }}{{ $.a.b }}{{ end }}", "xx"),
        ("{{ with .a.none }}1{{ else }}2{{ end }}", "2"),
        ("{{ range .a.list }}<{{ . }}>{{ end }}", "<1><2>"),
        ("{{ range $k, $v := .a.map }}{{ $k }}={{ $v }};{{ end }}", "k1=1;k2=2;"),
        ("{{ range .a.none }}1{{ else }}none{{ end }}", "none"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ default \"d\" .a.empty }} {{ .a.none }}", "d "),
        ("{{ printf \"%s/%d\" .a.b 7 | quote }}", "\"x/7\""),
        ("{{ (index .a).b }}", "error"),
        ("{{ eq .a.b \"y\" \"x\" }} {{ ne 1 2 }} {{ not .a.b }}", "true true false"),
        ("{{ and .a.no .a.none.x }}{{ or .a.b .a.none.x }}", "falsex"),
        ("{{ define \"d\" }}[{{ .b }}]{{ end }}{{ include \"d\" .a }}", "[x]"),
        ("{{ (dict \"k\" \"v\").k }}", "v"),
        ("{{ \"a}}b\" }}", "a}}b"),
        ("x:{{ toYaml .a.map | nindent 2 }}", "x:\n  k1: 1\n  k2: 2"),
        ("{{ has \"x\" (concat (list \"x\") (list)) }}", "true"),
    ] {
        let got = rendered(text, &context);
        if printed == "error" {
            assert!(got.is_err(), "{text}: {got:?}");
        } else {
            assert_eq!(got.as_deref(), Ok(printed), "{text}");
        }
    }
}

#[test]
fn what_goes_beyond_is_an_error_with_its_place() {
    for (text, part) in [
        ("a\n{{ template \"x\" }}", "t:2: `template` is not understood"),
        ("{{ .a.b.c }}", "is no map"),
        ("{{ if .a }}", "without end"),
        ("{{ end }}", "without its beginning"),
        ("{{ foo .a }}", "foo is not known"),
        ("{{ .a", "without }}"),
        ("{{ fail \"no\" }}", "no"),
        ("{{ required \"say it\" .none }}", "say it"),
        ("{{ 1000000 }}", "toYaml"),
        ("{{ $x }}", "not declared"),
        ("{{ define \"d\" }}{{ include \"d\" . }}{{ end }}{{ include \"d\" . }}", "without end"),
    ] {
        let message = rendered(text, &json!({"a": {"b": "x"}})).expect_err(text);
        assert!(message.contains(part), "{text}: {message}");
    }
}
