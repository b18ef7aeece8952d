//! The simulated chain's node side: `POST /rpc` as a node answers it, and `POST /demo/block` and
//! `POST /demo/fork`, which make blocks at once.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use source::demo::{DECODE_ERROR_CODE, DemoHandle, DemoStopped, ForkBase};
use source::submit::SubmitAnswer;
use work::contract::bytes;
use work::hash::BlockHash;

use crate::Service;

/// Blocks that one request may make.
const BLOCKS_MAX: u32 = 100;
const PARSE_ERROR: i32 = -32_700;
const METHOD_NOT_FOUND: i32 = -32_601;
const NOT_FOUND: i32 = -5;
const INVALID_PARAMETER: i32 = -8;
const INTERNAL_ERROR: i32 = -32_603;

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    id: Value,
    method: String,
    #[serde(default)]
    params: Vec<Value>,
}

/// An error of the call, with the code a node would give.
struct CallError(i32, String);

impl From<DemoStopped> for CallError {
    fn from(stopped: DemoStopped) -> Self {
        CallError(INTERNAL_ERROR, stopped.to_string())
    }
}

/// `POST /rpc`: submitblock, invalidateblock, getblockcount, getbestblockhash and
/// getblockchaininfo.
pub async fn rpc(State(service): State<Arc<Service>>, body: Bytes) -> Response {
    let Some(demo) = service.source.demo() else { return not_here() };
    let request: Request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => {
            let error = CallError(PARSE_ERROR, format!("Parse error: {error}"));
            return answer(&Value::Null, Err(error));
        }
    };
    let result = call(&service, demo, &request).await;
    answer(&request.id, result)
}

async fn call(service: &Service, demo: &DemoHandle, request: &Request) -> Result<Value, CallError> {
    match request.method.as_str() {
        "submitblock" => {
            let Some(hex) = request.params.first().and_then(Value::as_str) else {
                let why = "submitblock takes the block in hexadecimal digits";
                return Err(CallError(INVALID_PARAMETER, why.to_owned()));
            };
            let decode_failed = |why: String| CallError(DECODE_ERROR_CODE, why);
            let block = bytes::decode(hex)
                .map_err(|why| decode_failed(format!("Block decode failed: {why}")))?;
            let word = demo.submit_block(block).await?.map_err(|error| decode_failed(error.0))?;
            let answer = SubmitAnswer::from_word(word.as_deref());
            service.metrics.on_submit(&answer);
            match &answer {
                SubmitAnswer::Rejected(word) => tracing::warn!(word, "a block is rejected"),
                answer => tracing::info!(%answer, "a block was submitted"),
            }
            Ok(json!(word))
        }
        "invalidateblock" => {
            let hash = request.params.first().and_then(Value::as_str);
            let Some(hash) = hash.and_then(|hash| hash.parse::<BlockHash>().ok()) else {
                let why = "invalidateblock takes the block's hash, 64 hexadecimal digits";
                return Err(CallError(INVALID_PARAMETER, why.to_owned()));
            };
            demo.invalidate(hash).await?.map_err(|why| CallError(NOT_FOUND, why))?;
            Ok(Value::Null)
        }
        "getblockcount" => Ok(json!(demo.chain().await?.height)),
        "getbestblockhash" => Ok(json!(demo.chain().await?.tip_hash)),
        "getblockchaininfo" => {
            let chain = demo.chain().await?;
            Ok(json!({
                "chain": chain.network.node_name(),
                "blocks": chain.height,
                "headers": chain.height,
                "bestblockhash": chain.tip_hash,
                "mediantime": chain.median_time_past,
                "initialblockdownload": false,
            }))
        }
        _ => Err(CallError(METHOD_NOT_FOUND, "Method not found".to_owned())),
    }
}

fn answer(id: &Value, result: Result<Value, CallError>) -> Response {
    match result {
        Ok(result) => Json(json!({ "result": result, "error": null, "id": id })).into_response(),
        Err(CallError(code, message)) => {
            let status = match code {
                METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            let error = json!({ "code": code, "message": message });
            (status, Json(json!({ "result": null, "error": error, "id": id }))).into_response()
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MakeBlocks {
    #[serde(default = "one")]
    count: u32,
}

fn one() -> u32 {
    1
}

/// `POST /demo/block`: the chain makes blocks at once, for tests.
pub async fn make_blocks(State(service): State<Arc<Service>>, body: Bytes) -> Response {
    let Some(demo) = service.source.demo() else { return not_here() };
    let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
    let count = match serde_json::from_slice::<MakeBlocks>(body) {
        Ok(MakeBlocks { count }) if (1..=BLOCKS_MAX).contains(&count) => count,
        Ok(MakeBlocks { count }) => {
            let why = format!("count is {count}; expected 1 to {BLOCKS_MAX}\n");
            return (StatusCode::BAD_REQUEST, why).into_response();
        }
        Err(error) => {
            let why = format!("expected {{\"count\": 1}}: {error}\n");
            return (StatusCode::BAD_REQUEST, why).into_response();
        }
    };
    match demo.make_blocks(count).await {
        Ok(chain) => Json(chain).into_response(),
        Err(stopped) => (StatusCode::SERVICE_UNAVAILABLE, stopped.to_string()).into_response(),
    }
}

/// What `POST /demo/fork` takes: how many blocks the branch leaves out (or, with `onto`, which
/// block it builds on), and how many it has.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MakeFork {
    depth: Option<u32>,
    onto: Option<BlockHash>,
    length: u32,
}

/// `POST /demo/fork`: a competing branch, for tests. It becomes the chain if it is the longer one;
/// the answer is `{"blocks": [hash, …], "is_active": bool, "chain": …}`.
pub async fn make_fork(State(service): State<Arc<Service>>, body: Bytes) -> Response {
    let Some(demo) = service.source.demo() else { return not_here() };
    let bad = |why: String| (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response();
    let expected = "expected {\"depth\": 1, \"length\": 2}, or \"onto\": \"HASH\" for the depth";
    let MakeFork { depth, onto, length } = match serde_json::from_slice(&body) {
        Ok(fork) => fork,
        Err(error) => return bad(format!("{expected}: {error}")),
    };
    let base = match (depth, onto) {
        (Some(depth), None) => ForkBase::Depth(depth),
        (None, Some(hash)) => ForkBase::Block(hash),
        _ => return bad(expected.to_owned()),
    };
    match demo.fork(base, length).await {
        Ok(Ok((fork, chain))) => {
            let body = json!({
                "blocks": fork.blocks, "is_active": fork.is_active, "chain": chain,
            });
            Json(body).into_response()
        }
        Ok(Err(why)) => bad(why),
        Err(stopped) => (StatusCode::SERVICE_UNAVAILABLE, stopped.to_string()).into_response(),
    }
}

fn not_here() -> Response {
    let why = "this template-manager has a node of its own behind it: ask that one\n";
    (StatusCode::NOT_FOUND, why).into_response()
}
