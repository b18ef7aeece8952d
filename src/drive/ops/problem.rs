//! What went wrong with a request, as `application/problem+json` (RFC 9457).

use axum::extract::rejection::QueryRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use journal::folder::FolderError;
use journal::request::RequestError;
use serde_json::{Value, json};

/// An answer that is none: status, what was wrong, what was expected.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    /// A member of its own beside the standard's.
    more: Option<(&'static str, Value)>,
}

impl Problem {
    /// One with this status and text.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), more: None }
    }

    /// What was asked makes no sense.
    pub fn nonsense(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    /// There is no such thing.
    pub fn unknown(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    /// Too many ask at once, or the gateway is not far enough.
    pub fn busy(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// What was asked for is no longer kept; `oldest` is the first event that is.
    pub fn pruned(oldest: u64) -> Problem {
        let detail = format!(
            "events before {oldest} are no longer kept (share.share_retention_days); go on with \
             after={}",
            oldest.saturating_sub(1)
        );
        let more = Some(("oldest", json!(oldest)));
        Problem { status: StatusCode::GONE, detail, more }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or_default();
        let mut body = json!({
            "type": "about:blank",
            "title": title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some((name, value)) = self.more {
            body[name] = value;
        }
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        (self.status, kind, body.to_string()).into_response()
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Problem {
        Problem::nonsense(error.to_string())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Problem {
        Problem::nonsense(rejection.body_text())
    }
}

impl From<FolderError> for Problem {
    fn from(error: FolderError) -> Problem {
        match error {
            FolderError::Pruned(pruned) => Problem::pruned(pruned.oldest),
            other => {
                let detail = format!("the journal cannot be read: {other}");
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
            }
        }
    }
}
