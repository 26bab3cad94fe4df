//! Log lines on standard error, with a filter that can be changed while the process runs.

use std::io::IsTerminal;
use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The word of the flag.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Why a filter was refused.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It cannot be read.
    #[error("{text:?} is not a log filter")]
    Malformed {
        /// The text.
        text: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The subscriber is gone.
    #[error("the log filter cannot be changed")]
    Reload(#[source] reload::Error),
    /// Another subscriber is installed.
    #[error("logging is set up already")]
    Installed(#[source] TryInitError),
}

/// Changes the filter while the process runs.
#[derive(Debug, Clone)]
pub struct LogControl {
    handle: Arc<reload::Handle<EnvFilter, Registry>>,
}

impl LogControl {
    /// Sets logging up for the process.
    ///
    /// # Errors
    /// When the filter cannot be read or logging is set up already.
    pub fn install(filter: &str, format: LogFormat) -> Result<Self, FilterError> {
        let (filter, handle) = reload::Layer::new(parse(filter)?);
        let lines = match format {
            LogFormat::Text => fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal())
                .with_filter(filter)
                .boxed(),
            LogFormat::Json => fmt::layer().json().with_writer(std::io::stderr).with_filter(filter).boxed(),
        };
        tracing_subscriber::registry().with(lines).try_init().map_err(FilterError::Installed)?;
        Ok(Self { handle: Arc::new(handle) })
    }

    /// The filter in force.
    #[must_use]
    pub fn current(&self) -> String {
        self.handle.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Replaces the filter.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn set(&self, filter: &str) -> Result<(), FilterError> {
        self.handle.reload(parse(filter)?).map_err(FilterError::Reload)
    }
}

fn parse(text: &str) -> Result<EnvFilter, FilterError> {
    EnvFilter::try_new(text).map_err(|source| FilterError::Malformed { text: text.to_owned(), source })
}
