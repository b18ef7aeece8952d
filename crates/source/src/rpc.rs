//! JSON-RPC to a Bitcoin node over one kept connection.
//!
//! The node closes idle connections after 30 s, so a request that fails on a kept connection is
//! sent once more on a new one. A cookie is read at the first request and again whenever the
//! node answers 401 (it writes a new one at every start).

use std::fmt;
use std::io::Read as _;
use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use work::contract::feed::NodeAccess;

/// Largest answer: a full template is about 9 MB.
pub const ANSWER_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Time for a connection to the node.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Kept connections older than this are not used: the node closes them at 30 s.
const IDLE_MAX: Duration = Duration::from_secs(25);
/// Error code of a node that still loads its chain.
const WARMING_UP: i32 = -28;

/// Why a call gave no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RpcError {
    /// No connection, no answer in time, or the connection broke.
    Unreachable(String),
    /// Nobody listens at the address: the node's process is gone.
    NoListener(String),
    /// The node does not accept the credentials, or there are none to send.
    Unauthorized(String),
    /// The node answered with an error of its own.
    Node {
        /// Its code.
        code: i32,
        /// Its words.
        message: String,
    },
    /// The answer is not what this call returns.
    Malformed(String),
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) | Self::NoListener(why) => {
                write!(f, "the node does not answer: {why}")
            }
            Self::Unauthorized(why) => write!(f, "the node refuses the credentials: {why}"),
            Self::Node { code, message } => write!(f, "the node answers error {code}: {message}"),
            Self::Malformed(why) => write!(f, "the node's answer makes no sense: {why}"),
        }
    }
}

impl std::error::Error for RpcError {}

impl RpcError {
    /// Whether the node is there but not ready to work.
    pub fn is_warming_up(&self) -> bool {
        matches!(self, Self::Node { code: WARMING_UP, .. })
    }
}

/// Where credentials come from.
#[derive(Clone, PartialEq, Eq)]
enum Auth {
    None,
    Cookie(std::path::PathBuf),
    UserPassword(String),
}

/// Check the form of `auth`: nothing, `cookie:/path` or `user:password`.
///
/// # Errors
/// A sentence with what was expected; it does not repeat the text, which may be a secret.
pub fn check_auth(auth: Option<&str>) -> Result<(), String> {
    parse_auth(auth).map(|_| ())
}

fn parse_auth(auth: Option<&str>) -> Result<Auth, String> {
    match auth {
        None | Some("") => Ok(Auth::None),
        Some(text) => match text.split_once(':') {
            Some(("cookie", path)) if !path.is_empty() => Ok(Auth::Cookie(path.into())),
            Some((user, _)) if !user.is_empty() && user != "cookie" => {
                Ok(Auth::UserPassword(text.to_owned()))
            }
            _ => Err("node credentials: expected cookie:/path/to/.cookie or user:password".into()),
        },
    }
}

/// One connection to one node.
pub struct RpcClient {
    agent: ureq::Agent,
    url: String,
    auth: Auth,
    header: Option<String>,
}

/// Ends a client from another thread.
pub struct Shutdown(ureq::Agent);

impl Shutdown {
    /// Break off the call in progress; later calls fail.
    pub fn end(self) {
        self.0.shutdown();
    }
}

/// The envelope of every answer.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<ErrorBody>,
}

#[derive(Deserialize)]
struct ErrorBody {
    code: i32,
    message: String,
}

/// Answer of the node to one call, as it came.
pub struct Answer(String);

impl Answer {
    /// The `result`, read as `T`, which may borrow from the text.
    ///
    /// # Errors
    /// [`RpcError::Node`] or [`RpcError::Malformed`].
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, RpcError> {
        let malformed = |error: serde_json::Error| RpcError::Malformed(error.to_string());
        let envelope: Envelope<'a> = serde_json::from_str(&self.0).map_err(malformed)?;
        match (envelope.error, envelope.result) {
            (Some(ErrorBody { code, message }), _) => Err(RpcError::Node { code, message }),
            (None, Some(result)) => serde_json::from_str(result.get()).map_err(malformed),
            // `"result": null` is an answer, too: of submitblock.
            (None, None) => serde_json::from_str("null").map_err(malformed),
        }
    }

    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Answer {
        Answer(text.to_owned())
    }
}

