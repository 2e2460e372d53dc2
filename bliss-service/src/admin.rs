//! `/healthz`, `/readyz`, `/metrics` and `/status`. Nothing here changes state.

mod host;
mod serve;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router, middleware};

use crate::state::State;

pub use serve::{Limits, serve};

/// The publisher reports at least twice a second; a publication of the largest size takes seconds.
const SILENCE: Duration = Duration::from_secs(60);

/// The admin listener's pages, for requests by address, as `localhost` or by one of the names `hosts`.
pub fn router(state: Arc<State>, hosts: &[String]) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(state)
        .layer(middleware::from_fn_with_state(Arc::from(hosts), host::check))
}

/// Whether the daemon works.
async fn healthz(Shared(state): Shared<Arc<State>>) -> impl IntoResponse {
    let silence = state.publisher_silence();
    if silence < SILENCE {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the publisher has been silent for {} s\n", silence.as_secs()),
        )
    }
}

/// Whether readers find features and every access log counts.
async fn readyz(Shared(state): Shared<Arc<State>>) -> impl IntoResponse {
    match state.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    // Summing many workers' counters takes milliseconds.
    let encoded = tokio::task::spawn_blocking(move || state.metrics.encode()).await;
    match encoded.unwrap_or(Err(std::fmt::Error)) {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn status(Shared(state): Shared<Arc<State>>) -> impl IntoResponse {
    Json(state.status())
}

#[cfg(test)]
mod tests;
