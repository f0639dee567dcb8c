//! A cluster in a real Redis keeps every promise, and a few of its own.

mod server;

use std::sync::Arc;

use plenary_cluster::conformance_suite;

use server::redis;

conformance_suite!(Arc::new(redis().await));
