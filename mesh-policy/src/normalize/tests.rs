use proptest::prelude::*;

use super::*;

const BASE: PathNormalization = PathNormalization::Base;
const MERGE: PathNormalization = PathNormalization::MergeSlashes;
const DECODE: PathNormalization = PathNormalization::DecodeAndMergeSlashes;
const NONE: PathNormalization = PathNormalization::None;

fn norm(raw: &str, mode: PathNormalization) -> String {
    path(raw, mode).expect("a path that is not refused").as_str().to_owned()
}

#[test]
fn each_mode_takes_its_own_steps() {
    for (raw, none, base, merge, decode) in [
        ("/a", "/a", "/a", "/a", "/a"),
        ("/a#frag", "/a", "/a", "/a", "/a"),
        ("/a?x=#y", "/a?x=", "/a?x=", "/a?x=", "/a?x="),
        ("/a//b", "/a//b", "/a//b", "/a/b", "/a/b"),
        ("/a//", "/a//", "/a//", "/a/", "/a/"),
        ("/a%2Fb", "/a%2Fb", "/a%2Fb", "/a%2Fb", "/a/b"),
        ("/a%2f%2Fb", "/a%2f%2Fb", "/a%2f%2Fb", "/a%2f%2Fb", "/a/b"),
        ("/a%5cb", "/a%5cb", "/a%5cb", "/a%5cb", "/a/b"),
        ("/x/..;/admin", "/x/..;/admin", "/admin", "/admin", "/admin"),
        ("/x/.;v=1/admin", "/x/.;v=1/admin", "/x/admin", "/x/admin", "/x/admin"),
        ("/x/..%2Fadmin", "/x/..%2Fadmin", "/x/..%2Fadmin", "/x/..%2Fadmin", "/admin"),
        ("/a/?q=//%2F..\\", "/a/?q=//%2F..\\", "/a/?q=//%2F..\\", "/a/?q=//%2F..\\", "/a/?q=//%2F..\\"),
    ] {
        for (mode, expected) in [(NONE, none), (BASE, base), (MERGE, merge), (DECODE, decode)] {
            assert_eq!(norm(raw, mode), expected, "{raw} under {mode:?}");
        }
    }
}

#[test]
fn canonical_form_is_as_specified() {
    for (raw, expected) in [
        ("", "/"),
        ("admin", "/admin"),
        ("\\admin", "/admin"),
        ("/a\\b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/%2e/b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/%2E%2e/b", "/b"),
        ("/a/.%2E\\b", "/b"),
        ("/../../a", "/a"),
        ("/app//../admin", "/app/admin"),
        ("/a/x/..", "/a/"),
        ("/a/.", "/a/"),
        ("/a/..b", "/a/..b"),
        ("/a/.b%2e", "/a/.b."),
        ("/%61%7e%2D%5f", "/a~-_"),
        ("/%3a%3B", "/%3a%3B"),
        ("/%", "/%"),
        ("/%4", "/%4"),
        ("/%zz", "/%zz"),
        ("/%2561", "/%2561"),
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("/a b\"<>^`{|}", "/a%20b%22%3C%3E%5E%60%7B%7C%7D"),
        ("/é", "/%C3%A9"),
        ("/%c0%af", "/%c0%af"),
        ("/admin;v=1", "/admin;v=1"),
        ("/A", "/A"),
        ("/%2e%2e;/a", "/..;/a"),
    ] {
        assert_eq!(norm(raw, BASE), expected, "{raw}");
    }
}

#[test]
fn decoding_never_builds_a_new_escape() {
    for (raw, expected) in [
        ("/%%32e%%32e/admin", "/%252e%252e/admin"),
        ("/%2%65", "/%252e"),
        ("/%%341", "/%2541"),
        ("/%%41", "/%A"),
        ("/%%", "/%%"),
    ] {
        assert_eq!(norm(raw, BASE), expected, "{raw}");
    }
    assert_eq!(norm("/a%%32Fb", DECODE), "/a%252Fb");
}

