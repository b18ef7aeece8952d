//! `GET /api/v1/shares/{share_id}`: the whole way of one share.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use journal::explain::{Story, explain};
use ulid::Ulid;

use super::Ops;
use super::problem::Problem;
use super::reading::blocking;

/// The page.
pub async fn share(
    State(ops): State<Arc<Ops>>,
    Path(name): Path<String>,
) -> Result<Json<Story>, Problem> {
    let view = ops.journal()?.clone();
    let share_id = Ulid::from_string(&name).map_err(|error| {
        Problem::nonsense(format!("{name:?} is no share_id: {error}; expected a ULID, 26 letters"))
    })?;
    let _seat = ops.seats.lookup()?;
    let story = blocking(move || {
        let folder = view.open()?;
        explain(&folder, share_id.0, view.head.read())
    })
    .await?;
    let unknown =
        || Problem::unknown(format!("the journal has no share {name}, or it is no longer kept"));
    story.map(Json).ok_or_else(unknown)
}
