//! Headers that let pages of every origin call these doors.
//!
//! The token is the guard, never a cookie, so there is nothing an origin could borrow. It is the outermost layer: a
//! browser that cannot read a 404 takes it for a dead server and does not fall back to what is served here.

use actix_web::{
    Error, HttpResponse,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method,
        header::{self, HeaderValue},
    },
    middleware::Next,
};

pub async fn allow_every_origin<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    if request.method() == Method::OPTIONS {
        // Asked for by name, because `*` does not cover the Authorization header.
        let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        let mut answer = HttpResponse::NoContent();
        answer
            .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, METHODS))
            .insert_header((header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_S))
            .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or(ANY)));
        return Ok(marked(request.into_response(answer.finish())).map_into_right_body());
    }
    Ok(marked(next.call(request).await?).map_into_left_body())
}

fn marked<B>(mut response: ServiceResponse<B>) -> ServiceResponse<B> {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, ANY);
    response
}

const ANY: HeaderValue = HeaderValue::from_static("*");
const METHODS: &str = "OPTIONS, HEAD, GET, POST, PATCH, DELETE";
const MAX_AGE_S: &str = "86400";
