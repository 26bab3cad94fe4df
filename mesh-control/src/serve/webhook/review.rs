//! Admission reviews as the API server sends and expects them
//! (<https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#request>).
//!
//! Objects stay JSON values: what is not ours to know is passed over, and what is ours to judge is judged by
//! its own reader. Fields of the review itself that are missing or of another type make it no review.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use json_patch::Patch;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The one version of reviews that is spoken.
const API_VERSION: &str = "admission.k8s.io/v1";
/// Kind of a review.
const KIND: &str = "AdmissionReview";
/// Longest warning, in bytes: a longer one may be cut by the API server ("Response", same page).
const WARNING_BYTES_MAX: usize = 250;
/// Bytes of all warnings together: of more than 4096 the API server drops what follows (same page).
const WARNINGS_BYTES_MAX: usize = 3_500;
/// Longest message of a refusal, in bytes. People read it in a terminal.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// Why a body is no review.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// Not JSON, or not of the form of a review.
    #[error("the body is not an AdmissionReview")]
    Form(#[source] serde_json::Error),
    /// Another kind or version.
    #[error("expected AdmissionReview of {API_VERSION}, found {kind:?} of {api_version:?}")]
    Version {
        /// Kind found.
        kind: String,
        /// Version found.
        api_version: String,
    },
    /// There is no request in it.
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

/// What is done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is removed.
    Delete,
    /// It is connected to.
    Connect,
}

/// Group, version and kind of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct GroupKind {
    /// Group, empty for core.
    #[serde(default)]
    pub group: String,
    /// Version.
    #[serde(default)]
    pub version: String,
    /// Kind.
    #[serde(default)]
    pub kind: String,
}

/// Who does it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct UserInfo {
    /// Name of the user.
    #[serde(default)]
    pub username: String,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Names the question; the answer repeats it.
    pub uid: String,
    /// What the object is.
    pub kind: GroupKind,
    /// The part of the object that is asked about, empty for the whole.
    #[serde(default)]
    pub sub_resource: String,
    /// Name, empty when the API server has yet to make one.
    #[serde(default)]
    pub name: String,
    /// Namespace, empty for kinds without one.
    #[serde(default)]
    pub namespace: String,
    /// What is done.
    pub operation: Operation,
    /// Who does it.
    #[serde(default)]
    pub user_info: UserInfo,
    /// The object as it would be; null when it is removed.
    #[serde(default)]
    pub object: Value,
    /// The object as it is; null when it is made.
    #[serde(default)]
    pub old_object: Value,
    /// Nothing is stored in the end.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

impl Request {
    /// Reads a body.
    ///
    /// # Errors
    /// When it is not a review of the version that is spoken.
    pub fn read(body: &[u8]) -> Result<Self, ReviewError> {
        let review: Review = serde_json::from_slice(body).map_err(ReviewError::Form)?;
        if review.kind != KIND || review.api_version != API_VERSION {
            return Err(ReviewError::Version {
                kind: shortened(&review.kind, WARNING_BYTES_MAX).to_owned(),
                api_version: shortened(&review.api_version, WARNING_BYTES_MAX).to_owned(),
            });
        }
        review.request.ok_or(ReviewError::NoRequest)
    }

    /// Whether nothing is stored in the end.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.dry_run == Some(true)
    }
}

/// Why something is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Status code that the client of the API server gets.
    pub code: u16,
    /// The same as a word of the Kubernetes API.
    pub reason: &'static str,
    /// In words: what, where, what to do.
    pub message: String,
}

impl Refusal {
    /// The object is not acceptable: the author's fault.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { code: 422, reason: "Invalid", message: message.into() }
    }

    /// What is asked for is not done by rule.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self { code: 403, reason: "Forbidden", message: message.into() }
    }

    /// It cannot be judged now: our fault, and worth another attempt.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { code: 503, reason: "ServiceUnavailable", message: message.into() }
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Why it is refused; `None` admits it.
    pub refusal: Option<Refusal>,
    /// How the object is changed.
    pub patch: Option<Patch>,
    /// What the author is told; bounded when it is written.
    pub warnings: Vec<String>,
    /// For the audit log; the API server puts the webhook's name before each key.
    pub audit: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Refusal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

impl Answer {
    /// Admits the object as it is.
    #[must_use]
    pub fn admit() -> Self {
        Self::default()
    }

    /// Refuses it.
    #[must_use]
    pub fn refuse(mut refusal: Refusal) -> Self {
        if refusal.message.len() > MESSAGE_BYTES_MAX {
            refusal.message = shortened(&refusal.message, MESSAGE_BYTES_MAX).to_owned() + " …";
        }
        Self { refusal: Some(refusal), ..Self::default() }
    }

