//! How the cost of a delivery grows with the connections of a gateway and with the size of an event.

use super::FAN;
use super::crowd;
use super::fan::{Fan, Floor};
use crate::Result;
use crate::lab::Lab;
use crate::peer::Transport;
use crate::plot::Series;
use crate::table::{self, median};

const CONNECTIONS: [usize; 3] = [100, 1_000, 3_000];
const BYTES: [usize; 5] = [300, 1_000, 3_000, 10_000, 30_000];
const ROUNDS: usize = 3;
/// Deliveries of a round: enough for CPU time, which comes in ticks of 10 ms.
const DELIVERIES: usize = 60_000;

pub(super) async fn over_connections(lab: &Lab) -> Result<()> {
    let (mut grown, mut floors) = (Vec::new(), Vec::new());
    for connections in CONNECTIONS.into_iter().chain([crowd::size()?]) {
        let mut floor = Floor::start(lab, false, connections).await?;
        let mut fan = Fan::start(lab, Transport::WebSocket, false, connections).await?;
        let (mut figures, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let events = (DELIVERIES / connections) as u64;
            beside.push(floor.round(events).await?);
            figures.push(fan.round(events, 1).await?);
        }
        let what = format!("fan-out to {connections} WebSockets");
        table::row(&what, "CPU µs/delivery", &figures, &beside)?;
        grown.push((connections as f64, median(&figures)));
        floors.push((connections as f64, median(&beside)));
        fan.stop().await?;
    }
    let series = [("gatecast", grown), ("floor", floors)];
    let series = series.map(|(name, points)| Series { name: name.to_owned(), points }).into();
    table::growth("CPU time of a delivery", "µs", "connections", series)
}

pub(super) async fn over_bytes(lab: &Lab) -> Result<()> {
    let mut fan = Fan::start(lab, Transport::WebSocket, false, FAN).await?;
    let mut grown = Vec::new();
    for bytes in BYTES {
        fan.resize(bytes);
        let mut figures = Vec::new();
        for _ in 0..ROUNDS {
            figures.push(fan.round((DELIVERIES / FAN) as u64, 1).await?);
        }
        table::row(&format!("fan-out to {FAN} WebSockets, events of {bytes} bytes"), "CPU µs/delivery", &figures, &[])?;
        grown.push((bytes as f64, median(&figures)));
    }
    fan.stop().await?;
    let series = vec![Series { name: "gatecast".to_owned(), points: grown }];
    table::growth("CPU time of a delivery", "µs", "bytes of an event", series)
}
