//! `/rtc/validate`: why the socket was refused, for clients that cannot see the status of an upgrade.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web::Data};

use super::{
    authorize::{Authorizer, Refusal, RoomGate, authorize_join},
    plain,
};
use crate::tokens::unix_seconds;

/// The verdict the socket would give now.
pub async fn validate_endpoint(
    request: HttpRequest,
    authorizer: Data<Authorizer>,
    gate: Data<dyn RoomGate>,
) -> Result<HttpResponse, Refusal> {
    let ask = authorize_join(&request, &authorizer, unix_seconds()).await?;
    gate.admit(&ask).await?;
    Ok(plain(StatusCode::OK, "success"))
}
