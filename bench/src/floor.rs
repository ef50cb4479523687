//! The bare writer: accepts peers and writes ready-made bytes to each, one `write` a peer and line of standard input.
//! What a server costs above it is the server's own.

use std::fs::File;
use std::io::{BufRead, Read, Write, stdin, stdout};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::{Result, tls};

/// Bytes of an event's envelope, here and in the bench of the server.
pub(crate) const EVENT_BYTES: usize = 300;

type Peer = Box<dyn Write + Send>;

/// Serves on a free loopback port, which is the first line of standard output, until standard input ends. With a file,
/// each event is appended to it and synced before anybody is written to.
pub(crate) fn serve(with_tls: bool, file: Option<&Path>) -> Result<()> {
    let mut file = file.map(File::create).transpose()?;
    let config = if with_tls { Some(tls::server()?) } else { None };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    stdout().flush()?;
    let peers: Arc<Mutex<Vec<Peer>>> = Arc::default();
    let accepted = peers.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Ok(peer) = greet(stream, config.clone()) {
                accepted.lock().unwrap_or_else(PoisonError::into_inner).push(peer);
            }
        }
    });
    let frame = frame(&event());
    for line in stdin().lock().lines() {
        line?;
        if let Some(file) = &mut file {
            file.write_all(&frame)?;
            file.sync_data()?;
        }
        for peer in peers.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            peer.write_all(&frame)?;
        }
    }
    Ok(())
}

/// Shakes hands, and says one frame, as an acknowledgement would be.
fn greet(mut stream: TcpStream, config: Option<Arc<ServerConfig>>) -> Result<Peer> {
    stream.set_nodelay(true)?;
    let ack = frame(br#"{"type":"connection.ack"}"#);
    let Some(config) = config else {
        stream.write_all(&ack)?;
        return Ok(Box::new(stream));
    };
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    stream.write_all(&ack)?;
    // A byte from the peer shows that the handshake is over on both sides.
    stream.read_exact(&mut [0])?;
    Ok(Box::new(stream))
}

fn event() -> Vec<u8> {
    let mut event = br#"{"type":"gateway.config.updated","eventId":"00000000-0","payload":""#.to_vec();
    event.resize(EVENT_BYTES - 2, b'x');
    event.extend(b"\"}");
    event
}

/// A final text frame, RFC 6455 § 5.2.
fn frame(text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(len @ 0..=125) => frame.push(len),
        _ => {
            frame.push(126);
            frame.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    frame.extend(text);
    frame
}
