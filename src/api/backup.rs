use std::fs::File;
use std::io;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use futures::stream::try_unfold;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use tokio::io::AsyncReadExt as _;
use tracing::info;
use warp::Reply as _;

use super::error::{ApiError, Missing};
use super::{Platform, reply};

/// Bytes of a backup that are read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Copies of the whole store, one at a time. It is collected before the first byte is sent: it is whole or there is none,
/// and how fast it is read is nobody's business but the reader's.
pub(super) async fn read(api: &Platform) -> Result<warp::reply::Response, ApiError> {
    let backup = api.backup.as_ref().ok_or(ApiError::NotFound(Missing::Unsupported))?;
    let _turn = api.backup_turn.lock().await;
    let file = backup.collect().await?;
    let length = file.metadata().map_err(|error| ApiError::Unavailable(Box::new(error)))?.len();
    info!(bytes = length, "Backup collected.");
    let mut answer = warp::reply::stream(pieces(file)).into_response();
    let head = reply::bytes(StatusCode::OK, "application/octet-stream", Bytes::new());
    answer.headers_mut().extend(head.headers().clone());
    answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    Ok(answer)
}

fn pieces(file: File) -> impl Stream<Item = io::Result<Bytes>> {
    try_unfold(tokio::fs::File::from_std(file), |mut file| async move {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        Ok((file.read_buf(&mut piece).await? > 0).then(|| (piece.freeze(), file)))
    })
}
