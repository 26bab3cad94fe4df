//! What can go wrong between `meshctl` and a cluster, in words that say what to do.

use std::fmt;
use std::time::Duration;

use kube::config::KubeconfigError;

/// What was asked of the API server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// The verb of Kubernetes' authorization: `get`, `list`, `patch`.
    pub(crate) verb: &'a str,
    /// The resource in the plural, with its subresource: `pods/portforward`.
    pub(crate) resource: &'a str,
    /// Its namespace; `None` for all, or when it has none.
    pub(crate) namespace: Option<&'a str>,
    /// Its name, when one is meant.
    pub(crate) name: Option<&'a str>,
}

impl<'a> Question<'a> {
    /// A list.
    pub(crate) fn list(resource: &'a str, namespace: Option<&'a str>) -> Self {
        Self { verb: "list", resource, namespace, name: None }
    }
}

impl fmt::Display for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if let Some(name) = self.name {
            write!(f, " {name:?}")?;
        }
        match self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}

/// Why a cluster did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// Nothing says where a cluster is.
    #[error("there is no kubeconfig, and this is no pod of a cluster")]
    NoKubeconfig,
    /// What says so cannot be used.
    #[error("the kubeconfig cannot be used")]
    Kubeconfig {
        /// Why.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// No client can be made of it.
    #[error("no connection to the cluster can be prepared")]
    Client {
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// Nobody answers at the address.
    #[error("the API server at {server} cannot be reached")]
    Unreachable {
        /// Its address.
        server: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("the API server at {server} did not answer within {} s ({question})", waited.as_secs())]
    Timeout {
        /// Its address.
        server: String,
        /// What was asked.
        question: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The credentials are not accepted.
    #[error("the API server at {server} does not accept these credentials")]
    Unauthorized {
        /// Its address.
        server: String,
    },
    /// A right is missing.
    #[error("this user may not {question}")]
    Forbidden {
        /// What was asked.
        question: String,
        /// The command of kubectl that asks for the right.
        can_i: String,
    },
    /// Refused for another reason.
    #[error("the API server refused to {question}: {message}")]
    Refused {
        /// What was asked.
        question: String,
        /// Its words.
        message: String,
        /// Status of HTTP.
        code: u16,
    },
    /// A list without end.
    #[error("there are too many objects to {question}")]
    TooMany {
        /// What was asked.
        question: String,
    },
    /// There is no event loop to ask on.
    #[error("{message}")]
    Loop {
        /// Why.
        message: String,
    },
    /// No control plane runs.
    #[error("no control plane runs in namespace {namespace}{}", of(revision.as_deref()))]
    NoControlPlane {
        /// Where it was looked for.
        namespace: String,
        /// The revision that was meant.
        revision: Option<String>,
    },
}

fn of(revision: Option<&str>) -> String {
    revision.map(|revision| format!(" with revision {revision}")).unwrap_or_default()
}

impl ClusterError {
    /// The error of a call.
    pub(crate) fn of(server: &str, question: Question<'_>, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                401 => Self::Unauthorized { server: server.to_owned() },
                403 if status.reason == "Forbidden" && is_a_missing_right(&status.message) => {
                    let space =
                        question.namespace.map_or_else(|| " -A".to_owned(), |space| format!(" -n {space}"));
                    Self::Forbidden {
                        can_i: format!("kubectl auth can-i {} {}{space}", question.verb, question.resource),
                        question: question.to_string(),
                    }
                }
                code => {
                    Self::Refused { question: question.to_string(), message: status.message.clone(), code }
                }
            },
            source @ (kube::Error::HyperError(_) | kube::Error::Service(_)) => {
                Self::Unreachable { server: server.to_owned(), source: Box::new(source) }
            }
            // The API server answers an upgrade with its reason in the body, which is not handed on.
            kube::Error::UpgradeConnection(error) => {
                let message = error.to_string();
                match message.contains("403") {
                    true => Self::Forbidden {
                        can_i: format!("kubectl auth can-i create {}", question.resource),
                        question: question.to_string(),
                    },
                    false => Self::Refused { question: question.to_string(), message, code: 0 },
                }
            }
            other => Self::Refused { question: question.to_string(), message: other.to_string(), code: 0 },
        }
    }

    /// Whether the object is not there, or its kind is not.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoKubeconfig => {
                "Name one with --kubeconfig or KUBECONFIG; `meshctl up` starts a mesh on this machine instead."
                    .to_owned()
            }
            Self::Kubeconfig { .. } | Self::Client { .. } => {
                "`kubectl config get-contexts` lists the contexts; choose with --kubeconfig and --context.".to_owned()
            }
            Self::Unreachable { .. } | Self::Timeout { .. } => {
                "`kubectl cluster-info` tells whether the cluster is up; --context chooses another one.".to_owned()
            }
            Self::Unauthorized { .. } => "Log in to the cluster again, as for kubectl.".to_owned(),
            Self::Forbidden { can_i, .. } => format!("`{can_i}` asks for this right; an administrator grants it."),
            Self::NoControlPlane { .. } => {
                "`meshctl install` installs one; -i NAMESPACE names where it is, --revision which; `meshctl check` looks closer."
                    .to_owned()
            }
            Self::Refused { .. } | Self::TooMany { .. } | Self::Loop { .. } => return None,
        })
    }
}

/// Admission and quotas answer 403 too, and have a reason of their own.
fn is_a_missing_right(message: &str) -> bool {
    message.contains("cannot ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u16, reason: &str, message: &str) -> kube::Error {
        let mut status = kube::core::Status::failure(message, reason);
        status.code = code;
        kube::Error::Api(status.boxed())
    }

    #[test]
    fn a_missing_right_is_named_by_verb_and_resource() {
        let question = Question { verb: "list", resource: "pods", namespace: Some("web"), name: None };
        let error = refusal(403, "Forbidden", "pods is forbidden: User \"a\" cannot list resource \"pods\"");
        let error = ClusterError::of("https://k", question, error);
        assert_eq!(error.to_string(), "this user may not list pods in namespace web");
        let hint = error.hint().expect("a hint");
        assert!(hint.contains("kubectl auth can-i list pods -n web"), "{hint}");
    }

    #[test]
    fn a_refusal_of_admission_is_no_missing_right() {
        let question = Question { verb: "patch", resource: "services", namespace: None, name: Some("x") };
        let error = refusal(403, "Forbidden", "exceeded quota: objects");
        let error = ClusterError::of("https://k", question, error);
        assert_eq!(
            error.to_string(),
            "the API server refused to patch services \"x\": exceeded quota: objects"
        );
    }

    #[test]
    fn what_is_not_there_is_told_from_what_is_refused() {
        let asked = |code| {
            let question = Question::list("widgets", None);
            ClusterError::of("https://k", question, refusal(code, "NotFound", "no")).is_not_found()
        };
        assert!(asked(404) && !asked(409));
    }
}
