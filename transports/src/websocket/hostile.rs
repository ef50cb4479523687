//! Whatever bytes come in, the connection ends well.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::connection;
use crate::Scripted;
use crate::close::CloseReason;
use crate::contract::script::{ACK, Script, ack};
use crate::contract::ws::masked;
use crate::timing::Timing;
use crate::transport::{Gate, Liveness};

proptest! {
    #[test]
    fn any_bytes_end_in_a_close_frame_or_a_clean_end(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..400), frames()],
        cut_into in 1_usize..64,
    ) {
        let (said, reasons) = converse(&bytes, cut_into);
        let frames = parsed(&said);
        prop_assert!(frames.is_some(), "half a frame: {:?}", said);
        let frames = frames.unwrap_or_default();
        prop_assert_eq!(frames.first().map(|(_, payload)| payload.as_slice()), Some(ACK.as_bytes()));
        let closes = frames.iter().filter(|(first, _)| *first == 0x88).count();
        prop_assert!(closes <= 1);
        prop_assert!(closes == 0 || frames.last().is_some_and(|(first, _)| *first == 0x88));
        prop_assert_eq!(reasons.len(), 1);
        // Without a close frame only if the peer ended first.
        prop_assert!(closes == 1 || reasons == [CloseReason::SocketBroken], "{:?}", reasons);
    }
}

#[tokio::test(start_paused = true)]
async fn a_talkative_peer_waits_for_the_session_after_64_messages() {
    let script = Script::new([ack()]);
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    // All of it is there before the server looks.
    far.write_all(&masked(0x81, b"x").repeat(1000)).await.unwrap();
    far.shutdown().await.unwrap();
    run(near, &script).await;
    assert_eq!(script.look(|state| (state.heard_before_written, state.heard.len())), (Some(64), 1000));
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_violation_is_read_and_thrown_away() {
    let script = Script::new([ack()]);
    let (near, mut far) = tokio::io::duplex(256);
    let server = tokio::spawn(async move { run(near, &script).await });
    // Left unread in a TCP socket, it would reset the connection and take the close frame along.
    far.write_all(&[&[0x81, 0x00][..], &[0xa5; 100_000]].concat()).await.unwrap();
    far.shutdown().await.unwrap();
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.unwrap();
    assert!(parsed(&said).unwrap().last().unwrap().1.starts_with(&1002_u16.to_be_bytes()));
    server.await.unwrap();
}

async fn run(socket: DuplexStream, script: &Script) {
    let handshake = Scripted::new("websocket", Liveness::PingPong, Timing::default()).handshake();
    let session = script.admit(handshake).await.unwrap();
    connection::run(Box::new(socket), Bytes::new(), session, Arc::default(), None, Bytes::new()).await;
}

/// Frames that are almost right, so that more than the first header is reached.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        4 => prop::sample::select(vec![0x81_u8, 0x01, 0x00, 0x80, 0x89, 0x8a]),
        1 => prop::sample::select(vec![0x88_u8, 0x82, 0x83, 0x8b, 0xc1, 0x09]),
    ];
    let payload = prop_oneof![
        4 => "[a-zä€]{0,40}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..140),
    ];
    prop::collection::vec((first, payload), 0..12)
        .prop_map(|frames| frames.iter().flat_map(|(first, payload)| masked(*first, payload)).collect())
}

/// Says `bytes` in pieces and then nothing more; gives all that came back, and why the session ended.
fn converse(bytes: &[u8], cut_into: usize) -> (Vec<u8>, Vec<CloseReason>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let script = Script::new([ack()]);
        let (near, far) = tokio::io::duplex(256);
        let server = run(near, &script);
        let (mut reading, mut writing) = tokio::io::split(far);
        let talk = async {
            for piece in bytes.chunks(cut_into) {
                if writing.write_all(piece).await.is_err() {
                    return;
                }
            }
            let _ = writing.shutdown().await;
        };
        let mut said = Vec::new();
        let (_, _, read) = tokio::join!(server, talk, reading.read_to_end(&mut said));
        read.unwrap();
        (said, script.look(|state| state.ended.clone()))
    })
}

/// All frames; `None` if the last is not whole.
fn parsed(mut bytes: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    let mut frames = Vec::new();
    while let Some((&[first, len], rest)) = bytes.split_first_chunk::<2>() {
        let (len, rest) = match len {
            126 => rest.split_first_chunk::<2>().map(|(len, rest)| (usize::from(u16::from_be_bytes(*len)), rest))?,
            short @ 0..126 => (usize::from(short), rest),
            _ => return None,
        };
        frames.push((first, rest.get(..len)?.to_vec()));
        bytes = rest.get(len..)?;
    }
    bytes.is_empty().then_some(frames)
}
