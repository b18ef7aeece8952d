//! `GET /api/v1/shares/export.csv`: judged shares as CSV or NDJSON, as they stand now.
//!
//! Parameters: `from`, `to` (RFC 3339 or a date), `miner`, `status`, `columns`, `limit`,
//! `format=ndjson`, `after`. The answer holds every share that was judged below the journal's head
//! of the moment, which is its `ETag`, with the result known then. Headers go out before the rows,
//! so the place to go on is told in advance: `Link: <…after=N>; rel="next"` asks for what is judged
//! later. Whoever asked with `limit`, or was cut off, goes on with `after` = the `event_id` of the
//! last whole row, which is a column. With `Accept-Encoding: gzip` the body is compressed.

use std::io::Write as _;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{OriginalUri, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use journal::export::{Exporter, FILL_BYTES, Format};
use journal::folder::FolderError;
use journal::request::ExportRequest;

use super::Ops;
use super::problem::Problem;
use super::reading::{Piece, Seat, blocking, body};

/// The page.
pub async fn export(
    State(ops): State<Arc<Ops>>,
    OriginalUri(uri): OriginalUri,
    query: Result<Query<ExportRequest>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let view = ops.journal()?.clone();
    let (filter, columns, format) = query?.0.read()?;
    let head = view.head.read().saturating_sub(1);
    let tag = format!("\"{head}\"");
    if header(&headers, header::IF_NONE_MATCH).is_some_and(|known| known.contains(&tag)) {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    if filter.after > head {
        return Err(Problem::nonsense(format!(
            "after: {} is not yet an event, the newest is {head}",
            filter.after
        )));
    }
    let is_gzip = header(&headers, header::ACCEPT_ENCODING).is_some_and(wants_gzip);
    let next = filter.limit.is_none().then(|| next_link(uri.path(), uri.query(), head));
    let seat = ops.seats.export()?;
    let exporter = blocking(move || {
        let folder = view.open()?;
        Exporter::open(&folder, filter, columns, format, head.saturating_add(1))
    })
    .await?;
    let gzip = is_gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
    let stream = Stream { exporter, gzip, is_over: false, _seat: seat };
    let mut response = body(stream, Stream::next).into_response();
    let (kind, name) = match format {
        Format::Csv => ("text/csv; charset=utf-8; header=present", "shares.csv"),
        Format::Ndjson => ("application/x-ndjson", "shares.ndjson"),
    };
    let mut set = |name, value: &str| {
        // All of these are visible ASCII; one that is not is left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, kind);
    set(header::CONTENT_DISPOSITION, &format!("attachment; filename=\"{name}\""));
    // Weak: the same rows may come compressed or not.
    set(header::ETAG, &format!("W/{tag}"));
    set(header::CACHE_CONTROL, "no-cache");
    set(header::VARY, "accept-encoding");
    if let Some(next) = next {
        set(header::LINK, &next);
    }
    if is_gzip {
        set(header::CONTENT_ENCODING, "gzip");
    }
    Ok(response)
}

fn header(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether an `Accept-Encoding` names gzip and does not refuse it.
fn wants_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let is_refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        is_gzip && !is_refused
    })
}

/// The same question about what comes behind event `head`.
fn next_link(path: &str, query: Option<&str>, head: u64) -> String {
    let kept = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let kept: String =
        kept.filter(|pair| !pair.starts_with("after=")).map(|pair| format!("{pair}&")).collect();
    format!("<{path}?{kept}after={head}>; rel=\"next\"")
}

struct Stream {
    exporter: Exporter,
    gzip: Option<GzEncoder<Vec<u8>>>,
    is_over: bool,
    _seat: Seat,
}

impl Stream {
    async fn next(self) -> Piece<Stream> {
        if self.is_over {
            return Ok(None);
        }
        let filling = tokio::task::spawn_blocking(move || self.fill());
        let filled = filling.await;
        filled.unwrap_or_else(|error| Err(FolderError::Unwritten { why: error.to_string() }))
    }

    /// Some bytes more; compressing may need several pieces until there are any.
    fn fill(mut self) -> Piece<Stream> {
        let mut out = Vec::new();
        while out.is_empty() && !self.is_over {
            let mut rows = Vec::with_capacity(FILL_BYTES);
            self.is_over = !self.exporter.fill(&mut rows)?;
            out = match self.gzip.take() {
                None => rows,
                Some(gzip) => self.compress(gzip, &rows)?,
            };
        }
        Ok((!out.is_empty()).then(|| (Bytes::from(out), self)))
    }

    fn compress(
        &mut self,
        mut gzip: GzEncoder<Vec<u8>>,
        rows: &[u8],
    ) -> Result<Vec<u8>, FolderError> {
        let failed = |error: std::io::Error| FolderError::Unwritten { why: error.to_string() };
        gzip.write_all(rows).map_err(failed)?;
        if self.is_over {
            return gzip.finish().map_err(failed);
        }
        let out = std::mem::take(gzip.get_mut());
        self.gzip = Some(gzip);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_question_is_this_one_behind_the_head() {
        let link = |query| next_link("/x.csv", query, 9);
        assert_eq!(link(None), "</x.csv?after=9>; rel=\"next\"");
        assert_eq!(
            link(Some("after=2&miner=a%20b&columns=share_id")),
            "</x.csv?miner=a%20b&columns=share_id&after=9>; rel=\"next\""
        );
    }

    #[test]
    fn gzip_is_asked_for() {
        for yes in ["gzip", "br, gzip", "gzip;q=0.5", "GZIP"] {
            assert!(wants_gzip(yes), "{yes}");
        }
        for no in ["", "br", "gzip;q=0", "identity, gzip; q=0.0"] {
            assert!(!wants_gzip(no), "{no}");
        }
    }
}