impl RpcClient {
    /// A client that has not connected yet; an answer is waited for as long as `timeout`.
    ///
    /// # Errors
    /// A sentence if the credentials have no known form.
    pub fn new(access: &NodeAccess, timeout: Duration) -> Result<RpcClient, String> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .timeout_connect(Some(CONNECT_TIMEOUT.min(timeout)))
            .max_redirects(0)
            .http_status_as_error(false)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .max_idle_age(IDLE_MAX)
            .proxy(None)
            .build();
        Ok(RpcClient {
            agent: config.into(),
            url: access.url.clone(),
            auth: parse_auth(access.auth.as_deref())?,
            header: None,
        })
    }

    /// What ends this client from another thread.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.agent.clone())
    }

    /// Call `method` and read its result.
    ///
    /// # Errors
    /// See [`RpcError`].
    pub fn call<T: DeserializeOwned>(
        &mut self,
        method: &str,
        params: serde_json::Value,
    ) -> Result<T, RpcError> {
        self.ask(method, params)?.read()
    }

    /// Call `method` and keep the text, for results that borrow from it.
    ///
    /// # Errors
    /// See [`RpcError`]; what the node itself refuses shows when the answer is read.
    pub fn ask(&mut self, method: &str, params: serde_json::Value) -> Result<Answer, RpcError> {
        let body = serde_json::json!({
            "jsonrpc": "1.0", "id": "reservegrid", "method": method, "params": params,
        });
        let text = self.post(&body.to_string())?;
        Ok(Answer(text))
    }

    /// Several calls in one request, answered in order.
    ///
    /// # Errors
    /// See [`RpcError`].
    pub fn ask_all(
        &mut self,
        calls: &[(&str, serde_json::Value)],
    ) -> Result<Vec<Answer>, RpcError> {
        let body: Vec<_> = calls
            .iter()
            .enumerate()
            .map(|(id, (method, params))| {
                serde_json::json!({"jsonrpc": "1.0", "id": id, "method": method, "params": params})
            })
            .collect();
        let text = self.post(&serde_json::Value::from(body).to_string())?;
        let answers: Vec<&RawValue> =
            serde_json::from_str(&text).map_err(|error| RpcError::Malformed(error.to_string()))?;
        if answers.len() != calls.len() {
            return Err(RpcError::Malformed(format!(
                "{} answers to {} calls",
                answers.len(),
                calls.len()
            )));
        }
        Ok(answers.into_iter().map(|answer| Answer(answer.get().to_owned())).collect())
    }

    fn post(&mut self, body: &str) -> Result<String, RpcError> {
        let mut fresh_header = false;
        if self.header.is_none() {
            self.header = self.read_header()?;
            fresh_header = true;
        }
        let (status, text) = match self.post_once(body) {
            Ok(answer) => answer,
            // A kept connection may have been closed by the node a moment ago. Every call of
            // this crate may be repeated: a block sent twice is answered "duplicate".
            Err(ureq::Error::Timeout(which)) => {
                return Err(RpcError::Unreachable(format!(
                    "{}: no answer in time ({which})",
                    self.url
                )));
            }
            Err(_) => self.post_once(body).map_err(|error| self.unreachable(&error))?,
        };
        if status != 401 {
            return self.judge(status, text);
        }
        if !fresh_header {
            self.header = self.read_header()?;
            let (status, text) = self.post_once(body).map_err(|error| self.unreachable(&error))?;
            if status != 401 {
                return self.judge(status, text);
            }
        }
        self.header = None;
        Err(RpcError::Unauthorized(match &self.auth {
            Auth::None => format!("{} wants some, and none are configured", self.url),
            Auth::Cookie(path) => {
                format!("the cookie in {} is not of {}", path.display(), self.url)
            }
            Auth::UserPassword(_) => format!("user and password are not those of {}", self.url),
        }))
    }

    fn judge(&self, status: u16, text: String) -> Result<String, RpcError> {
        // Errors of calls come with status 400, 404 or 500 and a JSON body.
        if text.trim_start().starts_with(['{', '[']) {
            return Ok(text);
        }
        let start: String = text.chars().take(100).collect();
        match status {
            403 => Err(RpcError::Unauthorized(format!("{} forbids this address", self.url))),
            503 => Err(RpcError::Unreachable(format!("{} is overloaded: {start}", self.url))),
            _ => Err(RpcError::Malformed(format!("HTTP {status} without JSON: {start}"))),
        }
    }

    fn post_once(&self, body: &str) -> Result<(u16, String), ureq::Error> {
        let mut request = self.agent.post(&self.url).content_type("application/json");
        if let Some(header) = &self.header {
            request = request.header("Authorization", header);
        }
        let answer = request.send(body)?;
        let status = answer.status().as_u16();
        let mut bytes = Vec::new();
        let mut reader = answer.into_body().into_with_config().limit(ANSWER_BYTES_MAX).reader();
        reader.read_to_end(&mut bytes).map_err(ureq::Error::from)?;
        let text = String::from_utf8(bytes)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))?;
        Ok((status, text))
    }

    fn unreachable(&self, error: &ureq::Error) -> RpcError {
        let why = format!("{}: {error}", self.url);
        match error {
            ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
                RpcError::NoListener(why)
            }
            _ => RpcError::Unreachable(why),
        }
    }

    fn read_header(&self) -> Result<Option<String>, RpcError> {
        let credentials = match &self.auth {
            Auth::None => return Ok(None),
            Auth::UserPassword(text) => text.clone(),
            Auth::Cookie(path) => std::fs::read_to_string(path).map_err(|error| {
                RpcError::Unauthorized(format!(
                    "cannot read the cookie {}: {error}; it exists while the node runs, and its \
                     owner decides who may read it",
                    path.display()
                ))
            })?,
        };
        let encoded = base64::engine::general_purpose::STANDARD.encode(credentials.trim());
        Ok(Some(format!("Basic {encoded}")))
    }
}