#[test]
fn a_raw_nul_is_refused_as_an_encoded_one_is() {
    for mode in [PathNormalization::Base, PathNormalization::MergeSlashes] {
        assert_eq!(path_bytes(b"/a\0b", mode).err(), Some(Refusal::EncodedNul));
    }
}

#[test]
fn an_encoded_nul_is_refused_where_paths_are_canonical() {
    for mode in [BASE, MERGE, DECODE] {
        assert_eq!(path("/a%00b", mode), Err(Refusal::EncodedNul));
    }
    assert_eq!(norm("/a?b=%00", BASE), "/a?b=%00");
    assert_eq!(norm("/a%00b", NONE), "/a%00b");
}

#[test]
fn bytes_that_are_not_text_are_encoded_in_the_path_and_refused_in_the_query() {
    assert_eq!(path_bytes(b"/\xff", BASE).map(|p| p.as_str().to_owned()), Ok("/%FF".to_owned()));
    assert_eq!(path_bytes(b"/?\xff", BASE), Err(Refusal::NotText));
    assert_eq!(path_bytes(b"/\xff", NONE), Err(Refusal::NotText));
}

#[test]
fn parts_are_told_apart_and_an_unchanged_path_is_borrowed() {
    let plain = path("/a/b.c?x=1?2", MERGE).expect("plain");
    assert_eq!((plain.policy_path(), plain.query()), ("/a/b.c", Some("x=1?2")));
    assert!(!plain.is_rewritten());
    assert!(!path("/.well-known/%3A", DECODE).expect("plain").is_rewritten());
    let rewritten = path("/a/../b?q", BASE).expect("plain");
    assert_eq!((rewritten.policy_path(), rewritten.query()), ("/b", Some("q")));
    assert!(rewritten.is_rewritten());
    assert_eq!(path("/a", BASE).expect("plain").query(), None);
    assert_eq!(path("/a?", BASE).expect("plain").query(), Some(""));
}

fn target() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "/", "//", ".", "..", "%2e", "%2E", "\\", "%2f", "%5C", "%", "%%", "%25", "2e", "32e", "a", "A", "~",
        "%7e", "%41", " ", "|", "é", "?", "#", "*", "4", "1",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    // Without `;`: `%2e%2e;` becomes `..;` and is deliberately left so (SEMANTICS C4).
    #[test]
    fn normalising_twice_changes_nothing(raw in target(), mode in prop::sample::select(vec![NONE, BASE, MERGE, DECODE])) {
        if let Ok(once) = path_bytes(&raw, mode) {
            let twice = path(once.as_str(), mode).expect("a normal path is not refused");
            prop_assert_eq!(twice.as_str(), once.as_str());
            prop_assert!(!twice.is_rewritten());
        }
    }

    #[test]
    fn no_dot_segment_or_backslash_survives(raw in target(), mode in prop::sample::select(vec![BASE, MERGE, DECODE])) {
        if let Ok(normal) = path_bytes(&raw, mode) {
            let text = normal.policy_path();
            prop_assert!(text.starts_with('/'));
            prop_assert!(!text.contains('\\'));
            prop_assert!(text.split('/').all(|segment| {
                let segment = segment.to_ascii_lowercase().replace("%2e", ".");
                segment != "." && segment != ".."
            }), "{}", text);
            if mode != BASE {
                prop_assert!(!text.contains("//"));
            }
        }
    }

    #[test]
    fn the_glance_agrees_with_the_scan(raw in "/[a-z./%;]{0,12}") {
        if is_plain(raw.as_bytes()) {
            prop_assert_eq!(canonical(&strip_dot_parameters(raw.as_bytes())), Ok(raw.into_bytes()));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(raw in prop::collection::vec(any::<u8>(), 0..64)) {
        for mode in [NONE, BASE, MERGE, DECODE] {
            if let Ok(normal) = path_bytes(&raw, mode) {
                prop_assert!(normal.as_str().starts_with(normal.policy_path()));
            }
        }
    }
}
