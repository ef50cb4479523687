use std::collections::HashMap;

use uuid::Uuid;

use super::database::Database;
use super::keys;
use super::row::{Front, Head, StateKey, bytes_in_parts, entry_end, key_of};
use crate::ids::{Epoch, GatewayId, Seq};
use crate::records::StoreError;

/// Takes the rows of a walk.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError>;

/// How much a log holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LogSize {
    pub(super) events: u64,
    pub(super) compacted: u64,
}

/// The heads of all logs.
pub(super) fn heads(db: &Database) -> Result<Vec<(GatewayId, Head)>, StoreError> {
    let heads = db.prefix(&keys::ALL_HEADS).map(|row| {
        let (key, row) = row?;
        Ok((head_of(&key)?, Head::decode(&row)?))
    });
    heads.collect()
}

/// Up to `max` gateways that have a log: the first ones, or those after one.
pub(super) fn gateways(db: &Database, after: Option<GatewayId>, max: usize) -> Result<Vec<GatewayId>, StoreError> {
    let [first, last] = [after.map_or(Uuid::nil(), |after| after.0), Uuid::max()].map(|id| keys::head(GatewayId(id)));
    let gateways = db.range(first..=last).map(|row| head_of(&row?.0));
    // The one before is the first of the range.
    gateways.filter(|found| found.as_ref().ok().is_none_or(|of| Some(*of) != after)).take(max).collect()
}

fn head_of(key: &[u8]) -> Result<GatewayId, StoreError> {
    keys::parse_head(key).ok_or_else(|| malformed("the key of a log's head"))
}

/// Looks at every row of a log and hands those that it consists of to `each`; an error unless all of it is exact:
/// entries dense from the floor on, running totals right, the rows of the compacted state of each other and as many as
/// the head says.
pub(super) fn log(db: &Database, of: GatewayId, head: Head, each: Sink<'_>) -> Result<LogSize, StoreError> {
    if db.owner(head.epoch)? != Some(of) {
        return Err(malformed("its epoch is not its own"));
    }
    each(&keys::head(of), &head.encode())?;
    each(&keys::owner(head.epoch), of.0.as_bytes())?;
    let events = entries(db, of, head, each)?;
    let compacted = state(db, of, head, each)?;
    Ok(LogSize { events, compacted })
}

fn entries(db: &Database, of: GatewayId, head: Head, each: Sink<'_>) -> Result<u64, StoreError> {
    let (mut expected, mut end) = (head.floor, head.floor_start);
    for row in db.entry_rows(of, head.epoch, head.floor, Seq(u64::MAX)) {
        let (seq, row) = row?;
        if seq != expected {
            return Err(malformed(&format!("event {expected} is missing")));
        }
        key_of(&row)?;
        if Front::decode(seq, &row)?.start != end {
            return Err(malformed(&format!("the running total of event {seq} is wrong")));
        }
        end = entry_end(&row)?;
        expected = seq.next();
        each(&keys::entry(of, head.epoch, seq), &row)?;
        parts(db, of, head.epoch, seq, &row, each)?;
    }
    // From the other end: on a damaged index a walk may end early, and that the ends are right was seen at the opening.
    let last = db.last_entry(of, head)?.map_or(head.floor.prev(), |(seq, _)| seq);
    if last != expected.prev() {
        return Err(malformed(&format!("the events after {} are missing", expected.prev())));
    }
    Ok(expected.0 - head.floor.0)
}

/// The parts of an entry's body.
fn parts(db: &Database, of: GatewayId, epoch: Epoch, seq: Seq, row: &[u8], each: Sink<'_>) -> Result<(), StoreError> {
    let bytes = bytes_in_parts(row)?;
    if bytes == 0 {
        return Ok(());
    }
    let parts = db.parts(of, epoch, seq, bytes)?;
    let parts = parts.ok_or_else(|| malformed(&format!("the body of event {seq} is not whole")))?;
    (0..).zip(parts).try_for_each(|(number, part)| each(&keys::part(of, epoch, seq, number), &part))
}

fn state(db: &Database, of: GatewayId, head: Head, each: Sink<'_>) -> Result<u64, StoreError> {
    let (mut count, mut bytes, mut seqs, mut tombstones) = (0, 0, 0_u64, 0);
    for row in db.state_rows(of, head.epoch, Seq(0)) {
        let (seq, row) = row?;
        let wrong = |what: &str| malformed(&format!("compacted event {seq} {what}"));
        let key = key_of(&row)?.ok_or_else(|| wrong("has no key"))?;
        if seq >= head.floor {
            return Err(wrong("is not below the floor"));
        }
        (count, bytes, seqs) = (count + 1, bytes + key.size, seqs.wrapping_add(seq.0));
        each(&keys::state(of, head.epoch, seq), &row)?;
        parts(db, of, head.epoch, seq, &row, each)?;
        let at = keys::state_key(of, head.epoch, &key.key);
        let index = StateKey { seq, size: key.size, ends_key: key.ends_key }.encode();
        if db.get(&at)?.is_none_or(|row| row != index) {
            return Err(wrong("is not what its key has"));
        }
        each(&at, &index)?;
        let at = keys::tombstone(of, head.epoch, seq);
        let time = key.ends_key.then(|| key.at.timestamp_millis().to_be_bytes());
        if db.get(&at)?.as_deref() != time.as_ref().map(<[u8; 8]>::as_slice) {
            return Err(wrong("and its tombstone differ"));
        }
        if let Some(time) = time {
            tombstones += 1;
            each(&at, &time)?;
        }
    }
    let [_, state_keys, ends] = keys::all_state(of, head.epoch);
    let rows = |prefix: &[u8]| db.prefix(prefix).try_fold(0_u64, |count, row| row.map(|_| count + 1));
    let is_stale = head.seqs.is_some_and(|of_head| of_head != seqs);
    if is_stale
        || (count, bytes) != (head.keys, head.key_bytes)
        || rows(&state_keys)? != count
        || rows(&ends)? != tombstones
    {
        return Err(malformed("its compacted state is not what its head says"));
    }
    Ok(count)
}

/// Hands the rows of the table with this tag to `each`.
pub(super) fn table(db: &Database, tag: u8, each: Sink<'_>) -> Result<u64, StoreError> {
    db.prefix(&[tag]).try_fold(0, |count, row| {
        let (key, row) = row?;
        each(&key, &row)?;
        Ok(count + 1)
    })
}

/// Looks for rows that belong to nothing and hands what is wrong with them to `fault`.
pub(super) fn strays(
    db: &Database,
    heads: &[(GatewayId, Head)],
    fault: &mut dyn FnMut(String),
) -> Result<(), StoreError> {
    let heads: HashMap<GatewayId, Epoch> = heads.iter().map(|(of, head)| (*of, head.epoch)).collect();
    for row in db.prefix(&[]) {
        let (key, _) = row?;
        let is_known = match keys::kind(&key) {
            keys::Kind::Own | keys::Kind::Head | keys::Kind::Record => true,
            keys::Kind::Owner(epoch) => db.owner(epoch)?.is_some_and(|of| heads.get(&of) == Some(&epoch)),
            keys::Kind::OfLog(of, epoch) => {
                heads.get(&of) == Some(&epoch) || db.get(&keys::forgotten(of, epoch))?.is_some()
            }
            keys::Kind::Unknown => false,
        };
        if !is_known {
            fault(format!("a row belongs to nothing: its key is {:02x?}", &*key));
        }
    }
    Ok(())
}

fn malformed(what: &str) -> StoreError {
    StoreError::Malformed(what.to_owned())
}
