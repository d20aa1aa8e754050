//! What these tests share.

use anyhow::Result;
use quillback::mysql::ServerUrl;
use quillback::mysql::wire::{WireConnection, WireError, WireOptions};
use quillback_harness::Server;

/// The URL of a server of the harness.
pub(crate) fn url(server: &Server) -> ServerUrl {
    server.url().parse().expect("the harness gives good URLs")
}

/// A URL with more in its query.
pub(crate) fn url_with(url: &str, query: &str) -> ServerUrl {
    format!("{url}/?{query}").parse().expect("a good URL")
}

/// A connection of the packet layer.
pub(crate) async fn connect(url: &ServerUrl) -> Result<WireConnection, WireError> {
    WireConnection::connect(url, &WireOptions::default()).await
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
