//! Who may ask: a key for everything but health and metrics.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Ops;
use super::problem::Problem;
use crate::config::secret::Secret;

/// Lets a request through that has a key, by `Authorization: Bearer` or `X-Api-Key`.
///
/// Orders that a page of another site had its reader's browser send are refused even where no key
/// is asked for.
pub async fn guard(State(ops): State<Arc<Ops>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !is_allowed(&ops.api_keys, headers) {
        let text = "give gateway.http_api_key as Authorization: Bearer or X-Api-Key";
        return Problem::new(StatusCode::UNAUTHORIZED, text).into_response();
    }
    if request.method() == Method::POST && is_foreign(headers) {
        let text = "this order comes from a page of another site; send it without Origin";
        return Problem::new(StatusCode::FORBIDDEN, text).into_response();
    }
    next.run(request).await
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn is_allowed(keys: &[Secret], headers: &HeaderMap) -> bool {
    if keys.is_empty() {
        return true;
    }
    let bearer = text(headers, header::AUTHORIZATION.as_str())
        .and_then(|value| value.strip_prefix("Bearer "));
    let given = bearer.or(text(headers, "x-api-key"));
    given.is_some_and(|key| keys.iter().any(|own| own.matches(key.as_bytes())))
}

/// Whether a browser says that the page is of another host than the one that is asked.
fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let origin_host =
        origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1.to_owned()));
    origin_host.as_deref() != text(headers, header::HOST.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.insert(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn any_of_the_keys_will_do() {
        let keys = [Secret::new("first-key"), Secret::new("second-key")];
        let bearer = [("authorization", "Bearer second-key")];
        assert!(is_allowed(&keys, &headers(&bearer)));
        assert!(is_allowed(&keys, &headers(&[("x-api-key", "first-key")])));
        for wrong in [&[][..], &[("x-api-key", "")], &[("authorization", "Basic first-key")]] {
            assert!(!is_allowed(&keys, &headers(wrong)), "{wrong:?}");
        }
        assert!(is_allowed(&[], &headers(&[])));
    }

    #[test]
    fn another_sites_page_gives_no_orders() {
        let host = ("host", "127.0.0.1:8080");
        assert!(!is_foreign(&headers(&[host])));
        assert!(!is_foreign(&headers(&[host, ("origin", "http://127.0.0.1:8080")])));
        for origin in ["http://pool.example", "null", "http://127.0.0.1:80"] {
            assert!(is_foreign(&headers(&[host, ("origin", origin)])), "{origin}");
        }
    }
}