    /// The answer to the question `uid`.
    ///
    /// # Errors
    /// When a patch cannot be written as JSON, which no patch of JSON values is.
    pub fn to_json(self, uid: &str) -> Result<Vec<u8>, serde_json::Error> {
        let patch = match self.patch.filter(|patch| !patch.0.is_empty() && self.refusal.is_none()) {
            Some(patch) => Some(STANDARD.encode(serde_json::to_vec(&patch)?)),
            None => None,
        };
        serde_json::to_vec(&Reply {
            api_version: API_VERSION,
            kind: KIND,
            response: Response {
                uid,
                allowed: self.refusal.is_none(),
                status: self.refusal,
                patch_type: patch.is_some().then_some("JSONPatch"),
                patch,
                warnings: bounded(self.warnings),
                audit_annotations: self.audit,
            },
        })
    }
}

/// Warnings as the API server passes them on whole: on one line, not too long, not too many.
fn bounded(warnings: Vec<String>) -> Vec<String> {
    let mut left = WARNINGS_BYTES_MAX;
    let mut kept = Vec::new();
    let all = warnings.len();
    for warning in warnings {
        // A line feed in a header would end it; the API server drops such warnings.
        let line: String = warning.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = match line.len() > WARNING_BYTES_MAX {
            true => shortened(&line, WARNING_BYTES_MAX - 4).to_owned() + "…",
            false => line,
        };
        let Some(rest) = left.checked_sub(text.len()) else {
            kept.push(format!("{} more: run meshctl analyze", all - kept.len()));
            break;
        };
        left = rest;
        kept.push(text);
    }
    kept
}

/// The beginning of a text, at most `bytes` long.
pub(crate) fn shortened(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn review() -> Value {
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u-1", "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "namespace": "shop", "operation": "CREATE", "object": {"a": 1}, "oldObject": null,
                "dryRun": false, "options": {"kind": "CreateOptions"},
            }
        })
    }

    fn read(value: &Value) -> Result<Request, ReviewError> {
        Request::read(value.to_string().as_bytes())
    }

    #[test]
    fn a_review_of_the_api_server_is_read() {
        let request = read(&review()).expect("a review");
        assert_eq!((request.uid.as_str(), request.operation), ("u-1", Operation::Create));
        assert_eq!((request.name.as_str(), request.namespace.as_str()), ("", "shop"));
        assert!(request.old_object.is_null() && !request.is_dry_run());
    }

    #[test]
    fn another_version_and_a_review_without_request_are_refused() {
        let mut other = review();
        other["apiVersion"] = json!("admission.k8s.io/v1beta1");
        assert!(matches!(read(&other), Err(ReviewError::Version { .. })));
        let mut empty = review();
        empty["request"] = Value::Null;
        assert!(matches!(read(&empty), Err(ReviewError::NoRequest)));
        assert!(matches!(Request::read(b"{"), Err(ReviewError::Form(_))));
        let mut odd = review();
        odd["request"]["operation"] = json!("EXPLODE");
        assert!(matches!(read(&odd), Err(ReviewError::Form(_))));
    }

    #[test]
    fn an_answer_repeats_the_uid_and_carries_its_patch_in_base64() {
        let patch: Patch =
            serde_json::from_value(json!([{"op": "add", "path": "/a", "value": 1}])).expect("valid");
        let answer = Answer { patch: Some(patch), ..Answer::admit() }.to_json("u-1").expect("written");
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        let response = &answer["response"];
        assert_eq!((response["uid"].as_str(), response["allowed"].as_bool()), (Some("u-1"), Some(true)));
        assert_eq!(response["patchType"], "JSONPatch");
        let patch = STANDARD.decode(response["patch"].as_str().expect("text")).expect("base64");
        assert_eq!(patch, br#"[{"op":"add","path":"/a","value":1}]"#);
    }

    #[test]
    fn a_refusal_carries_no_patch() {
        let patch: Patch = serde_json::from_value(json!([{"op": "remove", "path": "/a"}])).expect("valid");
        let answer = Answer { patch: Some(patch), ..Answer::refuse(Refusal::invalid("no")) };
        let answer: Value = serde_json::from_slice(&answer.to_json("u").expect("written")).expect("JSON");
        assert_eq!(answer["response"]["allowed"], false);
        assert_eq!(answer["response"]["status"]["code"], 422);
        assert!(answer["response"].get("patch").is_none() && answer["response"].get("patchType").is_none());
    }

    #[test]
    fn many_and_long_warnings_are_cut_to_what_the_api_server_passes_on() {
        let many: Vec<String> = (0..100).map(|n| format!("{n} {}\n{}", "ä".repeat(200), "x")).collect();
        let kept = bounded(many);
        assert!(kept.iter().map(String::len).sum::<usize>() < 4096);
        assert!(kept.iter().all(|warning| warning.len() <= 256 && !warning.contains('\n')));
        assert!(kept.last().expect("some").contains("more: run meshctl analyze"), "{kept:?}");
        assert_eq!(bounded(vec!["short".to_owned()]), ["short"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            drop(Request::read(&body));
        }

        #[test]
        fn any_text_makes_bounded_warnings(warnings in proptest::collection::vec("\\PC{0,400}", 0..40)) {
            let kept = bounded(warnings);
            prop_assert!(kept.iter().all(|warning| warning.len() <= 256));
            prop_assert!(kept.iter().map(String::len).sum::<usize>() <= 4096);
        }
    }
}
